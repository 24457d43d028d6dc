"""Protocols: the metrics and networks of each. :mod:`dcae_bench.specs.protocols` holds their switches."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dcae_bench.extractors.lpips import Net
from dcae_bench.profile.profile import Profile
from dcae_bench.specs.protocols import GENERATION, GENERATION_PAPER, GENERATION_PHOTOS, NATIVE, PAPER, PHOTOS


@dataclass(frozen=True)
class ReconstructionProtocol:
    """One way of measuring reconstructions. ``docs/protocol.md`` describes each one in full."""

    name: str
    distances: tuple[str, ...]
    """Extractors whose features give a Fréchet distance."""
    kernel_distances: tuple[str, ...] = ()
    """Extractors whose features give a kernel distance (KID with Inception)."""
    lpips: tuple[Net, ...] = ("alex",)
    """Networks that LPIPS is computed with."""
    reflected_ssim: bool = False
    """Whether to add SSIM with reflected borders, as torchmetrics computes it since September 2024."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Number of images that the protocol prescribes, by data set."""


PHOTOS_V1 = ReconstructionProtocol(PHOTOS, ("efficientnet-lite0",))
PAPER_V1 = ReconstructionProtocol(
    PAPER,
    ("inception-pytorch-fid", "inception-torch-fidelity", "inception-clean-fid"),
    ("inception-torch-fidelity",),
    ("alex", "vgg"),
    reflected_ssim=True,
    images={"imagenet": 50_000, "ffhq": 10_000, "mjhq": 30_000, "mapillary-vistas": 2_000},
)
NATIVE_V1 = replace(PHOTOS_V1, name=NATIVE)
PROTOCOLS = {protocol.name: protocol for protocol in (PHOTOS_V1, PAPER_V1, NATIVE_V1)}


def protocol_of(profile: Profile) -> ReconstructionProtocol:
    """Reconstruction protocol of a profile, with a Fréchet distance for each extractor that the profile adds."""
    protocol = PROTOCOLS[profile.evaluation.protocol]
    return replace(protocol, distances=tuple(dict.fromkeys([*protocol.distances, *profile.evaluation.extractors])))


@dataclass(frozen=True)
class GenerationProtocol:
    """One way of comparing generated samples with the images that a denoiser was trained on."""

    name: str
    distances: tuple[str, ...]
    """Extractors whose features give a Fréchet distance to the training images."""
    network: str
    """Extractor for kernel distance, precision, recall, ADM's reference batch and the Inception Score."""
    inception_score: bool = False
    images: int | None = None
    """Number of samples that the protocol prescribes; None: any."""


GENERATION_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        GenerationProtocol(GENERATION_PHOTOS, ("efficientnet-lite0",), "efficientnet-lite0"),
        GenerationProtocol(
            GENERATION_PAPER,
            ("inception-pytorch-fid", "inception-torch-fidelity"),
            "inception-torch-fidelity",
            inception_score=True,
            images=50_000,
        ),
    )
}


def generation_protocol_of(profile: Profile) -> GenerationProtocol:
    """Generation protocol of a profile, with a Fréchet distance for each extractor that the profile adds."""
    protocol = GENERATION_PROTOCOLS[GENERATION[profile.evaluation.protocol]]
    return replace(protocol, distances=tuple(dict.fromkeys([*protocol.distances, *profile.evaluation.extractors])))
