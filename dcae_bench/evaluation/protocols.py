"""What each protocol measures; its switches stand in :mod:`dcae_bench.protocols`."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from dcae_bench.config import Profile
from dcae_bench.metrics.lpips import Net
from dcae_bench.protocols import GENERATION, GENERATION_PAPER, GENERATION_PHOTOS, PAPER, PHOTOS


@dataclass(frozen=True)
class ReconstructionProtocol:
    """One way of measuring reconstructions. ``docs/protocol.md`` states each so that it can be written anew."""

    name: str
    distances: tuple[str, ...]
    """Extractors whose features give a Fréchet distance."""
    kernel_distances: tuple[str, ...] = ()
    """Extractors whose features give a kernel distance, KID for Inception's."""
    lpips: tuple[Net, ...] = ("alex",)
    reflected_ssim: bool = False
    """Also SSIM over reflected borders, as torchmetrics has averaged since September 2024."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Images of each data set that a result under this protocol is measured on."""


PHOTOS_V1 = ReconstructionProtocol(PHOTOS, ("efficientnet-lite0",))
PAPER_V1 = ReconstructionProtocol(
    PAPER,
    ("inception-pytorch-fid", "inception-torch-fidelity", "inception-clean-fid"),
    ("inception-torch-fidelity",),
    ("alex", "vgg"),
    reflected_ssim=True,
    images={"imagenet": 50_000, "ffhq": 10_000, "mjhq": 30_000, "mapillary-vistas": 2_000},
)
PROTOCOLS = {protocol.name: protocol for protocol in (PHOTOS_V1, PAPER_V1)}


def protocol_of(profile: Profile) -> ReconstructionProtocol:
    """The profile's protocol, with a Fréchet distance of each further extractor that the profile names."""
    protocol = PROTOCOLS[profile.evaluation.protocol]
    return replace(protocol, distances=tuple(dict.fromkeys([*protocol.distances, *profile.evaluation.extractors])))


@dataclass(frozen=True)
class GenerationProtocol:
    """One way of measuring generated images against the images that a denoiser was trained on."""

    name: str
    distances: tuple[str, ...]
    """Extractors whose features give a Fréchet distance to the training images."""
    network: str
    """The extractor of kernel distance, precision and recall, of the reference batch, and of the Inception Score."""
    inception_score: bool = False
    images: int | None = None
    """Samples that a result under this protocol is measured on."""


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
    """How a profile measures generated images: by the networks of its reconstructions, and those it names further."""
    protocol = GENERATION_PROTOCOLS[GENERATION[profile.evaluation.protocol]]
    return replace(protocol, distances=tuple(dict.fromkeys([*protocol.distances, *profile.evaluation.extractors])))


@contextmanager
def pinned(tf32: bool):
    """Run convolutions with or without TF32 and matrix products without it, whatever the caller had set.

    PyTorch's defaults, under which the authors measured, are TF32 for cuDNN's convolutions and not for products.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
