"""Protocols of reconstruction and generation, and the switches that each pins because they move numbers."""

PHOTOS = "reconstruction/photos-v1"
PAPER = "reconstruction/paper-v1"
GENERATION_PHOTOS = "generation/photos-v1"
GENERATION_PAPER = "generation/paper-v1"
GENERATION = {PHOTOS: GENERATION_PHOTOS, PAPER: GENERATION_PAPER}
"""How a profile that measures reconstructions one way measures generated images."""

# Under paper-v1 as the authors' evaluation runs: latents of KL autoencoders are sampled, and convolutions use TF32,
# PyTorch's default on the GPUs that have it; matrix products do not.
SETTINGS: dict[str, dict[str, str]] = {
    PHOTOS: {"posterior": "mean"},
    PAPER: {"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"},
    GENERATION_PHOTOS: {},
    GENERATION_PAPER: {"tf32": "on", "extractor_precision": "fp32"},
}
