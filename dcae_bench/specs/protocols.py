"""Protocols: named ways of measuring reconstruction and generation, each with the settings that it fixes."""

from typing import Literal, get_args

PHOTOS = "reconstruction/photos-v1"
PAPER = "reconstruction/paper-v1"
NATIVE = "reconstruction/native-v1"
GENERATION_PHOTOS = "generation/photos-v1"
GENERATION_PAPER = "generation/paper-v1"
GENERATION = {PHOTOS: GENERATION_PHOTOS, PAPER: GENERATION_PAPER, NATIVE: GENERATION_PHOTOS}
"""Protocol for generated images, by the profile's protocol for reconstructions."""
LATENTS = "latents/photos-v1"
THREE_PHASES = "training/three-phase-v1"
COMPONENTS = "training/principal-components-v1"
DIFFUSION = "training/diffusion-v1"
RECORDED = (PHOTOS, PAPER, NATIVE, GENERATION_PHOTOS, GENERATION_PAPER, LATENTS, THREE_PHASES, COMPONENTS, DIFFUSION)
"""Every protocol that a record or a score may name; `measurement/workloads/recipes.py` has those of timings."""

# A protocol fixes the settings that change numbers. paper-v1 follows the authors' evaluation. It samples the latents of
# KL autoencoders. Its convolutions use TF32 (PyTorch's default on GPUs that have it), its matrix products do not.
SETTINGS: dict[str, dict[str, str]] = {
    PHOTOS: {"posterior": "mean"},
    NATIVE: {"posterior": "mean"},
    PAPER: {"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"},
    GENERATION_PHOTOS: {},
    GENERATION_PAPER: {"tf32": "on", "extractor_precision": "fp32"},
}

EXTRACTORS = (
    "efficientnet-lite0",
    "vgg16",
    "inception-pytorch-fid",
    "inception-torch-fidelity",
    "inception-clean-fid",
    "dinov2",
)
"""Names of the networks whose features give Fréchet distances; `extractors/by_name.py` loads them."""

LPIPS_MIN_RESOLUTION = 32
"""Smallest side in pixels: the poolings of AlexNet and VGG16 reduce a smaller image to nothing."""

Precision = Literal["fp32", "bf16", "fp16"]
"""Type of the numbers that a network computes with."""

WeightsSource = Literal["retrained", "released", "own"]
"""Origin of weights: trained by this harness, published by the authors, or brought by the user."""
WEIGHTS_SOURCES: tuple[WeightsSource, ...] = get_args(WeightsSource)
