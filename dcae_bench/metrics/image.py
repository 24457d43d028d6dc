"""Image metrics: one number per pair of 8-bit images."""

import torch
from torch import Tensor

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5


def to_uint8(x: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits as the authors do before every metric: floor(clamp(255 (x+1)/2 + 0.5))."""
    return (255 * ((x.float() + 1) / 2) + 0.5).clamp(0, 255).floor().to(torch.uint8)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (n,) in dB, float64, of uint8 images (n, c, h, w); infinite for equal images."""
    _check(a, b)
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(PEAK**2 / error)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (n,), float64, of uint8 images (n, c, h, w) (Wang et al., 2004, equation 13).

    Gaussian window of 11x11 with sigma 1.5, K1 0.01, K2 0.03, data range 255, mean over channels and over the places
    where the window lies inside the image. That is the original definition and scikit-image's. torchmetrics 1.9
    averages over reflected borders as well and earlier releases did not, so its version would change the number.
    Raises ValueError for images smaller than the window.
    """
    _check(a, b)
    if min(a.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW}x{WINDOW} px or more, got {tuple(a.shape[2:])}")
    # E[x^2] - E[x]^2 in float32 would lose the small variances of flat regions, which are what C2 is compared with.
    x, y = a.double(), b.double()
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean of each window that lies inside, (n, c, h, w) to (n, c, h - 10, w - 10)."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.softmax(-(offsets**2) / (2 * SIGMA**2), dim=0).tolist()
    # Shifted sums, rows then columns: several times as fast as float64 convolutions on CPU.
    for axis in (2, 3):
        inside = x.shape[axis] - WINDOW + 1
        total = torch.zeros_like(x.narrow(axis, 0, inside))
        for start, weight in enumerate(weights):
            total.add_(x.narrow(axis, start, inside), alpha=weight)
        x = total
    return x


def _check(a: Tensor, b: Tensor) -> None:
    if a.dtype != torch.uint8 or b.dtype != torch.uint8 or a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"image metrics take two uint8 batches of one shape (n, c, h, w), "
            f"got {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        )
