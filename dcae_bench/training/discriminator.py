"""The PatchGAN discriminator of phase 3 (Isola et al. 2017, with LDM's layout)."""

import torch
from torch import Tensor, nn

from dcae_bench.profile.training import DiscriminatorSpec

INIT_STD = 0.02
MAX_WIDTH_FACTOR = 8


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: images (n, 3, h, w) to one logit per patch (n, 1, h', w')."""

    def __init__(self, spec: DiscriminatorSpec):
        super().__init__()
        width = spec.channels
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer in range(1, spec.layers + 1):
            before, width = width, spec.channels * min(2**layer, MAX_WIDTH_FACTOR)
            stride = 2 if layer < spec.layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the patches; a high logit means that the patch looks like a photograph."""
        return self.layers(x)


def build_discriminator(spec: DiscriminatorSpec, *, seed: int) -> PatchDiscriminator:
    """Build a discriminator whose initial weights depend on ``seed`` alone; torch's global generator does not move."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchDiscriminator(spec)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INIT_STD)
        nn.init.zeros_(module.bias)
