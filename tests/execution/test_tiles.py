"""Tiles: what they compute beside the whole image, how they are blended, and where they lie."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.tiles import Tiled, ramp, spans
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.external import SpaceToChannel
from dcae_bench.models.zoo import build
from dcae_bench.specs.autoencoders import SDVAESpec, SpaceToChannelSpec

SPEC = SDVAESpec(family="sd-vae", latent_channels=4, widths=(8, 8), layers_per_block=1, norm_groups=4)


class Local(Autoencoder):
    """Each latent cell holds its own pixels, so that tiles make no difference; the posterior has a spread of 1."""

    family, compression, latent_channels, has_posterior, spec = "local", 4, 48, True, SPEC

    def _encode(self, x):
        return F.pixel_unshuffle(x, 4)

    def _draw(self, x, noise):
        return self._encode(x) + noise(torch.Size((48, x.shape[2] // 4, x.shape[3] // 4)))

    def _decode(self, z):
        return F.pixel_shuffle(z, 4)

    def layer_sets(self):
        return {}

    @property
    def last_layer(self):
        raise NotImplementedError


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def noise(shape):
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("encodes", [True, False])
@pytest.mark.parametrize(("size", "overlap"), [(16, 0), (16, 4), (16, 8), (24, 8)])
@pytest.mark.parametrize("sides", [(40, 72), (16, 44), (12, 8)])
def test_tiles_of_a_local_autoencoder_are_the_whole(sides, size, overlap, encodes):
    whole, x = Local(), picture(2, 3, *sides)
    tiled = Tiled(whole, size, overlap, encodes=encodes)
    torch.testing.assert_close(tiled.encode(x), whole.encode(x))
    torch.testing.assert_close(tiled.decode(whole.encode(x)), x)
    # Overlapping tiles draw the same noise as the whole image, each its part of it.
    torch.testing.assert_close(tiled.draw(x, noise), whole.draw(x, noise))


def test_folded_latents_draw_their_part_of_the_noise_too():
    whole = SpaceToChannel(SpaceToChannelSpec(family="space-to-channel", base=SPEC, factor=2), Local())
    whole.compression, whole.latent_channels = 8, 192
    x = picture(2, 3, 32, 48)
    torch.testing.assert_close(Tiled(whole, 16, 8).draw(x, noise), whole.draw(x, noise))


def test_an_image_of_one_tile_is_computed_as_without_tiles_to_the_last_bit():
    whole = build(SPEC, seed=0).eval()
    tiled, x = Tiled(whole, 32, 8), picture(1, 3, 32, 24)
    with torch.inference_mode():
        assert tiled(x).equal(whole(x)) and not Tiled(whole, 16, 8)(x).equal(whole(x))


def test_the_blend_is_linear_between_two_tiles():
    """Each tile decodes to its own constant, so that the overlap shows the weights."""

    class Constant(Local):
        def _decode(self, z):
            self.calls = getattr(self, "calls", 0) + 1
            return torch.full((1, 3, z.shape[2] * 4, z.shape[3] * 4), float(self.calls - 1))

    row = Tiled(Constant(), 16, 8).decode(torch.zeros(1, 48, 4, 6))[0, 0, 0]
    assert row[:8].eq(0).all() and row[16:].eq(1).all()
    torch.testing.assert_close(row[8:16], (torch.arange(8) + 0.5) / 8)


@given(side=st.integers(1, 300), size=st.integers(2, 64), overlap=st.integers(0, 32))
def test_tiles_cover_every_place_and_neighbours_weigh_one_together(side, size, overlap):
    overlap = min(overlap, size // 2)
    places = spans(side, size, overlap)
    total = torch.zeros(side)
    for place in places:
        assert place.stop - place.start == min(size, side) and place.start >= 0 and place.stop <= side
        total[place] += ramp(place.start, place.stop, side, overlap, torch.device("cpu"))
    assert total.min() > 0
    if len(places) > 1 and (side - size) % (size - overlap) == 0:
        torch.testing.assert_close(total, torch.ones(side))


def test_tiles_must_be_multiples_of_f():
    for size, overlap, says in ((18, 0, "size 18"), (16, 2, "overlap 2")):
        with pytest.raises(ConfigError, match=f"tiles: {says} is not a multiple of 4, the f of"):
            Tiled(Local(), size, overlap)
