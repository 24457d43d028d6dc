"""Large images go through an autoencoder in parts, which changes nothing but the memory."""

from types import SimpleNamespace

import pytest
import torch

from dcae_bench.diffusion.decode import decode
from dcae_bench.models.autoencoder import PIXELS_AT_ONCE, images_at_once
from dcae_bench.models.zoo import build
from dcae_bench.specs.autoencoders import SDVAESpec

SPEC = SDVAESpec(family="sd-vae", latent_channels=4, widths=[8, 8], layers_per_block=1, norm_groups=4)


@pytest.mark.parametrize(("side", "images"), [(256, 256), (512, 64), (1024, 16), (2048, 4), (4096, 1), (16384, 1)])
def test_as_many_pixels_as_64_images_of_512_px(side, images):
    assert images_at_once(side) == images
    assert images == 1 or images * side**2 <= PIXELS_AT_ONCE


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_parts_are_the_whole(at_once, monkeypatch):
    model, sizes = build(SPEC, seed=0).eval(), []
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    manifest = SimpleNamespace(scaling_factor=2.0, shift=0.0)
    whole = decode(model, latents, manifest)
    monkeypatch.setattr("dcae_bench.diffusion.decode.images_at_once", lambda side: {16: at_once}[side])
    one_call = model.decode
    monkeypatch.setattr(model, "decode", lambda z: sizes.append(len(z)) or one_call(z))
    parts = decode(model, latents, manifest)
    assert max(sizes) == at_once and sum(sizes) == 5
    # Rounding of a convolution may depend on the batch.
    assert parts.shape == (5, 3, 16, 16) and (parts.int() - whole.int()).abs().max() <= 1
