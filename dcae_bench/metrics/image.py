"""Image metrics, PSNR and SSIM: one number per pair of 8-bit images."""

import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5
BORDER = WINDOW // 2
STRIP = 128
"""Rows of an image for which SSIM is computed at a time on a CPU."""
WEIGHTS = torch.softmax(-((torch.arange(WINDOW, dtype=torch.float64) - BORDER) ** 2) / (2 * SIGMA**2), dim=0).tolist()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (n,) in dB, float64, of uint8 images (n, c, h, w); infinite for equal images."""
    _check(a, b)
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(PEAK**2 / error)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (n,), float64, of uint8 images (n, c, h, w) (Wang et al., 2004, equation 13).

    The window is an 11x11 Gaussian with sigma 1.5; K1 is 0.01, K2 is 0.03, and the data range is 255. The result is the
    mean over channels and over all windows that lie inside the image. The original definition, scikit-image, and
    torchmetrics until its release of September 2024 agree on this rule; :func:`ssim_both` adds torchmetrics' later
    rule. Raises ValueError for images smaller than the window.
    """
    return ssim_both(a, b)[0]


def ssim_both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity by two rules for the image border, each (n,) in float64, from one computation.

    The first result is :func:`ssim`: the mean over all windows that lie inside the image. The second result extends the
    images by reflection and takes the mean over every pixel, as torchmetrics does since release 1.4.2 (its pull request
    2721). Raises ValueError for images smaller than the window.
    """
    _check(a, b)
    if min(a.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW}x{WINDOW} px or more, got {tuple(a.shape[2:])}")
    similarity = _similarity(*(F.pad(images.float(), (BORDER,) * 4, mode="reflect") for images in (a, b)))
    inside = similarity[:, :, BORDER:-BORDER, BORDER:-BORDER]
    return inside.mean(dim=(1, 2, 3)), similarity.mean(dim=(1, 2, 3))


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """Similarity of each window, (n, c, h, w) in float64, for images (n, c, h + 10, w + 10) in 0 ... 255."""
    if x.device.type != "cpu":
        return _windows(x, y)
    # A strip of rows of one channel fits into the CPU's cache: two to four times as fast as the whole batch at once.
    n, c, h, w = x.shape
    similarity = x.new_empty((n, c, h - 2 * BORDER, w - 2 * BORDER), dtype=torch.float64)
    for image in range(n):
        for channel in range(c):
            for top in range(0, h - 2 * BORDER, STRIP):
                rows = slice(top, top + STRIP + 2 * BORDER)
                similarity[image, channel, top : top + STRIP] = _windows(
                    x[image, channel, rows], y[image, channel, rows]
                )
    return similarity


def _windows(x: Tensor, y: Tensor) -> Tensor:
    # E[x^2] - E[x]^2 in float32 would lose the variances of flat regions, which are about as small as C2.
    x, y = x.double(), y.double()
    mean_x, mean_y = _blur(x), _blur(y)
    means, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    # SSIM needs only the sum of the two variances, so four blurs replace five.
    covariance, variances = _blur(x * y) - means, _blur(x * x + y * y) - squares
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    return (2 * means + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean of each window that lies inside the image: (..., h, w) to (..., h - 10, w - 10)."""
    # Sums of shifted images, rows then columns, are several times as fast on a CPU as float64 convolutions.
    for axis in (-2, -1):
        inside = x.shape[axis] - WINDOW + 1
        total = x.narrow(axis, 0, inside) * WEIGHTS[0]
        for start, weight in enumerate(WEIGHTS[1:], 1):
            total.add_(x.narrow(axis, start, inside), alpha=weight)
        x = total
    return x


def _check(a: Tensor, b: Tensor) -> None:
    if a.dtype != torch.uint8 or b.dtype != torch.uint8 or a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"image metrics take two uint8 batches of one shape (n, c, h, w), "
            f"got {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        )
