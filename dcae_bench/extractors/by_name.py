"""Names of feature extractors, and the loader of an extractor by its name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.extractors.efficientnet import efficientnet_lite0_extractor
from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.extractors.vgg import VGG16Extractor
from dcae_bench.specs.protocols import EXTRACTORS

EMBEDDED: Mapping[str, Callable[[], FeatureExtractor]] = {
    "efficientnet-lite0": efficientnet_lite0_extractor,
    "vgg16": VGG16Extractor,
}
FROM_FILE = tuple(name for name in EXTRACTORS if name not in EMBEDDED)
NAMES = EXTRACTORS


def load(name: str, weights: Path | None = None, *, any_hash: bool = False) -> FeatureExtractor:
    """Load the extractor called ``name`` without downloading anything.

    Extractors in :data:`FROM_FILE` read the file ``weights``, or their default file if None; the others have embedded
    weights. All Inception extractors of one weights file share one network. ``any_hash`` also admits Inception weights
    other than FID's; the extractor's names then say so. Raises :class:`ConfigError` for an unknown name, and
    :class:`WeightsError` for weights that are missing or do not fit.
    """
    if name in FROM_FILE:
        return _from_file(name, weights, any_hash)
    if name not in EMBEDDED:
        raise ConfigError(f"extractor {name!r}: does not exist; choose one of {', '.join(NAMES)}")
    if weights is not None:
        raise WeightsError(f"{weights}: extractor {name} has embedded weights and takes no file; leave the file out")
    return EMBEDDED[name]()


def _from_file(name: str, weights: Path | None, any_hash: bool) -> FeatureExtractor:
    # torch-fidelity takes seconds to import, and evaluations with embedded networks do not need torch-fidelity.
    if name == "dinov2":
        from dcae_bench.extractors.dinov2 import DINOv2Extractor

        return DINOv2Extractor(weights)
    from dcae_bench.extractors.inception import Inception, InceptionExtractor

    return InceptionExtractor(Inception.load(weights, any_hash=any_hash), name.removeprefix("inception-"))
