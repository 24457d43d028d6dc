"""Latents without a grid: reconstructions are measured, and what needs a grid says so in one line."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.cli.main import main
from dcae_bench.models.zoo import build
from dcae_bench.records.record import load
from dcae_bench.specs.autoencoders import CustomSpec, SpaceToChannelSpec
from dcae_bench.subjects.choose import choose_autoencoder
from dcae_bench.subjects.own_class import tokens_of
from tests import tiny_diffusion as tiny

MODULE = """
import torch


class Tokens(torch.nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def encode(self, x):
        return self.gain * torch.nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2)

    def decode(self, z):
        side = int(z.shape[1] ** 0.5)
        z = z.transpose(1, 2).unflatten(2, (side, side)) / self.gain
        return torch.nn.functional.interpolate(z, scale_factor=4)


class Grid(Tokens):
    def encode(self, x):
        return super().encode(x).transpose(1, 2).unflatten(2, (x.shape[2] // 4, x.shape[3] // 4))

    def decode(self, z):
        return super().decode(z.flatten(2).transpose(1, 2))


class OneSide(Tokens):
    def encode(self, x):
        return super().encode(torch.nn.functional.interpolate(x, size=(64, 64)))
"""
MODEL = {"family": "custom", "class_name": "its_tokens:Tokens", "compression": 4, "latent_channels": 3}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data, the classes' module and a profile; it is the current one, and runs commands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "its_tokens.py").write_text(MODULE)
    tiny.write_data(tmp_path / "data")
    monkeypatch.delitem(sys.modules, "its_tokens", raising=False)

    def profile(changes=None, **model):
        changes = {("autoencoders", "mine"): {"model": {**MODEL, **model}, "weights": "own"}, **(changes or {})}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))

    def run(verb, *options, code=0):
        profile = () if verb == "show" else ("--profile", "tiny.yaml")
        monkeypatch.setattr(sys, "argv", ["dcae-bench", verb, *profile, *map(str, options)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert (caught.value.code or 0) == code

    profile(grid=False)
    return SimpleNamespace(folder=tmp_path, profile=profile, run=run)


def test_reconstructions_are_those_of_the_same_class_with_a_grid(place, capsys):
    """Named by the profile and by the class's name."""
    place.run("evaluate", "--autoencoder", "mine", "--data", "data", "--output", "mine")
    for name in ("Tokens", "Grid"):
        place.run("evaluate", "--autoencoder", f"its_tokens:{name}", "--data", "data", "--output", name)
    records = {name: load(place.folder / name / "bright-32.json") for name in ("mine", "Tokens", "Grid")}
    found = {name: [metric.value for metric in record.metrics.values()] for name, record in records.items()}
    assert found["mine"] == pytest.approx(found["Grid"]) and found["Tokens"] == found["mine"]
    assert [record.subject.tokens for record in records.values()] == [64, 64, None]
    assert "tokens" not in records["Grid"].subject.model_dump(mode="json"), "digests of older records stay valid"
    place.run("latents", "--autoencoder", "mine", "--data", "data", "--output", "a.json")
    place.run("latents", "--autoencoder", "its_tokens:Grid", "--data", "data", "--output", "b.json")
    rms = [load(place.folder / name).metrics["rms"].value for name in ("a.json", "b.json")]
    assert rms[0] == pytest.approx(rms[1])
    place.run("table", "--data", "data", "--output", "rfid.md", "mine/bright-32.json")
    assert "64 tokens x3" in (place.folder / "rfid.md").read_text()
    capsys.readouterr()
    place.run("show", "mine/bright-32.json")
    assert "64 tokens x3 at 32 px, without a grid" in capsys.readouterr().out


def test_what_needs_a_grid_says_so(place, capsys):
    place.run("encode", "--latent", "mine@own", "--images", "two", "--data", "data", "--output", "cache", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine@own: its latent is a sequence of tokens without a grid, which cached latents and denoisers" in line
    assert not (place.folder / "cache").exists()
    row = {"denoiser": "uvit-nano", "latent": "mine@own", "data": "two", "training": "uvit", "images": 8}
    place.profile({("diffusion", "rows"): {"mine": {**row, "guidance": [{"s": 1}]}}}, grid=False)
    place.run("train-diffusion", "--row", "mine", "--latents", "c", "--output", "m", "--run-dir", "r", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "sequence of tokens without a grid, which denoisers and patches need" in line
    place.profile(grid=False)
    tiles = ("--tile-size", 16, "--tile-overlap", 8)
    place.run("evaluate", "--autoencoder", "mine", "--data", "data", "--output", "t", *tiles, code=2)
    assert "tiles: the latent is a sequence of tokens without a grid" in capsys.readouterr().err
    with pytest.raises(ValueError, match="without a grid, which cannot be folded"):
        SpaceToChannelSpec(family="space-to-channel", base=CustomSpec(**MODEL, grid=False), factor=2)


@torch.no_grad()
def test_the_number_of_tokens_may_differ_by_resolution(place):
    model, crops = build(CustomSpec(**MODEL, grid=False)), torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert [model.encode(torch.zeros(1, 3, side, side)).shape for side in (16, 32)] == [(1, 16, 3), (1, 64, 3)]
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    assert tokens_of(model, crops, torch.device("cpu")) == 16


@torch.no_grad()
def test_stated_values_that_do_not_fit(place):
    x = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ConfigError, match="a sequence of tokens without a grid; say 'grid: false' in its model"):
        build(CustomSpec(**MODEL)).encode(x)
    grid = {**MODEL, "class_name": "its_tokens:Grid", "grid": False}
    with pytest.raises(ConfigError, match=re.escape("expected (1, tokens, 3), as 'grid: false' says")):
        build(CustomSpec(**grid)).encode(x)
    model = build(CustomSpec(**MODEL, grid=False))
    with pytest.raises(DataError, match=re.escape("takes (n, tokens, 3)")):
        model.decode(torch.zeros(1, 16, 4))
    found = choose_autoencoder(tiny.profile(), "its_tokens:Tokens", None)
    assert (found.spec.compression, found.spec.latent_channels, found.spec.grid) == (1, 3, False)


def test_images_that_come_back_in_another_size_are_refused(place, capsys):
    """Tokens do not tell the size of an image."""
    place.run("evaluate", "--autoencoder", "its_tokens:OneSide", "--data", "data", "--output", "one", code=2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "(4, 3, 32, 32) came back as (4, 3, 64, 64)" in line
    assert not (place.folder / "one").exists()
