"""An own autoencoder of a profile through every command, which finds class and weights by itself."""

import copy
import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.data.latents import Latents
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.records.record import load
from dcae_bench.subjects.autoencoders import open_autoencoder, state_sha256
from dcae_bench.subjects.choose import ChosenAutoencoder, choose_autoencoder
from tests import tiny_diffusion as tiny

MODULE = """
import torch
from torch import nn


class AE(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def encode(self, x):
        return self.gain * nn.functional.avg_pool2d(x, 4)

    def decode(self, z):
        return nn.functional.interpolate(z / self.gain, scale_factor=4, mode="bicubic")
"""
MODEL = {"family": "custom", "class_name": "own_ae:AE", "compression": 4, "latent_channels": 3}
ROW = {"denoiser": "uvit-nano", "latent": "mine@own", "data": "two", "training": "uvit", "images": 8}
CHANGES = {
    ("autoencoders", "mine"): {"model": MODEL, "weights": "own"},
    ("diffusion", "rows"): {"mine": {**ROW, "guidance": [{"s": 1}]}},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data, the class's module and a profile; it is the current one, and runs commands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_ae.py").write_text(MODULE)
    tiny.write_data(tmp_path / "data")
    monkeypatch.delitem(sys.modules, "own_ae", raising=False)

    def profile(changes=None):
        changes = copy.deepcopy(CHANGES) | (changes or {})
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
        return tiny.profile(changes)

    def run(verb, *options, code=0):
        given = [verb, "--profile", "tiny.yaml", *map(str, options)]
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *given])
        with pytest.raises(SystemExit) as caught:
            main()
        assert (caught.value.code or 0) == code

    profile()
    return SimpleNamespace(folder=tmp_path, profile=profile, run=run)


def forget_module(monkeypatch):
    """As another process would: import the edited module again."""
    monkeypatch.delitem(sys.modules, "own_ae", raising=False)
    importlib.invalidate_caches()


def test_every_command_finds_the_class_and_its_rows_stand_in_both_tables(place, capsys):
    place.run("evaluate", "--autoencoder", "mine", "--data", "data", "--output", "records")
    place.run("latents", "--autoencoder", "mine", "--data", "data", "--output", "latents.json")
    place.run("encode", "--latent", "mine@own", "--images", "two", "--data", "data", "--output", "cache")
    row = ("--row", "mine", "--latents", "cache")
    place.run("train-diffusion", *row, "--output", "trained/model.safetensors", "--run-dir", "run")
    place.run("sample", *row, "--weights", "trained/model.safetensors", "--output", "samples")
    measured = ("--samples", "samples", "--training", "trained/record.json", "--data", "data")
    place.run("evaluate-samples", "--row", "mine", *measured, "--output", "s1.json")
    records = [load(place.folder / path) for path in ("records/bright-32.json", "trained/record.json", "s1.json")]
    records.append(load(place.folder / "latents.json"))
    assert {record.subject.weights_source for record in records} == {"own"}
    assert {record.subject.phase for record in records} == {None}
    (sha256,) = {record.subject.weights_sha256 for record in records}
    manifest = Latents(place.folder / "cache").manifest
    assert (manifest.weights_source, manifest.weights_sha256, manifest.scaling) == ("own", sha256, "measured")
    assert manifest.scaling_factor == pytest.approx(1 / manifest.statistics.rms)
    capsys.readouterr()
    place.run(
        "train", "--autoencoder", "mine", "--phase", 1, "--data", "data", "--output", "x", "--run-dir", "y", code=2
    )
    assert "profile tiny takes its own weights; it trains sd-vae" in capsys.readouterr().err
    place.run("table", "--data", "data", "--output", "rfid.md", "records/bright-32.json")
    place.run("table-diffusion", "--data", "data", "--output", "diffusion.md", "trained/record.json", "s1.json")
    (line,) = [line for line in (place.folder / "rfid.md").read_text().splitlines() if "| mine " in line]
    assert "| own |" in " ".join(line.split()) and "8x8x3" in line
    assert "| uvit-nano (mine) |" in (place.folder / "diffusion.md").read_text()


def test_a_posterior_of_own_weights_is_sampled_as_that_of_released_ones(place):
    """Its spread is the user's own, not one that the three phases left untrained."""
    weights = tiny.write_weights(place.folder / "vae.safetensors")
    model = tiny.CONTENT["autoencoders"]["sd-vae"]["model"]

    def encode(latent, posterior, **options):
        mine = {"model": model, "weights": "own", "file": str(weights)}
        changes = {("autoencoders", "mine"): mine, ("diffusion", "data", "two", "posterior"): posterior}
        output = place.folder / f"{latent}-{posterior}"
        profile = place.profile(changes)
        manifest = encode_dataset(profile, latent, "two", data=place.folder / "data", output=output, **options)
        return manifest.posterior, manifest.weights_sha256, np.load(output / "latents.npy")

    drawn, mean = (encode("mine@own", posterior) for posterior in ("sample", "mean"))
    trained = encode("sd-vae@retrained", "sample", weights=weights)
    assert [found[0] for found in (drawn, mean, trained)] == ["sample", "mean", "mean"]
    assert {found[1] for found in (drawn, mean, trained)} == {sha256_file(weights)}
    assert np.array_equal(mean[2], trained[2]) and not np.allclose(drawn[2], mean[2], atol=1e-2)


def test_edited_code_and_an_edited_file_are_other_weights(place, monkeypatch):
    def encode():
        profile = place.profile({("autoencoders", "mine", "file"): "w.safetensors"})
        return encode_dataset(profile, "mine@own", "two", data=place.folder / "data", output=cache)

    cache, weights = place.folder / "cache", place.folder / "w.safetensors"
    save_weights({"gain": torch.tensor(2.0)}, weights)
    first = encode()
    assert first.statistics.rms == pytest.approx(2 * encode_rms(place), rel=1e-6)
    assert first.weights_sha256 != sha256_file(weights)
    save_weights({"gain": torch.tensor(3.0)}, weights)
    with pytest.raises(DataError, match="holds latents of mine with weights"):
        encode()
    save_weights({"gain": torch.tensor(2.0)}, weights)
    assert encode() == first
    (place.folder / "own_ae.py").write_text(MODULE.replace("z / self.gain", "z / self.gain + 0"))
    forget_module(monkeypatch)
    with pytest.raises(DataError, match="holds latents of mine with weights"):
        encode()


def encode_rms(place):
    """RMS of the latents of the class as it builds itself."""
    output = place.folder / "plain"
    return encode_dataset(place.profile(), "mine@own", "two", data=place.folder / "data", output=output).statistics.rms


def test_weights_of_a_known_family_are_told_by_the_files_hash(place):
    spec = tiny.profile().autoencoders["sd-vae"].model
    path = tiny.write_weights(place.folder / "vae.safetensors")
    for source in ("own", "retrained"):
        model, subject = open_autoencoder(ChosenAutoencoder("sd-vae", spec, path, source))
        assert subject.weights_sha256 == sha256_file(path) and not model.training


def test_the_base_of_a_folded_latent_counts_with_its_code(place, monkeypatch):
    from dcae_bench.specs.autoencoders import SpaceToChannelSpec

    spec = SpaceToChannelSpec(family="space-to-channel", base=MODEL, factor=2)
    before = state_sha256(build(spec))
    (place.folder / "own_ae.py").write_text(MODULE + "# edited\n")
    forget_module(monkeypatch)
    assert state_sha256(build(spec)) != before


def test_what_is_chosen_of_an_entry(place):
    profile = place.profile({("autoencoders", "mine", "file"): "w.pt"})
    chosen = choose_autoencoder(profile, "mine", None)
    assert (str(chosen.weights), chosen.source, chosen.name) == ("w.pt", "own", "mine")
    other = choose_autoencoder(profile, "mine", place.folder / "other.pt")
    assert (other.weights, other.source) == (place.folder / "other.pt", "own")
    assert choose_autoencoder(place.profile(), "mine", None).weights is None
    retrained = place.profile({("autoencoders", "mine"): {"model": MODEL}, ("diffusion", "rows"): {"uvit": tiny.ROW}})
    assert choose_autoencoder(retrained, "mine", None).source == "own"
    assert choose_autoencoder(retrained, "mine", place.folder / "model.safetensors").source == "retrained"


def test_a_file_that_is_not_there_is_one_line(place, capsys):
    place.profile({("autoencoders", "mine", "file"): "gone.safetensors"})
    place.run("evaluate", "--autoencoder", "mine", "--data", "data", "--output", "records", code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "gone.safetensors: weights cannot be read (No such file or directory)" in line
