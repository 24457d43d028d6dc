"""Features of originals, kept under their content hash: every further autoencoder on a data set finds them."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dcae_bench.data.images import Crops
from dcae_bench.errors import ResultsError
from dcae_bench.files import atomic_write, cache_dir, sha256_json, write_text
from dcae_bench.metrics.features import FeatureExtractor
from dcae_bench.provenance import fingerprint

logger = logging.getLogger(__name__)

PART = 1 << 24
DIGEST = hashlib.sha256().digest_size
"""Bytes at the end of a kept file, by which its content is known."""


class Reference:
    """The kept features of one data set's crops by one extractor: ``<cache>/reference/<key>.raw``, float32 rows.

    The key holds what the features depend on: the crops' pixels, the network and its weights, the code of the
    metrics, the kind of device and TF32. A digest at the end of the file tells whether it holds what the key says, so
    that a reference cannot be mixed up with another.
    """

    def __init__(self, crops: Crops, extractor: FeatureExtractor, *, device: str, tf32: bool):
        self.description = {
            "crops": crops.sha256,
            "images": len(crops),
            "extractor": extractor.name,
            "weights": extractor.weights_sha256,
            "code": fingerprint("dcae_bench.metrics"),
            "device": device,
            "tf32": tf32 and device == "cuda",
        }
        self.shape = (len(crops), extractor.dim)
        self.path = cache_dir() / "reference" / f"{sha256_json(self.description)}.raw"
        self._data = f"{crops.name} {crops.split} {crops.resolution} px"

    @property
    def there(self) -> bool:
        """Whether the features are kept and whole."""
        try:
            return self.path.stat().st_size == self._bytes + DIGEST
        except OSError:
            return False

    def read(self) -> np.ndarray:
        """Features (n, dim) in float32, mapped read-only, if they are those that were kept.

        Raises :class:`ResultsError` when they are gone or others.
        """
        try:
            with open(self.path, "rb") as file:
                digest = self._digest_of(file)
                found = file.read()
                features = np.memmap(file, np.float32, "r", shape=self.shape)
        except (OSError, ValueError) as error:
            raise ResultsError(f"{self.path}: cannot be read ({error}); run the evaluation again") from error
        if found != digest:
            raise ResultsError(
                f"{self.path}: does not hold the features of {self._data} that were kept there; delete the file and "
                "run the evaluation again"
            )
        return features

    def keep(self, source: Path) -> None:
        """Copy finished features into the cache. Without room there they are only not kept, and a warning says so."""
        try:
            with atomic_write(self.path) as file, open(source, "rb") as features:
                # In the same file, so that evaluations that keep the same features at once cannot mix them up.
                file.write(self._digest_of(features, file.write))
            about = {"data": self._data, **self.description, "shape": self.shape, "dtype": "float32"}
            write_text(self.path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
        except ResultsError as error:
            logger.warning("%s; the reference features are computed again next time", error)

    @property
    def _bytes(self) -> int:
        return 4 * self.shape[0] * self.shape[1]

    def _digest_of(self, features: BinaryIO, also: Callable[[bytes], object] = lambda part: None) -> bytes:
        """SHA-256 of what the features are and of their bytes, each part of which is passed on to ``also``."""
        digest = hashlib.sha256(self.path.stem.encode())
        for start in range(0, self._bytes, PART):
            part = features.read(min(PART, self._bytes - start))
            digest.update(part)
            also(part)
        return digest.digest()
