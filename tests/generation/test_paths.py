"""Encoding and sampling by the fast path: what they say of it, and that no result mixes two paths."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.data.latents import LATENTS, read_latent_manifest
from dcae_bench.data.sample_manifest import SAMPLES, read_sample_manifest
from dcae_bench.execution import inference as networks
from dcae_bench.execution import path as paths
from dcae_bench.generation.encode import Encoding, encode_dataset
from dcae_bench.generation.sample import Sampling, sample_images
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.recipes import latents_recipe
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion as tiny

LATENT = "sd-vae@retrained"
HOURS = 3600


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paths")
    tiny.write_data(folder / "data")
    tiny.write_weights(folder / "sd-vae.safetensors")
    model = build_denoiser(tiny.profile().row("uvit").denoiser, seed=1)
    about = TrainedWeights(kind="denoiser", name="uvit")
    save_weights(model.state_dict(), folder / "uvit.safetensors", trained=about)
    encode(folder, folder / "two")
    return folder


def encode(folder, output, path=None, changes=None):
    profile, weights = tiny.profile(changes), folder / "sd-vae.safetensors"
    return encode_dataset(profile, LATENT, "two", data=folder / "data", output=output, weights=weights, path=path)


def sample(folder, output, path=None):
    files = {"weights": folder / "uvit.safetensors", "autoencoder": folder / "sd-vae.safetensors"}
    return sample_images(tiny.profile(), "uvit", output=output, latents=folder / "two", path=path, **files)


@pytest.fixture
def uncompiled(monkeypatch):
    """Fast networks without a compiler, which takes longer than these tests may, and a scale for their outputs."""
    scale = [1 + 2e-5]

    def spoil(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data * scale[0]  # fast networks share their memory with eager ones

    monkeypatch.setattr(networks, "compile_blocks", spoil)
    return scale


@pytest.fixture
def on_gpu(monkeypatch):
    """Let ``auto`` try the fast path as on a GPU."""
    monkeypatch.setattr(paths, "wants_fast", lambda request, device: request != "eager")


@pytest.mark.parametrize(("make", "file"), [(encode, LATENTS), (sample, SAMPLES)])
def test_a_path_is_in_the_manifest_and_its_numbers_differ_in_the_last_bits(
    make, file, folder, tmp_path, uncompiled, on_gpu, capsys
):
    eager, fast = make(folder, tmp_path / "eager", "eager"), make(folder, tmp_path / "fast")
    assert (eager.path.name, eager.path.reason, eager.path.agreement) == ("eager", "asked for", None)
    assert fast.path.name == "fast" and 0 < fast.path.agreement.error < fast.path.agreement.limit == 1e-3
    assert "compiled blocks" in fast.path.how and "the path is fast (error" in capsys.readouterr().err
    assert eager.recipe_sha256 == fast.recipe_sha256
    a, b = (np.load(tmp_path / name / file).astype(float) for name in ("eager", "fast"))
    assert np.abs(a - b).max() <= (1 if file == SAMPLES else 1e-2 * np.abs(a).max())
    assert (file == SAMPLES) or not np.array_equal(a, b)


@pytest.mark.parametrize("make", [encode, sample])
def test_without_a_gpu_the_path_is_eager(make, folder, tmp_path):
    path = make(folder, tmp_path).path
    assert (path.name, path.agreement, path.reason) == ("eager", None, "the default without a GPU")


@pytest.mark.parametrize(("make", "file"), [(encode, LATENTS), (sample, SAMPLES)])
def test_a_fast_path_that_disagrees_is_left(make, file, folder, tmp_path, uncompiled, on_gpu, capsys):
    uncompiled[0] = 1.2
    found = make(folder, tmp_path / "auto")
    assert found.path.name == "eager" and found.path.agreement.error > found.path.agreement.limit
    assert "differ by" in found.path.reason and f"the path is eager: {found.path.reason}" in capsys.readouterr().err
    make(folder, tmp_path / "eager", "eager")
    assert (tmp_path / "auto" / file).read_bytes() == (tmp_path / "eager" / file).read_bytes()
    with pytest.raises(ConfigError, match="--path fast: cannot be taken"):
        make(folder, tmp_path / "fast", "fast")
    assert not (tmp_path / "fast" / file).exists()


@pytest.mark.parametrize(
    ("make", "pass_", "step", "file"), [(encode, Encoding, "_encode", LATENTS), (sample, Sampling, "_sample", SAMPLES)]
)
def test_an_interrupted_pass_does_not_go_on_by_another_path(
    make, pass_, step, file, folder, tmp_path, uncompiled, monkeypatch
):
    whole, done = getattr(pass_, step), []

    def counted(self, *arguments):
        if len(done) == 2:
            raise Stopped
        done.append(self.path.name)
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pass_, step, counted)
        with pytest.raises(Stopped):
            make(folder, tmp_path / "mixed", "fast")
    assert done == ["fast", "fast"]
    make(folder, tmp_path / "mixed", "eager")
    make(folder, tmp_path / "whole", "eager")
    assert (tmp_path / "mixed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not [one.name for one in (tmp_path / "mixed").iterdir() if one.name.startswith(".")]


@pytest.mark.parametrize("make", [encode, sample])
def test_a_finished_result_of_either_path_is_kept_unless_another_is_asked_for(
    make, folder, tmp_path, uncompiled, monkeypatch
):
    first = make(folder, tmp_path, "fast")
    monkeypatch.setattr(paths, "choose_path", lambda *a, **k: pytest.fail("made again"))
    assert make(folder, tmp_path, "auto") == make(folder, tmp_path, "fast") == first
    with pytest.raises(DataError, match="was computed by the fast path, and --path eager is asked for"):
        make(folder, tmp_path, "eager")


def test_a_profile_may_insist_on_a_path(folder, tmp_path, uncompiled):
    found = encode(folder, tmp_path / "fast", changes={("path",): "fast"})
    assert found.path.name == "fast"
    assert encode(folder, tmp_path / "eager", "eager", {("path",): "fast"}).path.name == "eager"
    asked = [latents_recipe(tiny.profile({("path",): path}), LATENT, "two") for path in ("auto", "fast", "eager")]
    assert asked[0] == latents_recipe(tiny.profile(), LATENT, "two") and asked[1] != asked[0] != asked[2] != asked[1]


def test_the_command_knows_the_paths(folder, tmp_path):
    from typer.testing import CliRunner

    from dcae_bench.cli.main import app

    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny.content()))
    options = ["--latent", LATENT, "--images", "two", "--data", str(folder / "data"), "--output", str(tmp_path / "x")]
    found = CliRunner().invoke(app, ["encode", *options, "--profile", str(file), "--path", "quick"])
    assert isinstance(found.exception, ConfigError)
    assert str(found.exception) == "--path quick: there is no such path; choose auto, eager, fast"


@pytest.mark.long
def test_the_fast_path_is_compiled(folder, tmp_path):
    """With a compiler and no stand-in: latents and samples by ``--path fast`` on the processor."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny.content()))
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dcae_bench"]
    common = ["--profile", str(file), "--path", "fast"]
    weights = str(folder / "sd-vae.safetensors")
    for options in (
        ["encode", "--latent", LATENT, "--images", "two", "--data", str(folder / "data"), "--weights", weights],
        ["sample", "--row", "uvit", "--weights", str(folder / "uvit.safetensors"), "--latents", str(folder / "two")],
    ):
        verb = options[0]
        more = ["--autoencoder", weights] if verb == "sample" else []
        done = subprocess.run(
            [*command, *options, *more, *common, "--output", str(tmp_path / verb)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=HOURS,
        )
        assert done.returncode == 0, done.stderr
        name = {"encode": "manifest.json", "sample": "samples.json"}[verb]
        path = json.loads((tmp_path / verb / name).read_text())["path"]
        assert path["name"] == "fast" and path["agreement"]["error"] < 1e-4 and "compiled blocks" in path["how"]
    wanted = read_latent_manifest(folder / "two").statistics
    assert read_latent_manifest(tmp_path / "encode").statistics.rms == pytest.approx(wanted.rms, rel=1e-5)
    assert read_sample_manifest(tmp_path / "sample").path.agreement.limit == 1e-3
