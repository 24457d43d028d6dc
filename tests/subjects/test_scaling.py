"""The scaling that is declared for an autoencoder."""

import json
import sys

import pytest
import yaml
from diffusers import AutoencoderKL

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.cli.main import main
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.models.zoo import build
from dcae_bench.records.record import load
from dcae_bench.specs.autoencoders import DiffusersSpec
from dcae_bench.subjects.choose import ChosenAutoencoder, choose_autoencoder
from dcae_bench.subjects.scaling import declared_scaling
from tests import tiny_diffusion as tiny

KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [4, 4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 3,
}
SPEC = {"family": "diffusers", "class_name": "AutoencoderKL", "compression": 4, "latent_channels": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of diffusers that states a factor and a shift, in the current folder."""
    monkeypatch.chdir(tmp_path)
    AutoencoderKL(**KL, scaling_factor=0.4, shift_factor=0.1).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def rewrite(folder, **changes):
    """Change keys of the config.json; None removes one."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def chosen(source="vae", config=None):
    spec = DiffusersSpec(**SPEC, source=str(source), config=config)
    return ChosenAutoencoder("mine", spec, None, "own")


def declared(mine):
    """What is declared for an autoencoder whose weights state nothing."""
    return declared_scaling(mine, build(mine.spec))


def test_what_stands_in_a_config_is_taken(folder):
    scaling = declared(chosen())
    assert (scaling.factor, scaling.shift, scaling.source) == (0.4, 0.1, "config.json of vae")
    assert declared(choose_autoencoder(tiny.profile(), "vae", None)) == scaling
    stated = declared(chosen(config={**KL, "scaling_factor": 2}))
    assert (stated.factor, stated.shift) == (2, 0)
    rewrite(folder, scaling_factor=None)
    assert declared(chosen()) is None, "a default of the class is not declared"


def test_weights_of_a_known_family_from_a_folder(folder):
    spec = tiny.profile().autoencoders["sd-vae"].model
    mine = ChosenAutoencoder("mine", spec, folder, "own")
    assert declared(mine).factor == 0.4
    assert declared(ChosenAutoencoder("mine", spec, folder, "retrained")) is None
    assert declared(ChosenAutoencoder("mine", spec, folder / "model.safetensors", "own")) is None
    (folder / "config.json").write_text(json.dumps({"model_name": "dc-ae-f64c128-in-1.0"}))
    assert declared(mine) == catalogue().preset("dc-ae-f64c128-in-1.0").scaling


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scaling_factor": 0}, "config.json of vae: scaling_factor is 0, which scales nothing"),
        ({"scaling_factor": -1.5}, "scaling_factor is -1.5, which scales nothing"),
        ({"scaling_factor": "0.4"}, "scaling_factor is 0.4, which is no finite number"),
        ({"scaling_factor": float("nan")}, "scaling_factor is nan, which is no finite number"),
        ({"shift_factor": [0.1]}, "shift_factor is [0.1], which is no finite number"),
        ({"shift_factor": True}, "shift_factor is True, which is no finite number"),
    ],
)
def test_what_is_no_number_is_refused_by_name(folder, changes, words):
    rewrite(folder, **changes)
    with pytest.raises(ConfigError) as caught:
        declared(chosen())
    assert words in str(caught.value)


def test_latents_checks_it_and_encode_takes_it(folder, tmp_path, monkeypatch, capsys):
    data = tiny.write_data(tmp_path / "data")
    row = {**tiny.ROW, "latent": "mine@own"}
    entry = {"model": {**SPEC, "source": "vae"}, "weights": "own"}
    changes = {("autoencoders", "mine"): entry, ("diffusion", "rows"): {"uvit": row}}
    changes |= {("diffusion", "data", "two", "posterior"): "mean"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
    command = ["latents", "--autoencoder", "mine", "--profile", "tiny.yaml", "--data", "data", "--output", "l.json"]
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *command])
    with pytest.raises(SystemExit):
        main()
    metrics = load(tmp_path / "l.json").metrics
    assert metrics["declared_scaling_factor"].value == 0.4
    assert "deviates: " in metrics["declared_scaling_factor"].notes[0]
    assert "after a shift of 0.1" in metrics["declared_scaling_factor"].notes[0]

    def encode():
        return encode_dataset(tiny.profile(changes), "mine@own", "two", data=data, output=tmp_path / "cache")

    manifest = encode()
    assert (manifest.scaling, manifest.scaling_factor, manifest.shift) == ("declared", 0.4, 0.1)
    assert encode() == manifest
    rewrite(folder, scaling_factor=0.5)
    with pytest.raises(
        DataError, match=r"its scaling is x 0\.4 after a shift of 0\.1, as declared, that of mine is now x 0"
    ):
        encode()
