"""Latent statistics against numpy, and the check of a declared scaling factor."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from dcae_bench.base.errors import DataError
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.cli.main import main
from dcae_bench.evaluation.latents import check_declared
from dcae_bench.generation.statistics import LatentStatistics
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.records.record import load
from dcae_bench.specs.autoencoders import DCAESpec
from dcae_bench.subjects import choose as subject

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


def latents_with(mean: float, rms: float) -> LatentStatistics:
    return LatentStatistics(1, np.array([mean]), np.array([rms**2]))


def declared(factor: float, shift: float = 0.0) -> Scaling:
    return Scaling(factor=factor, shift=shift, source="a paper")


def test_the_published_factor_of_f64c128_is_its_published_rms():
    """Authors' evaluation: mean -0.0523, RMS 3.4593, std 3.4589; declared 0.2889."""
    published = latents_with(-0.0523, 3.4593)
    scaling = catalogue().preset("dc-ae-f64c128-in-1.0").scaling
    assert check_declared(published, scaling).notes[0].startswith("match: -0.06% from 1/RMS = 0.28908,")
    assert published.std == pytest.approx(3.4589, abs=1e-4)


def test_a_declared_shift_is_taken_off_first():
    """Flux: (z - 0.1159) * 0.3611 has RMS 1."""
    values = 0.1159 + np.array([-1, 1]) / 0.3611
    found = latents_with(values.mean(), np.sqrt((values**2).mean()))
    metric = check_declared(found, declared(0.3611, 0.1159))
    assert metric.notes[0].startswith("match: +0.00% from 1/RMS = 0.3611 after a shift of 0.1159")
    far = latents_with(5.0, np.sqrt(26.0))  # mean 5, deviation 1
    assert check_declared(far, declared(1.0, 5.0)).notes[0].startswith("match")
    assert check_declared(far, declared(1.0)).notes[0].startswith("deviates")


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.2, "match"), (0.2019, "match"), (0.2021, "deviates"), (0.1979, "deviates")]
)
def test_the_tolerance_is_one_percent(factor, verdict):
    assert check_declared(latents_with(3.0, 5.0), declared(factor)).notes[0].startswith(f"{verdict}:")


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
    assert "declared scaling factor 1000 (--declared) deviates: +" in capsys.readouterr().err
    factor = load(tmp_path / "out" / "tiny-32.json").metrics["scaling_factor"].value
    assert run([*arguments, "--declared", f"{factor:.4f}", "--strict"], monkeypatch) == 0


def without(arguments, *names):
    """The arguments without some options."""
    pairs = list(zip(arguments[1::2], arguments[2::2], strict=True))
    return [arguments[0], *(word for pair in pairs if pair[0] not in names for word in pair)]


def test_released_weights_are_compared_with_the_catalogues_factor(arguments, monkeypatch, tmp_path, capsys):
    """A small model in the place of a released one: its factor is the catalogue's without being typed again."""
    name, coder = "dc-ae-f32c32-in-1.0", {"widths": [8, 16, 32], "depths": [0, 1, 1], "blocks": ["res"] * 3}
    spec = DCAESpec(family="dc-ae", latent_channels=4, encoder=coder, decoder=coder)
    save_weights(build(spec, seed=0).state_dict(), tmp_path / "released.safetensors")
    local = subject.weights.VerifiedWeights(tmp_path / "released.safetensors", "0" * 64, 1, None, recorded=True)
    monkeypatch.setattr(subject.weights, "locate", {name: local}.__getitem__)
    monkeypatch.setattr(type(catalogue()), "spec", lambda self, name: spec)
    command = [*without(arguments, "--autoencoder", "--weights"), "--autoencoder", name]
    assert run(command, monkeypatch) == 0
    record = load(tmp_path / "out" / "tiny-32.json")
    assert (record.subject.autoencoder, record.subject.weights_source) == (name, "released")
    assert record.metrics["declared_scaling_factor"].value == 0.3189
    assert run([*command, "--strict"], monkeypatch) == 2
    assert "declared scaling factor 0.3189 (authors' code) deviates: " in capsys.readouterr().err
    assert run([*command, "--declared", "2"], monkeypatch) == 0
    assert load(tmp_path / "out" / "tiny-32.json").metrics["declared_scaling_factor"].value == 2


def test_any_autoencoder_can_be_named(arguments, monkeypatch, tmp_path):
    (tmp_path / "halves.py").write_text(
        "import torch.nn.functional as F\n\n\nclass Halves:\n"
        "    def encode(self, x):\n        return F.avg_pool2d(x, 2) / 2\n\n"
        "    def decode(self, z):\n        return F.interpolate(2 * z, scale_factor=2)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = [*without(arguments, "--autoencoder", "--weights"), "--autoencoder", "halves:Halves"]
    assert run([*command, "--declared", "1"], monkeypatch) == 0
    record = load(tmp_path / "out" / "tiny-32.json")
    assert (record.subject.autoencoder, record.subject.weights_source) == ("halves-halves", "own")
    assert record.subject.latent_channels == 3 and 0 < record.metrics["rms"].value < 0.5


def test_latents_that_are_not_finite_are_one_line(arguments, monkeypatch, tmp_path, capsys):
    (tmp_path / "lost.py").write_text(
        "class Lost:\n    def encode(self, x):\n        return x * float('nan')\n\n    def decode(self, z):\n"
        "        return z\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run([*without(arguments, "--autoencoder", "--weights"), "--autoencoder", "lost:Lost"], monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lost-lost on photos-indoor-32: its latents hold values that are not finite" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "said"), [(["--set", "other-64"], "--set other-64"), (["--strict"], "add --declared FACTOR")]
)
def test_wrong_options_are_one_line(arguments, extra, said, monkeypatch, capsys):
    assert run([*arguments, *extra], monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
