"""A phase on files that stay where they are."""

import pytest

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import sha256_json
from dcae_bench.data.external import image_folder
from dcae_bench.data.prepare import prepare_files
from dcae_bench.profile.profile import parse_profile
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.records.record import load
from dcae_bench.records.subject import TrainedPhase
from dcae_bench.subjects.autoencoders import describe_autoencoder
from dcae_bench.subjects.choose import choose_autoencoder
from dcae_bench.training.run import train_phase
from dcae_bench.weights.trained import read_statement
from tests.data.image_files import write_images


def test_weights_are_trained_on_the_files_of_a_folder(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    phase = ("training", "phases", 1)
    content = tiny(
        {
            ("threads",): 2,
            ("training", "datasets"): ["my-set"],
            (*phase, "images"): 8,
            (*phase, "crop"): "center",
            (*phase, "min_side"): 40,
        }
    )
    profile = parse_profile(content, "tiny")
    (autoencoder, *_), resolution = profile.autoencoders, profile.training.phases[1].resolution
    assert resolution <= 40
    write_images(tmp_path / "images", [f"{number}.png" for number in range(6)])
    write_images(tmp_path / "images", ["small.png"], size=(39, 60))
    info = prepare_files(image_folder("my-set"), "train", tmp_path / "images", tmp_path / "data" / "my-set")
    found = []
    for run in ("one", "other"):
        output = tmp_path / run / "model.safetensors"
        data = tmp_path / "data"
        train_phase(profile, autoencoder, 1, data=data, initial=None, output=output, run_dir=tmp_path / f"{run} run")
        found.append(output.read_bytes())
    assert found[0] == found[1], "the order in which threads decode does not matter"
    record = load(output.parent / "record.json")
    assert (record.data.name, record.data.split, record.data.resolution) == ("my-set", "train", resolution)
    assert record.data.sha256 == sha256_json([info.tree_sha256])
    seen = (TrainedPhase(phase=1, datasets=("my-set",), images=8),)
    assert record.subject.trained == read_statement(output).trained == seen
    chosen = choose_autoencoder(profile, autoencoder, output)
    assert describe_autoencoder(chosen, 1, "0" * 64).trained == seen


def test_an_autoencoder_may_have_data_sets_of_its_own(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    phase = ("training", "phases", 1)
    content = tiny({("training", "datasets"): ["others"], (*phase, "images"): 8, (*phase, "crop"): "center"})
    name, *rest = content["autoencoders"]
    content["autoencoders"][name]["datasets"] = ["my-set"]
    profile = parse_profile(content, "tiny")
    assert profile.training_sets(name, 1) == ("my-set",) and profile.training_sets(rest[0], 1) == ("others",)
    assert {"my-set", "others"} <= set(profile.all_training_sets())
    assert training_recipe(profile, name, 1)["datasets"] == ("my-set",)
    side = profile.training.phases[1].resolution
    write_images(tmp_path / "images", [f"{number}.png" for number in range(6)], size=(side + 10, side + 10))
    prepare_files(image_folder("my-set"), "train", tmp_path / "images", tmp_path / "data" / "my-set")
    output = tmp_path / "model.safetensors"
    train_phase(profile, name, 1, data=tmp_path / "data", initial=None, output=output, run_dir=tmp_path / "run")
    assert load(output.parent / "record.json").subject.trained_on == ("my-set",)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"datasets": ["my-set", "my-set"]}, "names a data set twice"),
        ({"datasets": []}, "datasets"),
        ({"datasets": ["my-set"], "weights": "own", "file": "x"}, "'datasets' has no effect"),
    ],
)
def test_data_sets_of_an_autoencoder_are_checked(tiny, entry, words):
    content = tiny({})
    content["autoencoders"][next(iter(content["autoencoders"]))] |= entry
    with pytest.raises(ConfigError, match=words):
        parse_profile(content, "tiny")
