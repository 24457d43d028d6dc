"""Features of originals, kept under their content hash: every further autoencoder on a data set finds them."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np

from dcae_bench.data.images import Crops
from dcae_bench.errors import ResultsError
from dcae_bench.files import atomic_write, cache_dir, sha256_json, write_text
from dcae_bench.metrics.features import FeatureExtractor
from dcae_bench.provenance import fingerprint

logger = logging.getLogger(__name__)


class Reference:
    """The kept features of one data set's crops by one extractor; ``<cache>/reference/<key>.raw``, float32 rows.

    The key holds what the features depend on: the crops' pixels, the network and its weights, the code of the
    metrics, the kind of device and TF32. A reference can thus not be mixed up with another.
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
            return self.path.stat().st_size == 4 * self.shape[0] * self.shape[1]
        except OSError:
            return False

    def read(self) -> np.ndarray:
        """Features (n, dim) in float32, mapped read-only. Raises :class:`ResultsError` when they are gone."""
        try:
            return np.memmap(self.path, np.float32, "r", shape=self.shape)
        except (OSError, ValueError) as error:
            raise ResultsError(f"{self.path}: cannot be read ({error}); run the evaluation again") from error

    def keep(self, source: Path) -> None:
        """Copy finished features into the cache. Without room there they are only not kept, and a warning says so."""
        try:
            with atomic_write(self.path) as file, open(source, "rb") as features:
                shutil.copyfileobj(features, file, 1 << 24)
            about = {"data": self._data, **self.description, "shape": self.shape, "dtype": "float32"}
            write_text(self.path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
        except ResultsError as error:
            logger.warning("%s; the reference features are computed again next time", error)
