"""What an autoencoder costs, without running it: parameters and multiply-accumulates on tensors that have no data."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.models.zoo import build
from dcae_bench.specs import AutoencoderSpec


@dataclass(frozen=True)
class Pass:
    """Encoding and decoding one image."""

    latent: tuple[int, int, int]
    encode_gmacs: float
    """1e9 multiply-accumulates of convolutions and matrix products; nothing elementwise."""
    decode_gmacs: float


@dataclass(frozen=True)
class Cost:
    """Parameters, and a pass per resolution (px, square)."""

    parameters: int
    passes: dict[int, Pass]


def cost(spec: AutoencoderSpec, resolutions: Iterable[int]) -> Cost:
    """Count a spec's parameters and its work per image.

    Raises :class:`DataError` for a resolution that is not a multiple of f. Fake tensors are used because the meta
    device has no autocast, which attention switches off.
    """
    with FakeTensorMode(), torch.no_grad():
        model = build(spec).eval()
        passes = {}
        for side in resolutions:
            with FlopCounterMode(display=False) as encoding:
                z = model.encode(torch.zeros(1, 3, side, side))
            with FlopCounterMode(display=False) as decoding:
                model.decode(z)
            shape = (z.shape[1], z.shape[2], z.shape[3])
            passes[side] = Pass(shape, encoding.get_total_flops() / 2e9, decoding.get_total_flops() / 2e9)
        return Cost(model.count_parameters(), passes)
