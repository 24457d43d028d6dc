"""A phase on files that stay where they are."""

from dcae_bench.base.files import sha256_json
from dcae_bench.data.external import image_folder
from dcae_bench.data.prepare import prepare_files
from dcae_bench.profile.profile import parse_profile
from dcae_bench.records.record import load
from dcae_bench.training.run import train_phase
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
