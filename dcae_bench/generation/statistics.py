"""Latent statistics: mean, root mean square and standard deviation, over all values and by channel."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.typed import Strict
from dcae_bench.data.images import Crops
from dcae_bench.data.native import batches_by_size
from dcae_bench.data.pixels import normalise
from dcae_bench.data.read_ahead import read_ahead
from dcae_bench.models.autoencoder import Autoencoder


class ChannelStatistics(Strict):
    """Statistics of each latent channel, in the channels' order. A file beside the record holds them."""

    mean: tuple[float, ...]
    rms: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class LatentStatistics:
    """Sums over all latents from one pass, and the statistics that follow from them."""

    count: int
    """Number of values of each channel."""
    total: np.ndarray
    """Sum of each channel's values, float64 (c,)."""
    squares: np.ndarray
    """Sum of each channel's squared values, float64 (c,)."""

    @classmethod
    def of(
        cls,
        model: Autoencoder,
        crops: Crops,
        *,
        batch_size: int,
        device: torch.device,
        threads: int = 0,
        packing: int = 1,
    ) -> "LatentStatistics":
        """Encode every crop once and sum the latents, whose ``packing`` x ``packing`` cells become channels first.

        Raises :class:`DataError` when there are no crops, and for latents that cannot be packed.
        """
        if not len(crops):
            raise DataError("0 images have no latents; choose a data set with photographs")
        count, total, squares = 0, np.zeros(()), np.zeros(())
        with torch.inference_mode():
            for _, batch in read_ahead(crops, batches_by_size(crops, len(crops), batch_size), threads):
                z = _packed(model.encode(normalise(batch.to(device))).double(), packing)
                count += z.numel() // z.shape[1]
                # The sums run image by image, so that the batch size changes no bit of them.
                total = sum(z.sum(dim=(2, 3)).cpu().numpy(), start=total)
                squares = sum(z.square().sum(dim=(2, 3)).cpu().numpy(), start=squares)
        return cls(count, total, squares)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return float(self.total.mean() / self.count)

    @property
    def rms(self) -> float:
        """Root of the mean square of all values: sqrt(sum z^2 / count), the authors' definition."""
        return float(np.sqrt(self.squares.mean() / self.count))

    def rms_about(self, shift: float) -> float:
        """Root of the mean square of all values after ``shift`` is subtracted from them."""
        return float(np.sqrt(max(self.rms**2 - 2 * shift * self.mean + shift**2, 0.0)))

    @property
    def std(self) -> float:
        """Standard deviation of all values about their common mean (population)."""
        return float(np.sqrt(max(self.rms**2 - self.mean**2, 0.0)))

    @property
    def channels(self) -> ChannelStatistics:
        """Mean, root mean square and standard deviation of each channel, the deviation about the channel's own mean."""
        mean, square = self.total / self.count, self.squares / self.count
        std = np.sqrt(np.maximum(square - mean**2, 0.0))
        return ChannelStatistics(mean=tuple(mean), rms=tuple(np.sqrt(square)), std=tuple(std))


def _packed(z: Tensor, packing: int) -> Tensor:
    if z.ndim == 3:  # tokens (n, N, c), as a row of cells
        z = z.transpose(1, 2)[:, :, None]
    if z.shape[2] % packing or z.shape[3] % packing:
        raise DataError(
            f"latents of {z.shape[2]} x {z.shape[3]} cells cannot be packed {packing} x {packing}, as the declared "
            "statistics want; choose a set of another resolution"
        )
    return z if packing == 1 else F.pixel_unshuffle(z, packing)
