"""Statistics of latents by channel: where they stand, how they are checked, and that every command uses them."""

import json
import sys
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.main import main
from dcae_bench.data.latents import Latents
from dcae_bench.data.pixels import to_uint8
from dcae_bench.data.sample_manifest import read_sample_manifest
from dcae_bench.diffusion.decode import decode
from dcae_bench.models.zoo import build
from dcae_bench.records.record import load
from dcae_bench.specs.autoencoders import SpaceToChannelSpec
from dcae_bench.specs.latent_scale import folded, over_cells, packing_of
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.subjects.scaling import declared_scaling
from dcae_bench.training.diffusion_run import cache_key
from tests import tiny_diffusion
from tests.tiny_diffusers import STATISTICS, Tiny, tiny

MEAN, STD = tuple(STATISTICS["latents_mean"]), tuple(STATISTICS["latents_std"])
TWELVE = {"mean": tuple(i / 8 for i in range(12)), "std": tuple(1 + i / 4 for i in range(12))}
"""Statistics of three channels whose cells are packed 2 x 2."""


def declared(one: Tiny, change=lambda net: None, **changes):
    spec = one.spec().model_copy(update={"config": {**one.config, **changes}})
    model = build(spec)
    change(model.net)
    return declared_scaling(ChosenAutoencoder("mine", spec, None, "own"), model)


def fill(net, mean, variance):
    net.bn.running_mean[:] = torch.tensor(mean)
    net.bn.running_var[:] = torch.tensor(variance)


def fill_ltx(net):
    net.latents_mean[:] = torch.arange(8.0)
    net.latents_std[:] = torch.arange(8.0) + 1


def test_statistics_of_a_config():
    found = declared(tiny("AutoencoderKLWan"))
    assert (found.factors, found.shifts) == ((0.5, 2.0, 1.0, 0.25), MEAN)
    assert found.source == "config of mine"
    # Playground 2.5: (z - mean) / std * scaling_factor.
    three = {"latents_mean": [1, 2, 3], "latents_std": [1.0, 2.0, 4.0], "scaling_factor": 0.5}
    found = declared(tiny("AutoencoderKL"), **three)
    assert (found.factors, found.shifts) == ((0.5, 0.25, 0.125), (1, 2, 3))
    assert declared(tiny("AutoencoderKL"), latents_mean=None, scaling_factor=0.5).factors == 0.5


def test_statistics_of_a_single_frame_are_those_of_the_first():
    every = {"latents_mean": list(range(8)), "latents_std": list(range(1, 9))}  # channel by channel, two frames each
    found = declared(tiny("AutoencoderKLCosmos"), **every)
    assert (found.shifts, found.std) == ((0, 2, 4, 6), (1, 3, 5, 7))


def test_statistics_in_the_weights():
    found = declared(tiny("AutoencoderKLLTXVideo"), fill_ltx, scaling_factor=2.0)
    assert found.shifts == tuple(range(8)) and found.factors == tuple(2 / (i + 1) for i in range(8))
    assert found.source == "weights of some/where (AutoencoderKLLTXVideo)"
    assert declared(tiny("AutoencoderKLLTXVideo")) is None, "what the class begins with is not declared"


def test_statistics_of_packed_latents_are_those_of_flux2():
    """As its pipeline normalises, which packs (b, c, h, w) to (b, 4c, h/2, w/2)."""
    net = build(tiny("AutoencoderKLFlux2").spec()).net
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 4, 6, generator=generator)
    fill(net, (mean := torch.randn(12, generator=generator)).tolist(), mean.square().tolist())
    packed = z.view(2, 3, 2, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 2, 3)
    assert packed.equal(F.pixel_unshuffle(z, 2))
    std = torch.sqrt(net.bn.running_var.view(1, -1, 1, 1) + net.config.batch_norm_eps)
    wanted = F.pixel_shuffle((packed - net.bn.running_mean.view(1, -1, 1, 1)) / std, 2)
    scale = declared(
        tiny("AutoencoderKLFlux2"), lambda other: fill(other, net.bn.running_mean.tolist(), net.bn.running_var.tolist())
    )
    found = (z.numpy() - over_cells(scale.shifts, (3, 4, 6))) * over_cells(scale.factors, (3, 4, 6))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)
    assert declared(tiny("AutoencoderKLFlux2")) is None


def test_rae_scales_its_latents_itself():
    def fill_rae(net):
        net._latents_mean, net._latents_std = torch.ones(64, 8, 8), torch.full((64, 8, 8), 2.0)

    assert declared(tiny("AutoencoderRAE"), scaling_factor=1.0) is None
    for found in (declared(tiny("AutoencoderRAE"), fill_rae), declared(tiny("AutoencoderRAE"), scaling_factor=0.5)):
        assert (found.factors, found.shifts) == (1, 0)
        assert found.source == "encode of AutoencoderRAE, which scales the latents itself"


def test_folded_latents_have_the_statistics_of_their_base():
    base = tiny("AutoencoderKLWan").spec()
    spec = SpaceToChannelSpec(family="space-to-channel", base=base, factor=2)
    found = declared_scaling(ChosenAutoencoder("mine", spec, None, "own"), build(spec))
    assert found.shifts == tuple(np.repeat(MEAN, 4)) and found.std == tuple(np.repeat(STD, 4))
    z = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    packed = tuple(float(i) for i in range(12))
    for factor in (2, 4):
        wide = F.pixel_unshuffle(z, factor).numpy() * over_cells(folded(packed, 3, factor), (3 * factor**2, 1, 1))
        narrow = torch.from_numpy(z.numpy() * over_cells(packed, (3, 8, 8)))
        np.testing.assert_array_equal(wide, F.pixel_unshuffle(narrow, factor).numpy())
    with pytest.raises(ValueError, match="packed 2 x 2 cannot be folded 3 x 3"):
        folded(packed, 3, 3)


def test_counts_that_do_not_fit():
    assert [packing_of(0.5, 3), packing_of((1.0,) * 3, 3), packing_of((1.0,) * 12, 3)] == [1, 1, 2]
    with pytest.raises(ValueError, match="5 numbers are not one for each of 3 channels"):
        packing_of((1.0,) * 5, 3)
    with pytest.raises(ValueError, match="a latent of 3 x 4 cells cannot be packed 2 x 2"):
        over_cells((1.0,) * 12, (3, 3, 4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latents_std": None}, "has latents_mean without latents_std; state both"),
        ({"latents_mean": None}, "has latents_std without latents_mean; state both"),
        ({"latents_mean": 0.5}, "latents_mean is 0.5, which is no list of numbers"),
        ({"latents_mean": [0.5, "x", 1, 1]}, "latents_mean is x, which is no finite number"),
        ({"latents_mean": [0.5]}, "has 1 means and 4 deviations"),
        ({"latents_std": [1, 1, 0, 1]}, "has a deviation of 0, which scales nothing"),
        ({"latents_mean": [0] * 5, "latents_std": [1] * 5}, "5 numbers are not one for each of 4 channels"),
        ({"shift_factor": 0.25}, "has both shift_factor and latents_mean"),
        ({"scaling_factor": 0}, "scaling_factor is 0, which scales nothing"),
    ],
)
def test_statistics_that_are_none_are_one_line(changes, words):
    four = {**tiny("AutoencoderKL").config, **STATISTICS, "latent_channels": 4, **changes}
    spec = tiny("AutoencoderKL").spec(c=4)
    model = build(spec.model_copy(update={"config": {**tiny("AutoencoderKL").config, "latent_channels": 4}}))
    with pytest.raises(ConfigError) as caught:
        declared_scaling(ChosenAutoencoder("mine", spec.model_copy(update={"config": four}), None, "own"), model)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of Flux2's form with statistics in its weights, and a profile that trains a denoiser on its latents."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = diffusers.AutoencoderKLFlux2(**tiny("AutoencoderKLFlux2").config)
    fill(net, TWELVE["mean"], [value**2 - net.config.batch_norm_eps for value in TWELVE["std"]])
    net.save_pretrained(tmp_path / "flux")
    tiny_diffusion.write_data(tmp_path / "data")
    row = {"denoiser": "uvit-nano", "latent": "mine@own", "data": "two", "training": "uvit", "images": 8}
    model = {"family": "diffusers", "class_name": "AutoencoderKLFlux2", "source": "flux"}
    changes = {
        ("autoencoders", "mine"): {"model": {**model, "compression": 2, "latent_channels": 3}, "weights": "own"},
        ("diffusion", "data", "two", "posterior"): "mean",
        ("diffusion", "rows"): {"mine": {**row, "guidance": [{"s": 1}]}},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_diffusion.content(changes)))

    def run(verb, *options, code=0):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", verb, "--profile", "tiny.yaml", *map(str, options)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert (caught.value.code or 0) == code

    return SimpleNamespace(folder=tmp_path, run=run, net=net)


ENCODE = ("encode", "--latent", "mine@own", "--images", "two", "--data", "data", "--output", "cache")


def test_every_command_uses_the_statistics(place, capsys):
    place.run("latents", "--autoencoder", "flux", "--data", "data", "--output", "latents.json")
    metric = load(place.folder / "latents.json").metrics["declared_statistics"]
    assert metric.value > 0.01 and metric.notes[0].startswith("deviates: channel ")
    channels = json.loads((place.folder / "latents.channels.json").read_text())
    assert [len(values) for values in channels.values()] == [12] * 3
    place.run("latents", "--autoencoder", "flux", "--data", "data", "--output", "x.json", "--strict", code=2)
    assert "declared channel statistics (weights of flux (AutoencoderKLFlux2)) deviates" in capsys.readouterr().err

    place.run(*ENCODE)
    assert "scaling factor 12 numbers from 0.2667 to 1 (declared)" in " ".join(capsys.readouterr().err.split())
    cache = Latents(place.folder / "cache")
    assert cache.manifest.shift == pytest.approx(TWELVE["mean"])
    assert cache.manifest.scaling_factor == pytest.approx([1 / std for std in TWELVE["std"]])
    raw = torch.from_numpy(np.load(place.folder / "cache" / "latents.npy"))
    packed = F.pixel_unshuffle(raw, 2)
    wanted = (packed - torch.tensor(TWELVE["mean"]).view(12, 1, 1)) / torch.tensor(TWELVE["std"]).view(12, 1, 1)
    scaled = torch.from_numpy(cache.read(range(len(raw))))
    torch.testing.assert_close(scaled, F.pixel_shuffle(wanted, 2), rtol=1e-5, atol=1e-5)
    model = build(cache.manifest.model).eval()
    model.net.load_state_dict(place.net.state_dict())
    with torch.no_grad():
        levels = decode(model, scaled, cache.manifest).int() - to_uint8(model.decode(raw)).int()
    assert levels.abs().max() <= 1, "rounding may cross an edge"

    row = ("--row", "mine", "--latents", "cache")
    place.run("train-diffusion", *row, "--output", "trained/model.safetensors", "--run-dir", "run")
    settings = load(place.folder / "trained" / "record.json").settings
    assert settings["scaling_factor"] == "12 numbers from 0.266667 to 1 (declared)"
    assert cache_key(cache.manifest) != cache_key(cache.manifest.model_copy(update={"shift": 0.5}))
    place.run("sample", *row, "--weights", "trained/model.safetensors", "--output", "samples")
    samples = read_sample_manifest(place.folder / "samples")
    assert (samples.scaling_factor, samples.shift) == (cache.manifest.scaling_factor, cache.manifest.shift)


def test_statistics_equal_to_the_measured_ones_match(place):
    place.run("latents", "--autoencoder", "flux", "--data", "data", "--output", "latents.json")
    found = json.loads((place.folder / "latents.channels.json").read_text())
    fill(place.net, found["mean"], [std**2 - place.net.config.batch_norm_eps for std in found["std"]])
    place.net.save_pretrained(place.folder / "flux")
    place.run("latents", "--autoencoder", "flux", "--data", "data", "--output", "again.json", "--strict")
    assert load(place.folder / "again.json").metrics["declared_statistics"].value < 1e-4


def test_other_statistics_are_not_mixed_with_the_cached_latents(place, capsys):
    place.run(*ENCODE)
    fill(place.net, TWELVE["std"], TWELVE["std"])
    place.net.save_pretrained(place.folder / "flux")
    place.run(*ENCODE, code=2)
    assert "holds latents of mine with weights" in capsys.readouterr().err


def test_an_odd_grid_cannot_be_packed(place, capsys):
    content = yaml.safe_load((place.folder / "tiny.yaml").read_text())
    content["diffusion"]["data"]["two"]["resolution"] = 6
    content["diffusion"]["data"]["plain"]["resolution"] = 6
    content["diffusion"]["rows"]["mine"]["denoiser"] = "uvit-nano"
    (place.folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    place.run(*ENCODE, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine: the scale of its latents (weights of flux (AutoencoderKLFlux2)) does not fit" in line
    assert "a latent of 3 x 3 cells cannot be packed 2 x 2" in line
