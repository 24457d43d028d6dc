"""LPIPS v0.1: a distance of deep features, trained to agree with human judgement (Zhang et al., CVPR 2018)."""

from typing import Literal, Self

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors.embedded import embedded_sha256, load_embedded
from dcae_bench.extractors.extractor import require_uint8

Net = Literal["alex", "vgg"]

EPSILON = 1e-10  # the official implementation adds it to the norm of a feature vector
NETS: dict[Net, str] = {"alex": "alexnet", "vgg": "vgg16"}
PIXELS_AT_ONCE = 16 * 512**2
"""Pixels, over all pairs, that a GPU compares together. VGG's maps of one pair of 2048 px images fill 6 GiB."""


def pairs_at_once(device: str, side: int) -> int:
    """How many pairs of images of ``side`` px a device of type ``device`` compares together; at least one."""
    # VGG's maps of one image just fit into a CPU's cache.
    return 1 if device == "cpu" else max(1, PIXELS_AT_ONCE // side**2)


class LPIPS(nn.Module):
    """Learned perceptual distance of image pairs, as a metric and as a training loss. The network never trains."""

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net):
        """Build the network with random weights; :meth:`load` gives the trained network."""
        super().__init__()
        self.net = net
        self.stages = _alexnet() if net == "alex" else _vgg16()
        widths = [_convolutions(stage)[-1].out_channels for stage in self.stages]
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in widths)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, net: Net) -> Self:
        """Build LPIPS with its ImageNet backbone and official heads. Raises :class:`WeightsError`."""
        model = cls(net)
        named = nn.ModuleDict({"convs": nn.ModuleList(_convolutions(model.stages)), "heads": model.heads})
        try:
            named.load_state_dict(load_embedded(NETS[net]), strict=True)
        except RuntimeError as error:
            raise WeightsError(f"LPIPS {net}: the embedded weights do not fit ({error})") from error
        # Channels last runs faster on CPU, with the same result up to rounding.
        return model.to(memory_format=torch.channels_last)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the packaged file with the weights, for records."""
        return embedded_sha256(NETS[self.net])

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images in [-1, 1] into the backbone's input, by ImageNet's mean and deviation of each channel."""
        return ((images - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps, one per stage, of ``images`` (n, 3, h, w) in [-1, 1].

        The vector of channels at each position is scaled to unit length.
        """
        x = self.normalise(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            # vector_norm has gradient 0 at a feature vector of 0; the square root of a sum has gradient NaN there.
            maps.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPSILON))
        return maps

    def distance(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        """Distance (n,) of two results of :meth:`features`. Features of a fixed target can be reused."""
        layers = [head((a - b).square()).mean(dim=(1, 2, 3)) for head, a, b in zip(self.heads, x, y, strict=True)]
        return torch.stack(layers).sum(dim=0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance (n,) of images ``x`` and ``y`` (n, 3, h, w) in [-1, 1], with gradients."""
        return self.distance(self.features(x), self.features(y))

    @torch.inference_mode()
    def of_uint8(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance (n,) of uint8 images ``a`` and ``b`` (n, 3, h, w) as a metric: in float32, without gradients.

        Works on :func:`pairs_at_once` pairs at a time. Raises ValueError for images of another type or shape.
        """
        require_uint8(a)
        require_uint8(b)
        at_once = pairs_at_once(a.device.type, max(a.shape[-2:]))
        pairs = zip(a.split(at_once), b.split(at_once), strict=True)
        with torch.autocast(a.device.type, enabled=False):
            return torch.cat([self(x.float() / 127.5 - 1, y.float() / 127.5 - 1) for x, y in pairs])

    def train(self, mode: bool = True) -> Self:
        """Keep evaluation mode whatever ``mode`` says, also inside a model that trains."""
        return super().train(False)


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions inside a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def _alexnet() -> nn.ModuleList:
    return nn.ModuleList(
        [
            nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        ]
    )


def _vgg16() -> nn.ModuleList:
    stages, before = nn.ModuleList(), 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        stage = nn.Sequential() if before == 3 else nn.Sequential(nn.MaxPool2d(2))
        for _ in range(depth):
            stage.extend([nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)])
            before = width
        stages.append(stage)
    return stages
