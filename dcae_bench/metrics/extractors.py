"""Feature extractors by name."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dcae_bench.errors import ConfigError, WeightsError
from dcae_bench.metrics.dinov2 import DINOv2Extractor
from dcae_bench.metrics.features import FeatureExtractor, efficientnet_lite0_extractor
from dcae_bench.metrics.inception import DEFINITIONS, Inception, InceptionExtractor
from dcae_bench.metrics.vgg import VGG16Extractor

EMBEDDED: Mapping[str, Callable[[], FeatureExtractor]] = {
    "efficientnet-lite0": efficientnet_lite0_extractor,
    "vgg16": VGG16Extractor,
}


def _inception(definition: str, weights: Path | None, any_hash: bool) -> FeatureExtractor:
    return InceptionExtractor(Inception.load(weights, any_hash=any_hash), definition)


def _dinov2(weights: Path | None, any_hash: bool) -> FeatureExtractor:
    return DINOv2Extractor(weights)


FROM_FILE: Mapping[str, Callable[[Path | None, bool], FeatureExtractor]] = {
    **{f"inception-{definition}": partial(_inception, definition) for definition in DEFINITIONS},
    "dinov2": _dinov2,
}

NAMES = (*EMBEDDED, *FROM_FILE)


def load(name: str, weights: Path | None = None, *, any_hash: bool = False) -> FeatureExtractor:
    """Load the extractor called ``name``, its weights from the file ``weights`` where it has one.

    The Inception definitions of one weights file share one network. ``any_hash`` admits Inception weights that are not
    FID's; the extractor's names then say so. Nothing is downloaded. Raises :class:`ConfigError` for an unknown name and
    :class:`WeightsError`.
    """
    if name in FROM_FILE:
        return FROM_FILE[name](weights, any_hash)
    if name not in EMBEDDED:
        raise ConfigError(f"extractor {name!r}: does not exist; choose one of {', '.join(NAMES)}")
    if weights is not None:
        raise WeightsError(f"{weights}: extractor {name} has embedded weights and takes no file; leave the file out")
    return EMBEDDED[name]()
