"""Protocols of reconstruction, and the switches that each pins because they move numbers."""

PHOTOS = "reconstruction/photos-v1"
PAPER = "reconstruction/paper-v1"

# Under paper-v1 as the authors' evaluation runs: latents of KL autoencoders are sampled, and convolutions use TF32,
# PyTorch's default on the GPUs that have it; matrix products do not.
SETTINGS: dict[str, dict[str, str]] = {
    PHOTOS: {"posterior": "mean"},
    PAPER: {"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"},
}
