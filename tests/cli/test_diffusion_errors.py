"""What can be wrong on the way from images to generated ones: one line each, exit code 2, nothing left behind."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.data.latents import read_latent_manifest, write_latent_manifest
from dcae_bench.data.sample_manifest import read_sample_manifest, recipe_asked, write_sample_manifest
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.generation.sample import sample_images
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.profile import load_profile
from dcae_bench.training.diffusion_run import train_diffusion
from dcae_bench.weights import released as weights
from dcae_bench.weights.trained import METADATA, TrainedWeights
from tests import tiny_diffusion as tiny
from tests import tiny_released


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Everything up to the samples of one row, and weights of an unconditional one."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))
    data, weights = tiny.write_data(folder / "data"), tiny.write_weights(folder / "vae.safetensors")
    profile = tiny.profile()
    for name in ("two", "plain"):
        encode_dataset(profile, "sd-vae@retrained", name, data=data, output=folder / name, weights=weights)
    inputs = {"latents": folder / "two", "autoencoder": weights}
    train_diffusion(profile, "uvit", output=folder / "uvit" / "model.safetensors", run_dir=folder / "run", **inputs)
    sample_images(profile, "uvit", weights=folder / "uvit" / "model.safetensors", output=folder / "samples", **inputs)
    state = build_denoiser(profile.row("usit").denoiser, seed=1).state_dict()
    save_weights(state, folder / "usit.safetensors", trained=TrainedWeights(kind="denoiser", name="usit"))
    return folder


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """A copy to spoil, as the folder that commands run in."""
    folder = Path(shutil.copytree(finished, tmp_path / "place"))
    monkeypatch.chdir(folder)
    return folder


OPTIONS = {
    "encode": "--latent sd-vae@retrained --images two --data data --weights vae.safetensors --output out",
    "train-diffusion": "--row uvit --latents two --autoencoder vae.safetensors --run-dir new --output out/m.pt",
    "sample": "--row uvit --weights uvit/model.safetensors --latents two --autoencoder vae.safetensors --output out",
    "evaluate-samples": "--row uvit --samples samples --training uvit/record.json --data data --output out/record.json",
    "table-diffusion": "uvit/record.json --output out/table.md",
}


def command(verb: str, **changes: str) -> list[str]:
    """The command that would succeed, with some of its options changed or added."""
    words = OPTIONS[verb].split()
    for name, value in changes.items():
        option = f"--{name}"
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return [verb, *words, "--profile", "tiny.yaml"]


@pytest.mark.parametrize("verb", OPTIONS)
def test_the_commands_would_succeed(verb, place, monkeypatch):
    """Otherwise the refusals below could have another reason than the one they test."""
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *command(verb)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and any((place / "out").iterdir())


def change_manifest(folder: Path, **changes) -> None:
    """Change fields of the manifest, as another encoding would have written it."""
    write_latent_manifest(read_latent_manifest(folder).model_copy(update=changes), folder)


def test_wrong_class_counts(place, refused):
    labels = np.load("two/labels.npy")
    kept = sha256_file(Path("two/labels.npy"))
    np.save("two/labels.npy", np.where(labels == 1, 7, labels))
    change_manifest(place / "two", labels_sha256=sha256_file(Path("two/labels.npy")))
    assert "6 labels are outside of 0 to 1 (the first is 7)" in refused(*command("train-diffusion"))
    np.save("two/labels.npy", labels)
    change_manifest(place / "two", classes=3, labels_sha256=kept)
    for verb in ("train-diffusion", "sample"):
        assert "two: its number of classes is 3, row uvit needs 2" in refused(*command(verb))
    change_manifest(place / "two", classes=2)
    state = load_file("uvit/model.safetensors")
    (name,) = [key for key, value in state.items() if key.startswith("label") and len(value) == 3]
    save_file(state | {name: torch.cat([state[name], state[name]])}, "more.safetensors")
    line = refused(*command("sample", weights="more.safetensors"))
    assert "more.safetensors" in line and name in line
    assert not Path("out").exists()


def test_latents_of_another_model(place, refused):
    tiny.write_weights(place / "other.safetensors", seed=2)
    for verb in ("train-diffusion", "sample"):
        line = refused(*command(verb, autoencoder="other.safetensors"))
        assert "two: holds latents of sd-vae with weights" in line
    line = refused(*command("encode", weights="other.safetensors", output="two"))
    assert "two: holds latents of sd-vae with weights" in line and "take another folder" in line
    for verb in ("train-diffusion", "sample"):
        line = refused(*command(verb, latents="plain"))
        assert "plain: its data sets is ('dark',), row uvit needs ('bright', 'dark')" in line
    assert not Path("out").exists() and not Path("new").exists()


def test_latents_and_samples_of_another_recipe_or_of_other_code(place, refused, monkeypatch):
    """A profile that changed, or code that changed, since the files were made: no command believes them."""
    profile = Path("tiny.yaml").read_text()
    edits = {
        "two": [{("diffusion", "encode_batch"): 4}, {("diffusion", "data", "two", "crops_per_photo"): 3}],
        "samples": [{("diffusion", "sample_batch"): 3}, {("diffusion", "samples"): 4}],
    }
    for changes in edits["two"]:
        Path("tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
        for verb in ("train-diffusion", "sample"):
            line = refused(*command(verb))
            assert "two: holds latents of recipe" in line and "delete the folder and encode again" in line
    for changes in edits["samples"]:
        Path("tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
        line = refused(*command("evaluate-samples"))
        assert "samples: holds samples of recipe" in line and "delete the folder and sample again" in line
    Path("tiny.yaml").write_text(profile)
    monkeypatch.setattr("dcae_bench.data.latents.fingerprint", lambda module: "edited")
    for verb in ("train-diffusion", "sample"):
        assert "two: holds latents of recipe" in refused(*command(verb))
    monkeypatch.setattr("dcae_bench.data.sample_manifest.fingerprint", lambda module: "edited")
    assert "samples: holds samples of recipe" in refused(*command("evaluate-samples"))
    assert not Path("out").exists() and not Path("new").exists()


def test_samples_decoded_by_another_autoencoder(place, refused):
    drawn = read_sample_manifest(place / "samples")
    other = drawn.model_copy(update={"autoencoder_sha256": "9" * 64})
    asked = recipe_asked(load_profile("tiny.yaml"), other)
    write_sample_manifest(other.model_copy(update={"recipe_sha256": asked}), place / "samples")
    assert "samples: its autoencoder is 999999999999, row uvit needs" in refused(*command("evaluate-samples"))


def test_guidance_of_an_unconditional_model(place, refused):
    usit = {"row": "usit", "weights": "usit.safetensors", "latents": "plain"}
    for option in ({"s": "1.5"}, {"w": "0.5"}):
        line = refused(*command("sample", **usit, **option))
        assert "guidance s = 1.5: row usit is unconditional; use s = 1" in line
    changes = {("diffusion", "rows", "usit", "guidance"): [{"s": 1.5}]}
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
    assert "diffusion" in (line := refused(*command("sample", **usit))) and "the model is unconditional" in line
    assert not Path("out").exists()


def test_latents_that_are_not_finite(place, refused):
    state = load_file("vae.safetensors")
    large = {f"net.{name}.weight": 1e30 * state[f"net.{name}.weight"] for name in ("encoder.conv_out", "quant_conv")}
    about = TrainedWeights(kind="autoencoder", name="sd-vae")
    save_file(state | large, "large.safetensors", {METADATA: about.model_dump_json()})
    line = refused(*command("encode", weights="large.safetensors", output="large"))
    assert "its latent is not finite" in line and "take other weights" in line
    assert not Path("large/manifest.json").exists()
    latents = np.load("two/latents.npy")
    latents[5, 0, 1, 1] = np.nan
    np.save("two/latents.npy", latents)
    change_manifest(place / "two", sha256=sha256_file(Path("two/latents.npy")))
    line = refused(*command("train-diffusion"), worked=True)
    assert "latent 5 is not finite; delete" in line and not Path("out").exists()


def test_a_trained_row_needs_what_its_training_wrote(place, refused):
    for verb, option, words in (
        ("sample", "--weights", "row uvit is trained by profile tiny; name the model.safetensors"),
        ("sample", "--latents", "row uvit is trained by profile tiny; name the folder that `encode` wrote"),
        ("evaluate-samples", "--training", "row uvit is trained; name the record.json"),
    ):
        words_of = command(verb)
        at = words_of.index(option)
        line = refused(*words_of[:at], *words_of[at + 2 :])
        assert line.startswith(f"{option} is missing: {words}")
    assert not Path("out").exists()


@pytest.fixture
def released(place, monkeypatch):
    """A profile of released denoisers, whose weights are on record, and samples of one of them in ``drawn``."""
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(place / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))
    tiny_released.install(monkeypatch)
    tiny_released.fetch_all(place / "weights")
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny_released.CONTENT))
    sample_images(load_profile("tiny.yaml"), "uvit", output=place / "drawn")
    return place


SAMPLE = ("sample", "--profile", "tiny.yaml", "--row", "uvit", "--output", "out")
EVALUATE = ("evaluate-samples", "--profile", "tiny.yaml", "--data", "data", "--output", "out/record.json")


def test_a_released_row_takes_nothing_in_place_of_its_own(released, refused):
    for option, words in (
        ("--weights", f"takes the released weights of {tiny_released.UVIT}; leave the option out"),
        ("--autoencoder", "takes the released weights of tiny-vae; leave the option out"),
        ("--latents", "their scale is the catalogue's; leave the option out"),
    ):
        line = refused(*SAMPLE, option, "mine")
        assert line.startswith(f"{option} mine: row uvit") and words in line
    line = refused(*EVALUATE, "--row", "uvit", "--samples", "drawn", "--training", "uvit/record.json")
    assert "--training uvit/record.json: row uvit has released weights" in line
    train = ["train-diffusion", "--profile", "tiny.yaml", "--row", "uvit"]
    line = refused(*train, "--latents", "a", "--run-dir", "b", "--output", "c")
    assert f"--row uvit: its weights are released ({tiny_released.UVIT})" in line
    assert not Path("out").exists()


def test_released_weights_that_are_not_here_or_are_others(released, refused):
    weights.receipts_path().unlink()
    line = refused(*SAMPLE)
    assert (
        f"nobody/{tiny_released.UVIT}/model.safetensors" in line
        and f"`dcae-bench weights fetch {tiny_released.UVIT} --path FILE`" in line
    )
    other = tiny_released.write_pipeline(tiny_released.DIT, released / "other.safetensors")
    weights.fetch("tiny-vae", path=released / "weights" / "tiny-vae.safetensors")
    weights.fetch(tiny_released.UVIT, path=other)
    line = refused(*SAMPLE)
    assert "other.safetensors" in line and "these are not weights of this uvit (width 16, depth 2)" in line
    other.write_bytes(b"changed")
    assert f"is recorded for {tiny_released.UVIT}" in refused(*SAMPLE)
    assert not Path("out").exists()


def test_samples_of_another_denoiser(released, refused):
    line = refused(*EVALUATE, "--row", "usit", "--samples", "drawn")
    assert "drawn: its row is uvit, row usit needs usit" in line
    line = refused(*EVALUATE, "--row", "uvit", "--samples", "samples")
    assert "samples: its released denoiser is one trained here, row uvit needs tiny-uvit-in-32px" in line
    assert not Path("out").exists()


WRITES = [(verb, write) for verb in OPTIONS for write in ("fsync", "mkdir")]
WRITES += [(verb, "pwrite") for verb in ("encode", "sample", "evaluate-samples")]  # the others write whole files only


@pytest.mark.parametrize(("verb", "write"), WRITES)
def test_a_full_disk(verb, write, place, refused, monkeypatch):
    """Every kind of write that a command makes, where it first meets the full disk."""

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, write, full)
    line = refused(*command(verb), worked=True)
    assert "cannot be written (No space left on device); free some space" in line
    left = [path.relative_to(place / "out") for path in (place / "out").rglob("*")]
    assert not [path for path in left if not path.parts[0].startswith(".")], "no result, and no part of one"
    assert not [path for path in left if path.suffix == ".part"]


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("train-diffusion", "two/latents.npy"),
        ("train-diffusion", "two/labels.npy"),
        ("train-diffusion", "two/manifest.json"),
        ("sample", "uvit/model.safetensors"),
        ("evaluate-samples", "samples/samples.npy"),
        ("evaluate-samples", "samples/labels.npy"),
        ("evaluate-samples", "samples/samples.json"),
        ("evaluate-samples", "uvit/record.json"),
        ("table-diffusion", "uvit/record.json"),
    ],
)
def test_no_command_waits_for_a_pipe(verb, name, place, refused):
    (place / name).unlink()
    os.mkfifo(place / name)
    line = refused(*command(verb))
    assert name in line and "is a named pipe, not a regular file" in line
    assert not (place / "out").exists()


def test_what_is_not_what_it_was_is_refused(place, refused):
    """Each of these files has the right shape and finite values, and only its recorded hash tells."""
    for name, verbs in (
        ("two/latents.npy", ("train-diffusion",)),
        ("two/labels.npy", ("train-diffusion",)),
        ("samples/samples.npy", ("evaluate-samples",)),
        ("samples/labels.npy", ("evaluate-samples",)),
    ):
        kept = (place / name).read_bytes()
        np.save(name, np.zeros_like(np.load(name)))
        for verb in verbs:
            assert f"{Path(name).name}: sha256 is " in refused(*command(verb))
        if name == "samples/samples.npy":
            figure = ["figure", "samples", "--output", "out/figure.png", "--images", name, "uvit/record.json"]
            assert "samples.npy: sha256 is " in refused(*figure)
        (place / name).write_bytes(kept)
    for name, verbs in (
        ("two/manifest.json", ("train-diffusion", "sample")),
        ("samples/samples.json", ("evaluate-samples",)),
        ("data/bright/train.json", ("encode", "evaluate-samples")),
    ):
        kept = (place / name).read_bytes()
        content = json.loads(kept)
        key = {"manifest.json": "scaling_factor", "samples.json": "guidance_scale", "train.json": "short_side"}
        content[key[Path(name).name]] += 1
        (place / name).write_text(json.dumps(content))
        for verb in verbs:
            assert f"{name}: is not " in (line := refused(*command(verb))) and "it changed after" in line
        (place / name).write_bytes(kept)
    assert not (place / "out").exists()
