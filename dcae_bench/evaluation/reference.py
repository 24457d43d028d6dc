"""Cached reference features: features of originals, computed once for all autoencoders and denoisers."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import atomic_write, cache_dir, open_regular, sha256_json, write_text
from dcae_bench.data.images import Crops
from dcae_bench.extractors import by_name
from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.records.fingerprint import fingerprint

logger = logging.getLogger(__name__)

PART = 1 << 24
"""Bytes that are hashed and copied at a time."""
DIGEST = hashlib.sha256().digest_size
"""Length in bytes of the digest at the end of a cached file."""

MEASURING = (f"{__package__}.reconstruction", f"{__package__}.features")
"""Modules that compute features: of reconstructions, and of samples. Their imports hold this module too."""


class Reference:
    """Cached features of one set of crops by one extractor: float32 rows in ``<cache>/reference/<key>.raw``.

    The key hashes everything that the features depend on: the pixels of the crops, the network and its weights, the
    code that measures, the version of torch, the kind of device, and TF32. The digest at the end of the file covers key
    and features, so a reader notices a file that was changed or belongs to another key.
    """

    def __init__(self, crops: Crops, extractor: FeatureExtractor, *, device: str, tf32: bool):
        self.description = {
            "crops": crops.sha256,
            "images": len(crops),
            "extractor": extractor.name,
            "weights": extractor.weights_sha256,
            "code": fingerprint(*MEASURING, by_name.__name__),
            "torch": torch.__version__,
            "device": device,
            "tf32": tf32 and device == "cuda",
        }
        self.shape = (len(crops), extractor.dim)
        self.path = cache_dir() / "reference" / f"{sha256_json(self.description)}.raw"
        self._data = f"{crops.name} {crops.split} {crops.resolution} px"

    def read(self) -> np.ndarray | None:
        """Return the features, float32 (n, dim), mapped read-only; None where the cache does not hold them.

        A file that cannot be read or whose digest is wrong is not believed: it causes a warning, and the features are
        computed and kept again.
        """
        try:
            with open_regular(self.path) as file:
                digest = self._digest_of(file)
                if file.read() == digest:
                    return np.memmap(file, np.float32, "r", shape=self.shape)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s: cannot be read (%s); its features are computed again", self.path, error)
            return None
        logger.warning(
            "%s: does not hold the features of %s that were kept there; they are computed again", self.path, self._data
        )
        return None

    def keep(self, source: Path) -> None:
        """Copy the file of finished features into the cache. A full disk only causes a warning."""
        try:
            with atomic_write(self.path) as file, open(source, "rb") as features:
                # The digest is in the same file, so that two evaluations that write at once cannot mix up their parts.
                file.write(self._digest_of(features, file.write))
            about = {"data": self._data, **self.description, "shape": self.shape, "dtype": "float32"}
            write_text(self.path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
        except ResultsError as error:
            logger.warning("%s; the reference features are computed again next time", error)

    @property
    def _bytes(self) -> int:
        return 4 * self.shape[0] * self.shape[1]

    def _digest_of(self, features: BinaryIO, also: Callable[[bytes], object] = lambda part: None) -> bytes:
        """SHA-256 of the key and of the bytes read from ``features``; every part read is passed to ``also``."""
        digest = hashlib.sha256(self.path.stem.encode())
        for start in range(0, self._bytes, PART):
            part = features.read(min(PART, self._bytes - start))
            digest.update(part)
            also(part)
        return digest.digest()
