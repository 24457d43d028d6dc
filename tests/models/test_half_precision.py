"""DC-AE in half precision as a whole: what is computed in fp32, and how far the result may be from fp32's."""

import pytest
import torch

from dcae_bench.models.dc_ae import DCAE
from dcae_bench.models.efficientvit import LiteMLA
from dcae_bench.models.residual import RMSNorm2d
from dcae_bench.models.zoo import build
from dcae_bench.specs.autoencoders import DCAESpec

CODER = {"widths": [16, 32, 64], "depths": [0, 2, 2], "blocks": ["res", "res", "evit_glu"]}
SANA = {"widths": [16, 32, 64], "depths": [1, 1, 2], "blocks": ["res", "res", "evits5_glu"], "resample": "conv"}
NORMS = {"norms": ["bn2d", "bn2d", "trms2d"], "activations": ["relu", "relu", "silu"]}
SPECS = {
    "paper": DCAESpec(family="dc-ae", latent_channels=4, encoder=CODER, decoder={**CODER, **NORMS}),
    "sana": DCAESpec(family="dc-ae", latent_channels=4, encoder=SANA, decoder=SANA),
}
# Relative root mean square of the difference to fp32; bf16 has 3 bits less than fp16.
BOUNDS = {torch.float16: 0.002, torch.bfloat16: 0.015}


def model(name: str) -> DCAE:
    return build(SPECS[name], seed=0).eval()


def images(side: int) -> torch.Tensor:
    return 2 * torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) - 1


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.float() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("side", [16, 32])  # 16 and 64 positions in the attention: both of its paths
@torch.no_grad()
def test_half_weights_stay_near_fp32(name, dtype, side):
    x = images(side)
    full, half = model(name), model(name).to(dtype)
    z = half.encode(x.to(dtype))
    y = half.decode(z)
    assert z.dtype == y.dtype == dtype
    assert 0 < distance(z, full.encode(x)) < BOUNDS[dtype]
    assert 0 < distance(y, full.decode(full.encode(x))) < 2 * BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS)
@torch.no_grad()
def test_autocast_stays_near_fp32_and_leaves_the_weights(dtype):
    x, full = images(32), model("paper")
    with torch.autocast("cpu", dtype=dtype):
        y = full(x)
    assert 0 < distance(y, full(x)) < 2 * BOUNDS[dtype]
    assert all(p.dtype == torch.float32 for p in full.parameters())


@pytest.mark.parametrize("dtype", BOUNDS)
@torch.no_grad()
def test_norms_take_fp32_statistics_where_squares_overflow(dtype):
    """Activations of 300 have squares beyond fp16; norm and attention of a half model take them."""
    norm = RMSNorm2d(32).to(dtype)
    x = 300 * torch.ones(1, 32, 8, 8, dtype=dtype)
    assert torch.isfinite(norm(x)).all() and norm(x).float().sub(1).abs().max() < 0.01
    attention = LiteMLA(32).to(dtype)
    torch.nn.init.constant_(attention.qkv.weight, 1 / 32)
    torch.nn.init.constant_(attention.project.weight, 1 / 32)
    assert torch.isfinite(attention(x)).all()
