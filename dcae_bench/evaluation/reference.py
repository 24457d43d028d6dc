"""Features of originals, kept under their content hash: every further autoencoder on a data set finds them."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np

from dcae_bench.data.images import Crops
from dcae_bench.errors import ResultsError
from dcae_bench.files import atomic_write, cache_dir, sha256_file, sha256_json, write_text
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
            whole = self.path.stat().st_size == 4 * self.shape[0] * self.shape[1]
        except OSError:
            return False
        return whole and self._sha256() is not None

    def read(self) -> np.ndarray:
        """Features (n, dim) in float32, mapped read-only, if they are those that were kept.

        Raises :class:`ResultsError` when they are gone or others.
        """
        try:
            found = sha256_file(self.path)
            features = np.memmap(self.path, np.float32, "r", shape=self.shape)
        except (OSError, ValueError) as error:
            raise ResultsError(f"{self.path}: cannot be read ({error}); run the evaluation again") from error
        if found != self._sha256():
            raise ResultsError(
                f"{self.path}: sha256 is {found}, which is not that of the features of {self._data} that were kept; "
                "delete the file and run the evaluation again"
            )
        return features

    def keep(self, source: Path) -> None:
        """Copy finished features into the cache. Without room there they are only not kept, and a warning says so."""
        try:
            with atomic_write(self.path) as file, open(source, "rb") as features:
                shutil.copyfileobj(features, file, 1 << 24)
            about = {"data": self._data, **self.description, "shape": self.shape, "dtype": "float32"}
            about["sha256"] = sha256_file(source)
            write_text(self._about, json.dumps(about, indent=2) + "\n")
        except ResultsError as error:
            logger.warning("%s; the reference features are computed again next time", error)

    @property
    def _about(self) -> Path:
        return self.path.with_suffix(".json")

    def _sha256(self) -> str | None:
        """Hash of the features as they were kept."""
        try:
            return json.loads(self._about.read_text())["sha256"]
        except (OSError, ValueError, KeyError):
            return None
