"""Listing the catalogue, and evaluating a class of one's own, as commands."""

import json
import sys

import numpy as np
import pytest

from dcae_bench.base.files import REPOSITORY, sha256_file
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.cli.main import main
from dcae_bench.cli.zoo import render, render_denoisers
from dcae_bench.data.packed import PackedPhoto, PackIndex, write_index
from dcae_bench.models import cost
from dcae_bench.records.record import load
from tests.fixtures.packs import stamps


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command that succeeds; returns what it printed."""

    def run(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        return out

    return run


@pytest.fixture
def quick(monkeypatch):
    """Costs that take no time; tests/models/test_cost.py has the real ones."""

    def count(spec, resolutions):
        c, f = spec.latent_channels, spec.compression
        return cost.AutoencoderCost(
            12_345, {side: cost.PassCost((c, side // f, side // f), side / 1000, 1.5) for side in resolutions}
        )

    monkeypatch.setattr(cost, "autoencoder_cost", count)


def test_the_list_has_every_autoencoder_with_its_origin(run, quick):
    rows = {row["name"]: row for row in json.loads(run("zoo", "--json"))}
    elsewhere = {name: row["elsewhere"] for name, row in rows.items() if row["elsewhere"]}
    assert rows.keys() - elsewhere.keys() == catalogue().autoencoders.keys()
    assert elsewhere["dc-ae-f32c128-1.1"]["reason"].startswith("a graph without shortcuts at the latent")
    row = rows["dc-ae-f64c128-in-1.0"]
    assert (row["family"], row["f"], row["c"], row["parameters"]) == ("dc-ae", 64, 128, 12_345)
    assert row["passes"]["512"] == {"latent": [128, 8, 8], "encode_gmacs": 0.512, "decode_gmacs": 1.5}
    assert (row["licence"], row["scaling_factor"]) == ("Apache-2.0", 0.2889)
    assert row["weights"] == "mit-han-lab/dc-ae-f64c128-in-1.0/model.safetensors"
    assert rows["flux-vae"]["shift"] == 0.1159 and rows["sd-vae-f32c32-retrained"]["weights"] is None


def test_the_tables_fold_no_cell(run, quick):
    printed = run("zoo")
    for text in ("dc-ae-f128c512-mix-1.0", "12,345", "0.512 / 1.500", "128x8x8", "retrained", "Apache-2.0"):
        assert text in printed
    assert "mit-han-lab/dc-ae-f128c512-mix-1.0/model.safetensors" in printed
    assert "In the authors' registries, and not expressible here" in printed and "mar-vae-f16" in printed
    assert len(render([])) == 3


def test_the_list_of_denoisers(run, monkeypatch):
    def count(spec):
        tokens = spec.latent.tokens
        return cost.DenoiserCost(44_788_768, 44_788_768, tokens, tokens / 1000, tokens / 999)

    monkeypatch.setattr(cost, "denoiser_cost", count)
    rows = {row["name"]: row for row in json.loads(run("zoo", "--denoisers", "--json"))}
    assert {"uvit-s", "uvit-m", "uvit-l", "uvit-h", "uvit-2b", "dit-s", "dit-b", "dit-l", "dit-xl"} < rows.keys()
    row = rows["dit-xl"]
    assert (row["family"], row["width"], row["depth"], row["heads"]) == ("dit", 1152, 28, 16)
    tokens = {space: counted["tokens"] for space, counted in row["spaces"].items()}
    assert tokens == {"f8p2": 1024, "f32p1": 256, "f64p1": 64, "f128p1": 16}
    assert row["released"][0] == "mit-han-lab/dc-ae-f32c32-in-1.0-dit-xl-in-512px/model.safetensors"
    printed = run("zoo", "--denoisers")
    for text in ("uvit-2b", "44.79 / 0.2560", "f128p1 (16 tokens)", row["released"][1]):
        assert text in printed
    assert rows["dc-ae-1.5-f64c128-usit-3b-in-512px"]["elsewhere"]["reason"] and "usit-3b-in-512px" in printed
    assert len(render_denoisers([])) == 3


def test_the_list_of_weights(run, tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path))
    printed = run("weights", "list")
    assert "1be61c68e6047e880a9b9dacb9ddb7a5b17dfaad" in printed and "recorded by fetch" in printed
    assert "sd-vae-f32c32-retrained" not in printed
    assert not run("weights", "verify")


def test_the_documented_example_evaluates(run, tmp_path, monkeypatch):
    """The class of docs/bring-your-own.md, on packs of noise in place of the photographs."""
    page = (REPOSITORY / "docs" / "bring-your-own.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodel.py").write_text(page.split("```python\n")[1].split("```")[0])
    command = next(line.strip() for line in page.splitlines() if "evaluate --autoencoder mymodel:Thumbnail" in line)
    profile = (REPOSITORY / "config" / "demo.yaml").read_text()
    (tmp_path / "short.yaml").write_text(profile.replace("crops_per_photo: 6", "crops_per_photo: 1"))
    for name in ("photos-indoor", "photos-mixed"):
        path = tmp_path / "results" / "demo" / "data" / name / "eval.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.random.default_rng(0).integers(0, 256, 2 * 130 * 130 * 3, dtype=np.uint8))
        photos = tuple(PackedPhoto(name=f"p{n}", offset=n * 130 * 130 * 3, height=130, width=130) for n in range(2))
        index = PackIndex(
            name=name,
            split="eval",
            short_side=256,
            sha256=sha256_file(path),
            photos=photos,
            **stamps(name),
        )
        write_index(index, path)
    run(*command.split()[1:], "--profile", "short.yaml")
    records = sorted((tmp_path / "results" / "own" / "thumbnail").glob("*.json"))
    assert [path.stem for path in records] == [f"photos-{k}-{s}" for k in ("indoor", "mixed") for s in (128, 64)]
    subject = load(records[0]).subject
    assert (subject.autoencoder, subject.family, subject.weights_source) == ("mymodel-thumbnail", "custom", "own")
    assert (subject.compression, subject.latent_channels, subject.parameters) == (8, 3, 0)
    assert "mymodel-thumbnail" in run("show", records[0])
