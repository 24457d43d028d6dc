"""Latent statistics against numpy, and the check of a declared scaling factor."""

import json

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dcae_bench.cli import main
from dcae_bench.data.packed import Index, PackedPhoto, index_path
from dcae_bench.errors import DataError
from dcae_bench.evaluation.latents import LatentStatistics, check_declared
from dcae_bench.files import sha256_file
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.records import load
from dcae_bench.specs import SDVAESpec

CPU = torch.device("cpu")
MODEL = {"family": "sd-vae", "latent_channels": 4, "widths": [8, 8], "layers_per_block": 1, "norm_groups": 4}


class Folded(nn.Module):
    """The image's own 2x2 cells as latent, shifted and scaled by channel."""

    def encode(self, x):
        z = nn.functional.pixel_unshuffle(x.double(), 2)
        return z * torch.arange(1, 13).view(1, 12, 1, 1) + 5


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8))


def test_numbers_are_numpys(images):
    found = LatentStatistics.of(Folded(), images, batch_size=3, device=CPU)
    z = Folded().encode(images.float() / 127.5 - 1).numpy()
    assert found.count == 7 * 16
    assert found.mean == pytest.approx(z.mean(), rel=1e-12)
    assert found.std == pytest.approx(z.std(), rel=1e-12)
    assert found.rms == pytest.approx(np.sqrt((z**2).mean()), rel=1e-12)
    np.testing.assert_allclose(found.channels.mean, z.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.channels.std, z.std(axis=(0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(found.channels.rms, np.sqrt((z**2).mean(axis=(0, 2, 3))), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing(images, batch_size):
    wanted = LatentStatistics.of(Folded(), images, batch_size=3, device=CPU)
    found = LatentStatistics.of(Folded(), images, batch_size=batch_size, device=CPU)
    assert (found.mean, found.rms, found.std, found.channels) == (wanted.mean, wanted.rms, wanted.std, wanted.channels)


def test_no_images_are_an_error():
    with pytest.raises(DataError, match="0 images"):
        LatentStatistics.of(Folded(), torch.empty(0, 3, 8, 8, dtype=torch.uint8), batch_size=1, device=CPU)


def test_the_published_factor_of_f64c128_is_its_published_rms():
    """Authors' evaluation: mean -0.0523, RMS 3.4593, std 3.4589; declared 0.2889."""
    assert pytest.approx(0.28907, abs=1e-5) == 1 / 3.4593
    assert check_declared(3.4593, 0.2889).notes[0].startswith("match: -0.06% from 1/RMS = 0.28908")
    assert np.sqrt(3.4593**2 - 0.0523**2) == pytest.approx(3.4589, abs=1e-4)


@pytest.mark.parametrize(
    ("declared", "verdict"), [(0.2, "match"), (0.2019, "match"), (0.2021, "deviates"), (0.1979, "deviates")]
)
def test_the_tolerance_is_one_percent(declared, verdict):
    assert check_declared(5.0, declared).notes[0].startswith(f"{verdict}:")


@pytest.fixture
def arguments(tmp_path):
    """A profile, one packed set and weights, as the verb takes them."""
    profile = yaml.safe_load(
        """
        {name: tiny, description: d, seed: 0, device: cpu, threads: 1, pack_short_side: 64, paper_rows_not_run: small,
         training: {datasets: [tiny], loss: {lpips: 0.0, lpips_net: alex}, ema: {decay: 0.9}, checkpoint_images: 4,
                    log_images: 4, phases: {1: {resolution: 32, images: 4, batch_size: 4, trainable: [all],
                                                optimizer: {lr: 0.1, weight_decay: 0.0}}}},
         evaluation: {protocol: reconstruction/photos-v1, sets: [{dataset: tiny, resolution: 32}], crops_per_photo: 2,
                      batch_size: 2, samples: 1}}
        """
    )
    profile["autoencoders"] = {"sd-vae-f2c4": {"model": MODEL}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(profile))
    pack = tmp_path / "data" / "tiny" / "eval.npy"
    pack.parent.mkdir(parents=True)
    np.save(pack, np.random.default_rng(1).integers(0, 256, 3 * 40 * 40 * 3, dtype=np.uint8))
    photos = tuple(PackedPhoto(name=str(n), offset=n * 40 * 40 * 3, height=40, width=40) for n in range(3))
    index = Index(
        name="tiny", split="eval", short_side=64, sha256=sha256_file(pack), manifest_sha256="0" * 64, photos=photos
    )
    index_path(pack).write_text(index.model_dump_json())
    save_weights(build(SDVAESpec(**MODEL), seed=0).state_dict(), tmp_path / "model.safetensors")
    return [
        *("latents", "--profile", str(tmp_path / "tiny.yaml"), "--autoencoder", "sd-vae-f2c4"),
        *("--weights", str(tmp_path / "model.safetensors"), "--data", str(tmp_path / "data")),
        *("--output", str(tmp_path / "out" / "tiny-32.json")),
    ]


def run(arguments, monkeypatch) -> int:
    monkeypatch.setattr("sys.argv", ["dcae-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_verb_writes_a_record_and_the_channels(arguments, monkeypatch, tmp_path):
    assert run(arguments, monkeypatch) == 0
    record = load(tmp_path / "out" / "tiny-32.json")
    assert (record.kind, record.protocol, record.data.images) == ("latents", "latents/photos-v1", 6)
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert set(values) == {"mean", "rms", "std", "scaling_factor"}
    assert values["scaling_factor"] == pytest.approx(1 / values["rms"])
    assert values["rms"] ** 2 == pytest.approx(values["mean"] ** 2 + values["std"] ** 2)
    channels = json.loads((tmp_path / "out" / "tiny-32.channels.json").read_text())
    assert np.mean(channels["mean"]) == pytest.approx(values["mean"])
    assert np.sqrt(np.mean(np.square(channels["rms"]))) == pytest.approx(values["rms"])


def test_a_wrong_factor_is_flagged_and_only_strict_fails(arguments, monkeypatch, tmp_path, capsys):
    assert run([*arguments, "--declared", "1000"], monkeypatch) == 0
    (note,) = load(tmp_path / "out" / "tiny-32.json").metrics["declared_scaling_factor"].notes
    assert note.startswith("deviates: +") and note in " ".join(capsys.readouterr().err.split())
    (tmp_path / "out" / "tiny-32.json").unlink()
    assert run([*arguments, "--declared", "1000", "--strict"], monkeypatch) == 2
    assert (tmp_path / "out" / "tiny-32.json").exists(), "the measurement itself is sound"
    assert "--declared 1000: deviates" in capsys.readouterr().err
    factor = load(tmp_path / "out" / "tiny-32.json").metrics["scaling_factor"].value
    assert run([*arguments, "--declared", f"{factor:.4f}", "--strict"], monkeypatch) == 0


@pytest.mark.parametrize(
    ("extra", "said"), [(["--set", "other-64"], "--set other-64"), (["--strict"], "add --declared FACTOR")]
)
def test_wrong_options_are_one_line(arguments, extra, said, monkeypatch, capsys):
    assert run([*arguments, *extra], monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
