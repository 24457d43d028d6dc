"""From files of released denoisers to the generation table, by the command line, on embedded photographs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from dcae_bench.base.files import sha256_file
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.cli.main import main
from dcae_bench.data.sample_manifest import read_sample_manifest
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.generation.sample import sample_images
from dcae_bench.models.cost import autoencoder_cost
from dcae_bench.profile.profile import parse_profile
from dcae_bench.records.record import load
from dcae_bench.weights.trained import METADATA, TrainedWeights
from tests import tiny_diffusion as tiny
from tests import tiny_released

NAMES = ["photos-indoor", "photos-mixed"]
CONTENT = {
    **tiny_released.CONTENT,
    "evaluation": {**tiny.CONTENT["evaluation"], "sets": [{"dataset": NAMES[0], "resolution": 32}]},
}
CONTENT["diffusion"] = {
    **CONTENT["diffusion"],
    "data": {"two": {**CONTENT["diffusion"]["data"]["two"], "datasets": NAMES}},
}


def run(*arguments):
    """A command of a profile that lies in the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dcae-bench", *arguments, "--profile", "tiny.yaml"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder with the profile and the packed photographs."""
    folder = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_released.install(patch)
        Path("tiny.yaml").write_text(yaml.safe_dump(CONTENT))
        for name in NAMES:
            run("prepare", name, "--output", f"data/{name}")
    return folder


@pytest.fixture
def place(packed, monkeypatch):
    """That folder, with the catalogue of tiny denoisers and all their weights on record, and the profile."""
    monkeypatch.chdir(packed)
    tiny_released.install(monkeypatch)
    tiny_released.fetch_all(packed / "weights")
    return packed, parse_profile(CONTENT, "tiny.yaml")


def test_from_files_to_the_table(place):
    folder, _ = place
    for row, scale in (("uvit", "1"), ("uvit", "1.5"), ("dit", "3"), ("usit", "1")):
        run("sample", "--row", row, "--s", scale, "--output", f"samples/{row}/s{scale}")
        where = (
            "--samples",
            f"samples/{row}/s{scale}",
            "--data",
            "data",
            "--output",
            f"generation/{row}/s{scale}.json",
        )
        run("evaluate-samples", "--row", row, *where)
    drawn = read_sample_manifest(folder / "samples" / "uvit" / "s1.5")
    assert (drawn.released, drawn.row, drawn.autoencoder) == (tiny_released.UVIT, "uvit", "tiny-vae@released")
    assert drawn.denoiser_sha256 == sha256_file(folder / "weights" / f"{tiny_released.UVIT}.safetensors")
    assert drawn.latents_sha256 is drawn.crops_sha256 is drawn.data_sha256 is None
    assert (drawn.guidance_scale, drawn.nfe, drawn.shape) == (1.5, 30, (32, 32, 3))
    images = np.load(folder / "samples" / "uvit" / "s1.5" / "samples.npy")
    assert len({image.tobytes() for image in images}) == 5

    record = load(folder / "generation" / "uvit" / "s1.5.json")
    assert (record.kind, record.protocol) == ("generation", "generation/photos-v1")
    assert record.subject.weights_source == record.denoiser.weights_source == "released"
    assert record.denoiser.released == tiny_released.UVIT and record.denoiser.weights_sha256 == drawn.denoiser_sha256
    assert (record.denoiser.name, record.denoiser.tokens, record.denoiser.classes) == ("tiny-uvit", 64, 2)
    assert record.subject.autoencoder == "tiny-vae" and record.subject.weights_sha256 == drawn.autoencoder_sha256
    assert (
        record.subject.parameters == autoencoder_cost(catalogue().spec("tiny-vae"), ()).parameters
        and record.subject.phase is None
    )
    assert (record.data.name, record.data.split) == ("photos-indoor+photos-mixed", "train")
    assert record.settings["reference_images"] == str(29 + 46) and record.settings["guidance"] == "1.5"
    assert load(folder / "generation" / "usit" / "s1.json").denoiser.process == "flow"

    records = map(str, sorted((folder / "generation").glob("*/*.json")))
    run("table-diffusion", "--output", "table.md", *records)
    page = (folder / "table.md").read_text()
    lines = [line.split("|") for line in page.splitlines() if "tiny-vae p1" in line]
    assert [(cells[3].strip(), cells[4].strip()) for cells in lines] == [
        ("tiny-uvit (usit)", "released"),
        ("tiny-dit (dit)", "released"),
        ("tiny-uvit (uvit)", "released"),
        ("tiny-uvit (uvit)", "released"),
    ]
    assert "Released denoisers: no record tells how long they were trained" in page and "too large" in page


def test_a_released_row_gives_the_samples_of_the_same_weights_on_a_cache_of_the_same_scale(place, tmp_path):
    """The oracle: a trained row with the released file, on latents whose scale the autoencoder's authors declare."""
    folder, profile = place
    row = {"denoiser": "tiny-uvit", "latent": "tiny-vae@released", "data": "two", "training": "t", "images": 24}
    training = {key: value for key, value in tiny.TRAINING.items() if key != "sampler"}
    content = profile.model_dump(mode="json", exclude_defaults=True)
    content["diffusion"] |= {"trainings": {"t": training}, "rows": {**content["diffusion"]["rows"], "twin": row}}
    both = parse_profile(content, "tiny.yaml")
    encode_dataset(both, "tiny-vae@released", "two", data=folder / "data", output=tmp_path / "latents")
    released = sample_images(both, "uvit", output=tmp_path / "released")
    weights = tmp_path / "twin.safetensors"
    state, about = (
        load_file(folder / "weights" / f"{tiny_released.UVIT}.safetensors"),
        TrainedWeights(kind="denoiser", name="twin"),
    )
    save_file(state, weights, {METADATA: about.model_dump_json()})
    twin = sample_images(both, "twin", output=tmp_path / "twin", weights=weights, latents=tmp_path / "latents")
    assert released.sha256 == twin.sha256 and released.recipe_sha256 != twin.recipe_sha256
    assert (twin.released, twin.autoencoder_sha256) == (None, released.autoencoder_sha256)
    assert sample_images(both, "uvit", output=tmp_path / "released") == released, "finished samples are kept"
