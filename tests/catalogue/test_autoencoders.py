"""The catalogue, and profiles that name its entries."""

import copy

import pytest
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import CONFIG
from dcae_bench.catalogue.autoencoders import CATALOGUE, Catalogue, catalogue
from dcae_bench.profile.profile import parse_profile
from dcae_bench.profile.recipes import training_recipe

DEMO = yaml.safe_load((CONFIG / "demo.yaml").read_text())
del DEMO["ablations"]  # they need the autoencoders that tests here replace


def with_model(model) -> dict:
    content = copy.deepcopy(DEMO)
    del content["diffusion"]  # its rows are on the demo's own autoencoders
    content["autoencoders"] = {"it": {"model": model}}
    return content


def test_every_autoencoder_of_the_paper_is_listed():
    known = catalogue()
    shapes = {
        (known.spec(n).family, known.spec(n).compression, known.spec(n).latent_channels) for n in known.autoencoders
    }
    dc_ae = {("dc-ae", 32, 32), ("dc-ae", 64, 128), ("dc-ae", 128, 512)}
    ours = {("sd-vae", f, c) for f, c in [(8, 4), (8, 16), (16, 16), (32, 64), (32, 32), (64, 128), (128, 512)]}
    folded, diffusers = {("space-to-channel", 32, 64), ("space-to-channel", 64, 256)}, {("diffusers", 8, 4)}
    diffusers |= {("diffusers", 32, 128), ("diffusers", 64, 128)}  # DC-AE 1.5
    assert dc_ae | ours | folded | diffusers == shapes
    assert {f"dc-ae-{shape}-{kind}-1.0" for shape in ("f32c32", "f64c128", "f128c512") for kind in ("in", "mix")} < set(
        known.autoencoders
    )


@pytest.mark.parametrize("name", catalogue().autoencoders)
def test_names_state_the_latents_shape(name):
    """A latent shape in a name is the model's."""
    import re

    if shape := re.search(r"f(\d+)c(\d+)", name):
        spec = catalogue().spec(name)
        assert (spec.compression, spec.latent_channels) == (int(shape[1]), int(shape[2]))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("dc-ae-f32c32-in-1.0", 0.3189),
        ("dc-ae-f64c128-in-1.0", 0.2889),
        ("dc-ae-f128c512-in-1.0", 0.4883),
        ("dc-ae-f32c32-mix-1.0", 0.4552),
        ("dc-ae-f64c128-mix-1.0", 0.4538),
        ("dc-ae-f128c512-mix-1.0", 0.3620),
        ("dc-ae-f32c32-sana-1.0", 0.41407),
        ("dc-ae-f32c32-sana-1.1", 0.41407),
        ("dc-ae-lite-f32c32", 0.41407),
        ("dc-ae-1.5-f64c128", 0.5935),
        ("sd-vae-ft-ema", 0.18215),
        ("sd-vae-ft-mse", 0.18215),
        ("sdxl-vae", 0.13025),
        ("flux-vae", 0.3611),
    ],
)
def test_scaling_factors(name, factor):
    scaling = catalogue().preset(name).scaling
    assert (scaling.factor, scaling.shift) == (factor, 0.1159 if name == "flux-vae" else 0)


@pytest.mark.parametrize("name", ["dc-ae-f64c128-in-1.0", "dc-ae-f64c128"])
def test_a_profile_names_an_autoencoder_or_an_architecture(name):
    profile = parse_profile(with_model({"preset": name}), "p.yaml")
    spec = catalogue().architectures["dc-ae-f64c128"]
    assert profile.autoencoders["it"].model == spec
    assert training_recipe(profile, "it", 1)["model"] == spec.model_dump(mode="json"), "the recipe holds the full spec"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"preset": "dc-ae-f64c128-in"}, "did you mean dc-ae-f64c128"),
        ({"preset": "zzzz"}, "`dcae-bench zoo` lists the names"),
        ({"preset": "sd-vae-ft-ema", "norm_groups": 8}, "'preset' stands alone, without 'norm_groups'"),
        ({"family": "custom", "class_name": "a.b", "compression": 8, "latent_channels": 4}, "autoencoders.it.model"),
        (
            {"family": "sd-vae", "latent_channels": 4, "widths": [32, 32], "attention_levels": [2]},
            "the levels are 0 to 1",
        ),
        ({"preset": "dc-ae-f128c512"}, "resolution 64 of phase 1 is not a multiple of 128"),
    ],
)
def test_models_that_cannot_be(model, words):
    with pytest.raises(ConfigError) as caught:
        parse_profile(with_model(model), "p.yaml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("architecture: ldm-f16c16", "architecture: ldm", "architecture 'ldm' of 'ldm-kl-f16' does not exist"),
        ("revision: 1be61c6", "revision: main-1be61c6", "autoencoders.dc-ae-f32c32-in-1.0.weights.revision"),
        ("architectures:", "architectures: [", "is not valid YAML"),
        ("      address: ommer-lab", "      repo: a/b\n      address: ommer-lab", "either a 'repo' or an 'address'"),
    ],
)
def test_a_damaged_catalogue_names_the_field(old, new, words, tmp_path):
    path = tmp_path / "catalogue.yaml"
    path.write_text(CATALOGUE.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=f"{path}.*{words}"):
        catalogue(path)


def test_unknown_names():
    assert isinstance(catalogue(), Catalogue)
    with pytest.raises(ConfigError, match="did you mean sd-vae-ft-mse"):
        catalogue().preset("sd-vae-mse")
    with pytest.raises(ConfigError, match="cannot be read"):
        catalogue(CATALOGUE.parent / "none.yaml")
