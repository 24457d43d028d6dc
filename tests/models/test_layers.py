"""The short ways of DC-AE's layers against torch's own functions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dcae_bench.models import layers
from dcae_bench.models.layers import (
    PATCHES_MAX_POSITIONS,
    Conv1x1,
    Conv3x3,
    add_channel_duplicate_to_space,
    channel_to_space,
    space_to_channel,
    space_to_channel_average,
)

sizes = st.integers(1, 4)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@settings(deadline=None)
@given(batch=sizes, height=st.integers(1, 6), width=st.integers(1, 6), bias=st.booleans())
def test_the_product_over_patches_is_the_convolution(batch, height, width, bias):
    """So are the gradients."""
    layer, x = Conv3x3(3, 5, bias=bias).double(), noise(batch, 3, height, width).requires_grad_()
    leaves = [x, *layer.parameters()]
    y, wanted = layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    weights = noise(*y.shape)
    gradients = torch.autograd.grad((y * weights).sum(), leaves)
    for found, other in zip(gradients, torch.autograd.grad((wanted * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(found, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "stride", "patches"),
    [
        ((1, 16, 16), 1, True),
        ((4, 8, 8), 1, True),
        ((1, 1, PATCHES_MAX_POSITIONS), 1, True),
        ((1, 1, PATCHES_MAX_POSITIONS + 1), 1, False),
        ((5, 8, 8), 1, False),
        ((1, 4, 4), 2, False),
    ],
)
def test_patches_are_for_batches_of_few_positions(shape, stride, patches, monkeypatch):
    """Whole batches count: up to 256 positions of all images together."""
    calls = []
    convolution = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: calls.append(x.shape) or convolution(self, x))
    n, height, width = shape
    layer, x = Conv3x3(2, 3, stride=stride).double(), noise(n, 2, height, width)
    y = layer(x)
    assert (not calls) == patches
    torch.testing.assert_close(y, F.conv2d(x, layer.weight, layer.bias, stride, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [0, 10**6])
@pytest.mark.parametrize("bias", [True, False])
def test_both_ways_take_any_strides_and_half_precision(threshold, bias, monkeypatch):
    monkeypatch.setattr(layers, "PATCHES_MAX_POSITIONS", threshold)
    layer, x = Conv3x3(4, 6, bias=bias).bfloat16(), noise(2, 4, 5, 7).bfloat16()
    y = layer(x)
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double() if bias else None, padding=1)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2**-8)
    assert layer(x.contiguous(memory_format=torch.channels_last)).equal(y)


@given(batch=sizes, height=sizes, width=sizes, bias=st.booleans())
def test_a_1x1_convolution_is_torchs(batch, height, width, bias):
    layer, x = Conv1x1(3, 5, bias=bias).double(), noise(batch, 3, height, width)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias), rtol=1e-12, atol=1e-12)


@given(channels=sizes, height=sizes, width=sizes)
def test_space_to_channel_is_torchs(channels, height, width):
    x = noise(2, channels, 2 * height, 2 * width)
    assert space_to_channel(x).equal(F.pixel_unshuffle(x, 2))


@given(channels=sizes, group=st.sampled_from([1, 2, 4, 8]), height=sizes, width=sizes)
def test_the_downsampling_shortcut_averages_groups_of_space_to_channel(channels, group, height, width):
    x = noise(2, 2 * channels * group // 4 or 2, 2 * height, 2 * width)
    wide = F.pixel_unshuffle(x, 2)
    out = wide.shape[1] // group
    wanted = wide.unflatten(1, (out, group)).mean(dim=2)
    torch.testing.assert_close(space_to_channel_average(x, out), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shuffle", [True, False])
@given(channels=sizes, repeats=st.sampled_from([1, 2, 4, 8]), height=sizes, width=sizes)
def test_the_upsampling_sum_is_that_with_a_copy_of_the_shortcut_to_the_last_bit(
    shuffle, dtype, channels, repeats, height, width
):
    """So are its gradients."""
    out = 2 * channels * repeats // 4 or 2
    x = channels_last(noise(2, 4 * out // repeats, height, width).to(dtype)).requires_grad_()
    shape = (2, 4 * out, height, width) if shuffle else (2, out, 2 * height, 2 * width)
    y = channels_last(noise(*shape).to(dtype)).requires_grad_()
    shortcut = F.pixel_shuffle(x.repeat_interleave(repeats, dim=1), 2)
    wanted = (F.pixel_shuffle(y, 2) if shuffle else y) + shortcut
    found = add_channel_duplicate_to_space(y, x, shuffle=shuffle)
    with torch.no_grad():
        without_gradients = add_channel_duplicate_to_space(y, x, shuffle=shuffle)
    for sum_ in (found, without_gradients):
        assert sum_.equal(wanted) and sum_.is_contiguous(memory_format=torch.channels_last)
    weights = noise(*wanted.shape).to(dtype)
    found_y, found_x = torch.autograd.grad((found * weights).sum(), (y, x))
    wanted_y, wanted_x = torch.autograd.grad((wanted * weights).sum(), (y, x))
    assert found_y.equal(wanted_y)
    torch.testing.assert_close(found_x, wanted_x)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """A copy with exactly the strides of channels-last memory, also where a side of 1 allows others."""
    _, c, h, w = x.shape
    return torch.empty_strided(x.shape, (h * w * c, 1, w * c, c), dtype=x.dtype).copy_(x)


def test_channel_to_space_is_channels_last_on_every_device():
    """torch's own pixel_shuffle is so on a CPU only; the device of a tensor without values shows the difference."""
    with FakeTensorMode():
        for device in ("cpu", "cuda"):
            x = torch.empty(2, 64, 4, 6, device=device).to(memory_format=torch.channels_last)
            assert channel_to_space(x).is_contiguous(memory_format=torch.channels_last)


@given(channels=sizes, height=sizes, width=sizes)
def test_channel_to_space_is_torchs_on_every_device(channels, height, width):
    x = noise(2, 4 * channels, height, width)
    assert channel_to_space(x).equal(F.pixel_shuffle(x, 2))
    assert layers._join_windows(layers._channels_as_windows(x)).equal(F.pixel_shuffle(x, 2))  # as on a GPU
