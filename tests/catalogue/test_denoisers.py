"""The catalogue of denoisers, and their specs."""

import pytest
from pydantic import ValidationError

from dcae_bench.base.errors import ConfigError
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import CATALOGUE, denoiser_catalogue
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace, UViTSpec

RELEASED = denoiser_catalogue().denoisers


def test_every_size_of_the_papers():
    sizes = {name: (one.depth, one.width, one.heads) for name, one in denoiser_catalogue().architectures.items()}
    assert sizes == {
        "uvit-s": (12, 512, 8),
        "uvit-s-deep": (16, 512, 8),
        "uvit-m": (16, 768, 12),
        "uvit-l": (20, 1024, 16),
        "uvit-h": (28, 1152, 16),
        "uvit-2b": (28, 2048, 32),
        "dit-s": (12, 384, 6),
        "dit-b": (12, 768, 12),
        "dit-l": (24, 1024, 16),
        "dit-xl": (28, 1152, 16),
    }


@pytest.mark.parametrize("name", RELEASED)
def test_released_names_say_what_they_are(name):
    preset, spec = RELEASED[name], denoiser_catalogue().spec(name)
    autoencoder, rest = name.split("-in-1.0-")
    assert preset.autoencoder == f"{autoencoder}-in-1.0"
    by_flow = {"uvit": "usit", "dit": "sit"}
    family, size = preset.architecture.split("-")
    assert rest.startswith(f"{by_flow[family] if preset.process == 'flow' else family}-{size}")
    assert preset.process == {"dit": "learned-range", "uvit": "vp"}.get(rest.split("-")[0], "flow")
    assert preset.weights.repo == f"mit-han-lab/{name}" and preset.weights.revision is None
    assert preset.scaling == catalogue().preset(preset.autoencoder).scaling
    f, c = (32, 32) if "f32" in name else (64, 128)
    assert spec.latent == LatentSpace(channels=c, side=512 // f) and spec.null_class == 1000
    assert spec.out_channels == (2 * c if preset.process == "learned-range" else c)


def test_guidance_of_the_paper():
    found = {name: preset.guidance.scale for name, preset in RELEASED.items()}
    assert found["dc-ae-f32c32-in-1.0-dit-xl-in-512px"] == 1.3
    assert found["dc-ae-f64c128-in-1.0-uvit-h-in-512px"] == 1.5
    assert (found["dc-ae-f32c32-in-1.0-usit-h-in-512px"], found["dc-ae-f32c32-in-1.0-usit-2b-in-512px"]) == (1.2, 1.15)


def test_latent_spaces_of_autoencoders():
    spec = catalogue().architectures["sd-vae-f8c4"]
    latent = LatentSpace.of(spec, 512, 2)
    assert (latent.channels, latent.side, latent.grid, latent.tokens, latent.patch_numbers) == (4, 64, 32, 1024, 16)
    with pytest.raises(ValueError, match="resolution 500 is not a multiple of 8"):
        LatentSpace.of(spec, 500)
    with pytest.raises(ValidationError, match="64 cells per side cannot be cut in patches of 3"):
        LatentSpace.of(spec, 512, 3)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (UViTSpec, {"heads": 3}, "width 16 is not a multiple of heads 3"),
        (UViTSpec, {"depth": 3}, "depth 3 is odd"),
        (DiTSpec, {"width": 18}, "width 18 is not a multiple of 4"),
        (DiTSpec, {"classes": 0}, "classes"),
        (UViTSpec, {"learn_sigma": True}, "learn_sigma"),
    ],
)
def test_specs_that_cannot_be(kind, changes, words):
    family = "uvit" if kind is UViTSpec else "dit"
    fields = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "latent": {"channels": 3, "side": 4}}
    kind(family=family, **fields)
    with pytest.raises(ValidationError, match=words):
        kind(family=family, **fields | changes)


def test_unknown_names():
    with pytest.raises(ConfigError, match="denoiser 'uvit-xl' is not in the catalogue; did you mean"):
        denoiser_catalogue().architecture("uvit-xl")
    with pytest.raises(ConfigError, match=r"released denoiser .* is not in the catalogue; did you mean dc-ae"):
        denoiser_catalogue().preset("dc-ae-f32c32-in-1.0-usit-in-512px")
    with pytest.raises(ConfigError, match="`dcae-bench zoo --denoisers` lists the names"):
        denoiser_catalogue().architecture("zzzz")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("architecture: uvit-2b", "architecture: uvit-3b", "architecture 'uvit-3b' of .* does not exist"),
        ("process: flow", "process: sde", "process"),
        ("guidance: {s: 1.3}", "guidance: {s: 1.3, w: 0.3}", "either as 's' or as 'w'"),
    ],
)
def test_a_damaged_catalogue_names_the_field(old, new, words, tmp_path):
    path = tmp_path / "denoisers.yaml"
    path.write_text(CATALOGUE.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=f"{path}.*{words}"):
        denoiser_catalogue(path)
