"""Keyed random numbers: the key is seed, purpose and index, never the batch or the process."""

import hashlib

import numpy as np


def keyed_generator(*key: int | str) -> np.random.Generator:
    """Random generator of one key. Philox gives the same stream on every platform."""
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key_digest(*key), np.dtype("<u8"))))


def key_digest(*key: int | str) -> bytes:
    """Hash of a key, 16 bytes long."""
    return hashlib.sha256(repr(key).encode()).digest()[:16]
