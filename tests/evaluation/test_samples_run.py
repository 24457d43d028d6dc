"""From a folder of samples to a generation record, by the command line."""

import sys
from datetime import UTC, datetime

import numpy as np
import pytest
import yaml

from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.data.labelled import open_labelled
from dcae_bench.data.sample_manifest import SampleManifest, recipe_asked, write_sample_manifest
from dcae_bench.records.provenance import Device, Provenance
from dcae_bench.records.record import Data, Metric, Record, load, save
from dcae_bench.records.score import load_score
from dcae_bench.records.subject import DenoiserSubject, Subject
from tests import tiny_diffusion as tiny


def training_record(row="uvit", weights="e" * 64, autoencoder="a" * 64):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return Record(
        kind="diffusion_training",
        profile="tiny",
        protocol="training",
        subject=Subject(
            autoencoder="sd-vae",
            family="sd-vae",
            compression=4,
            latent_channels=3,
            weights_source="retrained",
            phase=1,
            parameters=5,
            weights_sha256=autoencoder,
        ),
        denoiser=DenoiserSubject(
            row=row,
            name="uvit-nano",
            family="uvit",
            process="vp",
            patch=1,
            tokens=16,
            classes=2,
            parameters=7,
            gmacs=0.1,
            weights_sha256=weights,
        ),
        data=Data(name="bright+dark", split="train", resolution=16, images=24, sha256="d" * 64),
        metrics={"loss": Metric(label="loss", value=1.0)},
        provenance=Provenance(
            commit=None,
            dirty=None,
            code_sha256="b" * 64,
            config_sha256="c" * 64,
            seed=3,
            versions={},
            device=Device(kind="cpu", name="a test", threads=1, precision="fp32"),
            command="test",
            started=now,
            finished=now,
            seconds=0.0,
        ),
    )


class Place:
    """Data, a profile, samples and a training record in one folder."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))
        self.data = tiny.write_data(folder / "data")
        plan = tiny.profile().row("uvit")
        crops = open_labelled(tiny.profile(), plan.data, self.data)
        self.crops_sha256 = crops.sha256
        self.pixels = np.stack([crops[index].permute(1, 2, 0).numpy() for index in range(len(crops))])
        self.write_samples(self.pixels)
        save(training_record(), folder / "training.json")

    def write_samples(self, images, **about):
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        np.save(folder / "samples.npy", images)
        np.save(folder / "labels.npy", np.zeros(len(images), np.int64))
        manifest = SampleManifest(
            row="uvit",
            denoiser_sha256=about.get("denoiser", "e" * 64),
            autoencoder="sd-vae@retrained",
            autoencoder_sha256="a" * 64,
            latents_sha256="b" * 64,
            crops_sha256=about.get("crops", self.crops_sha256),
            data_sha256="d" * 64,
            sampler={"name": "dpm-solver", "nfe": about.get("nfe", 3)},
            nfe=3,
            guidance_scale=1.5,
            count=len(images),
            shape=images.shape[1:],
            classes=2,
            seed=about.get("seed", 3),
            seed_policy=about.get("policy", "sample"),
            seconds=1.0,
            sha256=sha256_file(folder / "samples.npy"),
            labels_sha256=sha256_file(folder / "labels.npy"),
            scaling_factor=1.0,
            shift=0.0,
            recipe_sha256="f" * 64,
        )
        recipe = about.get("recipe") or recipe_asked(tiny.profile(), manifest)
        write_sample_manifest(manifest.model_copy(update={"recipe_sha256": recipe}), folder)

    def run(self, monkeypatch, row="uvit", more=()):
        where = ("--samples", "samples", "--training", "training.json", "--data", "data", "--output", "out.json")
        monkeypatch.chdir(self.folder)
        arguments = ["dcae-bench", "evaluate-samples", "--profile", "tiny.yaml", "--row", row, *where, *more]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            main()
        except SystemExit as end:
            return end.code
        return 0


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_samples_equal_to_the_reference(place, monkeypatch):
    assert place.run(monkeypatch) == 0
    record = load(place.folder / "out.json")
    assert (record.kind, record.protocol) == ("generation", "generation/photos-v1")
    assert record.metrics["gfd_efficientnet_lite0"].value == pytest.approx(0, abs=1e-6)
    assert record.metrics["gfd_efficientnet_lite0"].label == "gFD (EfficientNet-Lite0)"
    assert record.metrics["precision_efficientnet_lite0"].value == 1
    assert (record.data.name, record.data.split, record.data.images) == ("bright+dark", "train", len(place.pixels))
    assert record.settings == {
        "sampler": "dpm-solver",
        "nfe": "3",
        "guidance": "1.5",
        "seed_policy": "sample",
        "sample_precision": "fp32",
        "sample_tf32": "off",
        "reference_images": str(len(place.pixels)),
    }
    assert record.denoiser == training_record().denoiser and record.subject == training_record().subject
    assert not list(place.folder.glob(".out*")), "the state of a finished pass is removed"
    before = record.provenance.config_sha256
    place.write_samples(place.pixels[::-1])
    assert place.run(monkeypatch) == 0
    assert load(place.folder / "out.json").provenance.config_sha256 != before, "other samples, another key"


def test_a_score_of_the_same_images_has_the_same_numbers(place, monkeypatch):
    place.write_samples(place.pixels[::-1] // 2)
    np.savez(place.folder / "adm.npz", arr_0=place.pixels)
    assert place.run(monkeypatch) == 0
    wanted = load(place.folder / "out.json").metrics
    arguments = ["score", "samples/samples.npy", "--reference", "adm.npz", "--output", "score.json"]
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *arguments, "--profile", "tiny.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and load_score(place.folder / "score.json").metrics == wanted


def test_a_reference_batch_adds_a_distance_to_it(place, monkeypatch, capsys):
    np.savez(place.folder / "adm.npz", arr_0=255 - place.pixels)
    assert place.run(monkeypatch, more=("--adm-batch", "adm.npz")) == 0
    metrics = load(place.folder / "out.json").metrics
    found = metrics["gfd_efficientnet_lite0_adm"]
    assert found.label == "FD (EfficientNet-Lite0), ADM batch" and "adm.npz" in found.notes[0]
    assert found.value > 1 > 1e-6 > metrics["gfd_efficientnet_lite0"].value, "the images are the reference's own"
    assert place.run(monkeypatch, more=("--adm-batch", "gone.npz")) == 2
    assert "gone.npz: cannot be read" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda place: place.write_samples(place.pixels[:3]), "3 samples cannot be evaluated"),
        (lambda place: place.write_samples(place.pixels, denoiser="f" * 64), "its denoiser is ffff"),
        (lambda place: place.write_samples(place.pixels, crops="f" * 64), "its images behind the latents is ffff"),
        (lambda place: place.write_samples(place.pixels, seed=4), "its seed is 4, row uvit needs 3"),
        (lambda place: place.write_samples(place.pixels, policy="paper_8gpu"), "its seed policy is paper_8gpu"),
        (lambda place: place.write_samples(place.pixels, nfe=4), "its sampler is"),
        (lambda place: save(training_record("dit"), place.folder / "training.json"), "not of the training of row uvit"),
        (lambda place: (place.folder / "samples" / "samples.npy").unlink(), "samples.npy: cannot be read"),
    ],
)
def test_wrong_inputs_are_one_line(place, monkeypatch, capsys, spoil, message):
    spoil(place)
    assert place.run(monkeypatch) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and not (place.folder / "out.json").exists()
    assert not list(place.folder.glob(".out*")), "it is refused before any image is measured"


def test_an_unknown_row(place, monkeypatch, capsys):
    assert place.run(monkeypatch, row="vit") == 2
    assert "--row vit: profile tiny has no such row" in capsys.readouterr().err
