"""Latent statistics against numpy, and the check of a declared scaling factor."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from dcae_bench.cli import main
from dcae_bench.errors import DataError
from dcae_bench.evaluation.latents import LatentStatistics, check_declared
from dcae_bench.records import load

CPU = torch.device("cpu")


class Folded(nn.Module):
    """The image's own 2x2 cells as latent, shifted and scaled by channel."""

    def encode(self, x):
        z = nn.functional.pixel_unshuffle(x.double(), 2)
        return z * torch.arange(1, 13).view(1, 12, 1, 1) + 5


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8))


def test_numbers_are_numpys(images, make_crops):
    found = LatentStatistics.of(Folded(), make_crops(images), batch_size=3, device=CPU)
    z = Folded().encode(images.float() / 127.5 - 1).numpy()
    assert found.count == 7 * 16
    assert found.mean == pytest.approx(z.mean(), rel=1e-12)
    assert found.std == pytest.approx(z.std(), rel=1e-12)
    assert found.rms == pytest.approx(np.sqrt((z**2).mean()), rel=1e-12)
    np.testing.assert_allclose(found.channels.mean, z.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.channels.std, z.std(axis=(0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(found.channels.rms, np.sqrt((z**2).mean(axis=(0, 2, 3))), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing(images, make_crops, batch_size):
    wanted = LatentStatistics.of(Folded(), make_crops(images), batch_size=3, device=CPU)
    found = LatentStatistics.of(Folded(), make_crops(images), batch_size=batch_size, device=CPU)
    assert (found.mean, found.rms, found.std, found.channels) == (wanted.mean, wanted.rms, wanted.std, wanted.channels)


def test_no_images_are_an_error(make_crops):
    with pytest.raises(DataError, match="0 images"):
        LatentStatistics.of(Folded(), make_crops(torch.empty(0, 3, 8, 8, dtype=torch.uint8)), batch_size=1, device=CPU)


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
def arguments(tiny):
    """A profile, one packed set and weights, as the verb takes them."""
    return ["latents", *tiny.options, "--output", str(tiny.folder / "out" / "tiny-32.json")]


def run(arguments, monkeypatch) -> int:
    monkeypatch.setattr("sys.argv", ["dcae-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_verb_writes_a_record_and_the_channels(arguments, monkeypatch, tmp_path):
    assert run(arguments, monkeypatch) == 0
    record = load(tmp_path / "out" / "tiny-32.json")
    assert (record.kind, record.protocol, record.data.images) == ("latents", "latents/photos-v1", 14)
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
