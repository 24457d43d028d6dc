"""Suite: the metrics and networks of a reconstruction protocol, applied to batches."""

from pathlib import Path

import torch
from torch import Tensor

from dcae_bench.evaluation.protocols import ReconstructionProtocol
from dcae_bench.extractors import by_name as extractors
from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.metrics.image import psnr, ssim, ssim_both

LPIPS_NAMES = {"alex": "AlexNet", "vgg": "VGG"}


class Suite:
    """Computes the values of each pair of images in a batch, and the features of images."""

    def __init__(
        self,
        protocol: ReconstructionProtocol,
        networks: dict[str, FeatureExtractor],
        lpips: dict[str, LPIPS],
        device: torch.device,
    ):
        """Use :meth:`load`. ``networks`` holds extractors by registry name, ``lpips`` LPIPS by name of its network."""
        self.protocol, self.extractors, self.device = protocol, networks, device
        self.lpips = {net: model.to(device) for net, model in lpips.items()}
        reflected = ("ssim_torchmetrics",) if protocol.reflected_ssim else ()
        self.value_names = ("psnr", "ssim", *reflected, *(f"lpips_{net}_u8" for net in self.lpips))

    @classmethod
    def load(cls, protocol: ReconstructionProtocol, device: torch.device, inception: Path | None = None) -> "Suite":
        """Load every network of a protocol. Raises :class:`WeightsError` for weights that are not on this machine."""
        names = dict.fromkeys([*protocol.distances, *protocol.kernel_distances])
        networks = {name: extractors.load(name, inception if name.startswith("inception") else None) for name in names}
        return cls(protocol, networks, {net: LPIPS.load(net) for net in protocol.lpips}, device)

    @property
    def networks(self) -> dict[str, FeatureExtractor | LPIPS]:
        """All networks, by name: extractors by registry name, LPIPS by the name of the network."""
        return {**self.extractors, **{LPIPS_NAMES[net]: model for net, model in self.lpips.items()}}

    def values(self, real: Tensor, fake: Tensor) -> Tensor:
        """Values of pairs of uint8 images (n, 3, h, w): float64 (n, m) on the CPU, one column per ``value_names``."""
        similarities = ssim_both(real, fake) if self.protocol.reflected_ssim else (ssim(real, fake),)
        columns = [psnr(real, fake), *similarities]
        columns += [net.of_uint8(fake, real) for net in self.lpips.values()]
        return torch.stack([column.double().cpu() for column in columns], dim=1)

    def features(self, images: Tensor, names: list[str]) -> dict[str, Tensor]:
        """Features of uint8 images (n, 3, h, w): float32 (n, dim) on the CPU, by name of the extractor."""
        return {name: self.extractors[name](images).float().cpu() for name in names}
