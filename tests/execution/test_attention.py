"""Attention: heads padded by zeros are exact, and the fastest way that agrees is chosen."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from dcae_bench.execution import attention
from dcae_bench.execution.attention import (
    attention_kernel,
    fastest_attention,
    padded_attention,
    use_attention,
    ways,
)
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace, UViTSpec

LATENT = LatentSpace(channels=4, side=4, patch=1)
SPECS = [
    UViTSpec(family="uvit", latent=LATENT, classes=10, width=36, depth=2, heads=2),
    DiTSpec(family="dit", latent=LATENT, classes=10, width=36, depth=2, heads=2),
]


def operands(head: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 7, head, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize(("head", "size"), [(72, 96), (72, 128), (18, 32)])
def test_padded_heads_give_the_same_result_and_gradients(head, size):
    parts = operands(head)
    found, wanted = padded_attention(*parts, size=size), F.scaled_dot_product_attention(*parts)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [torch.autograd.grad((out * weights).sum(), parts) for out in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_only_heads_that_fill_no_tile_are_padded():
    assert ways(64) == ["flash", "cudnn", "memory efficient"]
    padded = [way for way in ways(72) if "padded" in way]
    assert len(padded) == 6 and {way.rpartition(" ")[2] for way in padded} == {"96", "128"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.family)
def test_a_network_with_padded_heads_is_the_plain_one(spec):
    plain, padded = (build_denoiser(spec, seed=0).double() for _ in range(2))
    with torch.no_grad():
        for model in (plain, padded):
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    use_attention(padded, f"flash{attention.PADDED}32")
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t, y = torch.tensor([3.0, 500.0]), torch.tensor([1, 10])
    found, wanted = padded(x, t, y), plain(x, t, y)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert list(padded.state_dict()) == list(plain.state_dict())
    use_attention(padded, "flash")
    assert padded(x, t, y).equal(wanted)


@pytest.fixture
def times(monkeypatch) -> dict[str, float]:
    """Milliseconds of each way, instead of a GPU's clock; kernels that a CPU has."""
    ms: dict[str, float] = {}
    monkeypatch.setattr(attention, "KERNELS", {"plain": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION})

    def stand_in(attend, qkv, train):
        out = attend(*attention._operands(qkv))
        assert not train or torch.autograd.grad(out, qkv, out)[0].isfinite().all()
        size = getattr(attend, "keywords", {}).get("size")
        return ms[f"{attention.PADDED}{size}" if size else ""]

    monkeypatch.setattr(attention, "_attention_ms", stand_in)
    return ms


def choose(train: bool = False, compiled: bool = False) -> str | None:
    return fastest_attention(SPECS[0], 2, torch.bfloat16, torch.device("cpu"), train=train, compiled=compiled)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("padded_ms", "chosen"), [(2.0, "plain"), (0.5, f"plain{attention.PADDED}32")])
def test_the_fastest_way_is_chosen(train, padded_ms, chosen, times):
    times.update({"": 1.0, f"{attention.PADDED}32": padded_ms, f"{attention.PADDED}64": 3.0})
    assert choose(train) == chosen
    with attention_kernel(chosen):
        padded_attention(*operands(18), size=32)


@pytest.mark.long
def test_the_padding_is_compiled_where_the_blocks_are(times):
    times.update({"": 1.0, f"{attention.PADDED}32": 0.5, f"{attention.PADDED}64": 3.0})
    assert choose(train=True, compiled=True) == f"plain{attention.PADDED}32"


def test_a_way_that_disagrees_is_not_chosen_however_fast(times, monkeypatch):
    times.update({"": 1.0, f"{attention.PADDED}32": 0.5, f"{attention.PADDED}64": 3.0})
    pad = attention._pad
    monkeypatch.setattr(attention, "_pad", lambda q, k, v, channels: pad(q, k, 2 * v, channels))
    assert choose() == "plain"


def test_a_kernel_without_code_for_the_shapes_is_passed_over(times, monkeypatch):
    times.update({"": 1.0, f"{attention.PADDED}32": 2.0, f"{attention.PADDED}64": 3.0})
    monkeypatch.setattr(attention, "KERNELS", {"cudnn": SDPBackend.CUDNN_ATTENTION, "plain": SDPBackend.MATH})
    assert choose() == "plain"
    monkeypatch.setattr(attention, "KERNELS", {"cudnn": SDPBackend.CUDNN_ATTENTION})
    assert choose() is None
