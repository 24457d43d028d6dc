"""Random numbers keyed by what they are drawn for (seed, purpose, index), never by batch or process."""

import hashlib

import numpy as np


def keyed(*key: int | str) -> np.random.Generator:
    """Build a generator of its own for every key; Philox gives the same stream on every platform."""
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest(*key), np.dtype("<u8"))))


def digest(*key: int | str) -> bytes:
    """16 bytes that stand for a key."""
    return hashlib.sha256(repr(key).encode()).digest()[:16]
