import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.models.residual import (
    Downsample,
    LatentIn,
    LatentOut,
    ResBlock,
    RMSNorm2d,
    Upsample,
    add_channel_duplicate_to_space,
    average_channels,
    duplicate_channels,
    space_to_channel_average,
)

sizes = st.integers(1, 4)


def silent(layer: torch.nn.Module) -> torch.nn.Module:
    """The layer with every convolution at zero: what is left is its shortcut."""
    for parameter in layer.parameters():
        parameter.data.zero_()
    return layer


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def channel_duplicate_to_space(x: torch.Tensor, channels: int) -> torch.Tensor:
    """The upsampling shortcut alone."""
    n, _, h, w = x.shape
    return add_channel_duplicate_to_space(x.new_zeros(n, channels, 2 * h, 2 * w), x, shuffle=False)


def test_down_shortcut_averages_horizontal_pairs_where_the_width_doubles():
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert space_to_channel_average(x, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def test_down_shortcut_is_average_pooling_where_the_width_stays():
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert space_to_channel_average(x, 2).flatten().tolist() == [1.5, 5.5]
    x = noise(2, 6, 8, 4)
    torch.testing.assert_close(space_to_channel_average(x, 6), F.avg_pool2d(x, 2))


def test_up_shortcut_repeats_horizontal_pairs_where_the_width_halves():
    x = torch.tensor([10.0, 20.0, 30.0, 40.0]).view(1, 4, 1, 1)
    assert channel_duplicate_to_space(x, 2).tolist() == [[[[10, 10], [20, 20]], [[30, 30], [40, 40]]]]


def test_up_shortcut_is_nearest_upsampling_where_the_width_stays():
    x = torch.tensor([10.0, 20.0, 30.0, 40.0]).view(1, 4, 1, 1)
    assert channel_duplicate_to_space(x, 4).tolist() == [[[[v, v], [v, v]] for v in (10, 20, 30, 40)]]
    x = noise(2, 6, 3, 5)
    assert channel_duplicate_to_space(x, 6).equal(F.interpolate(x, scale_factor=2, mode="nearest"))


def test_latent_projections_use_consecutive_groups():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert average_channels(x, 2).flatten().tolist() == [1, 4]
    assert average_channels(x, 3).flatten().tolist() == [0.5, 2.5, 4.5]
    z = torch.tensor([7.0, 8.0]).view(1, 2, 1, 1)
    assert duplicate_channels(z, 6).flatten().tolist() == [7, 7, 7, 8, 8, 8]


@given(channels=sizes, factor=sizes, height=sizes, width=sizes)
def test_average_after_duplicate_is_the_identity(channels, factor, height, width):
    z = noise(2, channels, height, width)
    wide = duplicate_channels(z, channels * factor)
    assert wide.shape == (2, channels * factor, height, width)
    torch.testing.assert_close(average_channels(wide, channels), z)


@given(channels=sizes, ratio=st.sampled_from([1, 2, 4]), height=sizes, width=sizes)
def test_down_shortcut_undoes_the_up_shortcut(channels, ratio, height, width):
    """Averaging and duplicating are each other's mirror at every ratio of widths."""
    x = noise(1, channels * ratio, height, width)
    up = channel_duplicate_to_space(x, channels)
    assert up.shape == (1, channels, 2 * height, 2 * width)
    torch.testing.assert_close(space_to_channel_average(up, channels * ratio), x)


@given(channels=sizes, ratio=st.sampled_from([1, 2, 4]), height=sizes, width=sizes)
def test_down_shortcut_keeps_the_mean(channels, ratio, height, width):
    x = noise(1, channels, 2 * height, 2 * width)
    down = space_to_channel_average(x, channels * ratio)
    assert down.shape == (1, channels * ratio, height, width)
    torch.testing.assert_close(down.mean(), x.mean())


@pytest.mark.parametrize("resample", ["pixel", "conv"])
@given(channels=sizes, ratio=st.sampled_from([1, 2, 4]), height=sizes, width=sizes)
def test_blocks_halve_and_double_any_shape(resample, channels, ratio, height, width):
    cin, cout = 4 * channels, 4 * channels * ratio
    x = torch.zeros(1, cin, 2 * height, 2 * width)
    y = Downsample(cin, cout, resample=resample, shortcut=True)(x)
    assert y.shape == (1, cout, height, width)
    assert Upsample(cout, cin, resample=resample, shortcut=True)(y).shape == x.shape


@pytest.mark.parametrize("resample", ["pixel", "conv"])
def test_shortcuts_are_added_to_the_convolution_and_the_switch_removes_them(resample):
    x = noise(2, 4, 6, 8).float()
    cases = [
        (lambda on: Downsample(4, 8, resample=resample, shortcut=on), x, space_to_channel_average(x, 8)),
        (lambda on: Upsample(4, 4, resample=resample, shortcut=on), x, channel_duplicate_to_space(x, 4)),
        (lambda on: LatentOut(4, 2, shortcut=on), x, average_channels(x, 2)),
        (lambda on: LatentIn(4, 12, shortcut=on), x, duplicate_channels(x, 12)),
    ]
    for make, images, shortcut in cases:
        assert silent(make(True))(images).equal(shortcut)
        assert not silent(make(False))(images).any()
        with_shortcut, without = make(True), make(False)
        without.load_state_dict(with_shortcut.state_dict())
        torch.testing.assert_close(with_shortcut(images) - without(images), shortcut)


def test_pixel_resampling_moves_pixels_into_channels_after_a_convolution():
    layer = Downsample(3, 8, resample="pixel", shortcut=False)
    x = noise(1, 3, 4, 6).float()
    assert layer.conv.weight.shape == (2, 3, 3, 3)
    y, conv = layer(x), F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
    # Channel c*4 + dy*2 + dx holds pixel (2i + dy, 2j + dx) of the convolution's channel c.
    for c, dy, dx in [(0, 0, 1), (1, 1, 0), (1, 1, 1)]:
        torch.testing.assert_close(y[:, c * 4 + dy * 2 + dx], conv[:, c, dy::2, dx::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rms_norm_is_torchs_over_the_channels(dtype):
    norm = RMSNorm2d(6)
    norm.weight.data = torch.linspace(0.5, 2, 6)
    norm.bias.data = torch.linspace(-1, 1, 6)
    x = 30 * noise(2, 6, 3, 5).to(dtype)
    wanted = F.rms_norm(x.float().movedim(1, -1), (6,), norm.weight, eps=1e-5) + norm.bias
    y = norm(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, wanted.movedim(-1, 1).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weights", [torch.float32, None])
def test_rms_norm_is_the_same_to_the_last_bit_without_gradients(dtype, weights):
    """The weights are of the type of the maps, or fp32 as under autocast."""
    norm = RMSNorm2d(6)
    norm.weight.data = torch.linspace(0.5, 2, 6)
    norm.bias.data = torch.linspace(-1, 1, 6)
    norm.to(weights or dtype)
    for x in (30 * noise(2, 6, 3, 5), noise(2, 3, 5, 6).movedim(3, 1)):
        x = x.to(dtype)
        with torch.no_grad():
            found = norm(x)
        assert found.dtype == dtype and found.equal(norm(x))


def test_rms_norm_survives_values_whose_squares_overflow_half_precision():
    y = RMSNorm2d(4)(torch.full((1, 4, 1, 1), 60000.0, dtype=torch.float16))
    torch.testing.assert_close(y, torch.ones_like(y))


def test_rms_norm_divides_by_the_epsilon_where_all_channels_are_zero():
    norm = RMSNorm2d(4)
    x = torch.full((1, 4, 1, 1), 1e-3)
    torch.testing.assert_close(norm(x), x / (1e-6 + 1e-5) ** 0.5)


def test_residual_block_normalises_last_and_adds_its_input():
    block = ResBlock(4, norm="trms2d", activation="relu").double()
    assert block.conv1.bias is not None and block.conv2.bias is None
    x = noise(1, 4, 5, 5)
    y = F.conv2d(F.relu(F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1)), block.conv2.weight, padding=1)
    wanted = x + F.rms_norm(y.movedim(1, -1), (4,), eps=1e-5).movedim(-1, 1)
    torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
