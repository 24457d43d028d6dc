"""Feature extractors by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from dcae_bench.errors import ConfigError, WeightsError
from dcae_bench.metrics.features import FeatureExtractor, efficientnet_lite0_extractor
from dcae_bench.metrics.vgg import VGG16Extractor

EMBEDDED: Mapping[str, Callable[[], FeatureExtractor]] = {
    "efficientnet-lite0": efficientnet_lite0_extractor,
    "vgg16": VGG16Extractor,
}
FROM_FILE = ("inception-pytorch-fid", "inception-torch-fidelity", "inception-clean-fid", "dinov2")
NAMES = (*EMBEDDED, *FROM_FILE)


def load(name: str, weights: Path | None = None, *, any_hash: bool = False) -> FeatureExtractor:
    """Load the extractor called ``name``, its weights from the file ``weights`` where it has one.

    The Inception definitions of one weights file share one network. ``any_hash`` admits Inception weights that are not
    FID's; the extractor's names then say so. Nothing is downloaded. Raises :class:`ConfigError` for an unknown name and
    :class:`WeightsError`.
    """
    if name in FROM_FILE:
        return _from_file(name, weights, any_hash)
    if name not in EMBEDDED:
        raise ConfigError(f"extractor {name!r}: does not exist; choose one of {', '.join(NAMES)}")
    if weights is not None:
        raise WeightsError(f"{weights}: extractor {name} has embedded weights and takes no file; leave the file out")
    return EMBEDDED[name]()


def _from_file(name: str, weights: Path | None, any_hash: bool) -> FeatureExtractor:
    # torch-fidelity takes seconds to import, which evaluations with embedded networks need not wait for.
    if name == "dinov2":
        from dcae_bench.metrics.dinov2 import DINOv2Extractor

        return DINOv2Extractor(weights)
    from dcae_bench.metrics.inception import Inception, InceptionExtractor

    return InceptionExtractor(Inception.load(weights, any_hash=any_hash), name.removeprefix("inception-"))
