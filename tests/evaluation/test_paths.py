"""Evaluation by the fast path: what the record says of it, and that no pass mixes two paths."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch

from dcae_bench.base.errors import ConfigError
from dcae_bench.evaluation import reconstruction_run
from dcae_bench.evaluation.reconstruction_run import Evaluation, evaluate_reconstruction
from dcae_bench.evaluation.store import Store
from dcae_bench.execution import inference as networks
from dcae_bench.execution import path as paths
from dcae_bench.profile.profile import load_profile
from dcae_bench.records.record import load
from dcae_bench.subjects.choose import choose_autoencoder

LABEL = "photos-indoor-32"
HOURS = 3600


class Stopped(Exception):
    """Stands for a kill."""


def evaluate(tiny, output, path=None):
    profile = load_profile(tiny.folder / "tiny.yaml")
    chosen = choose_autoencoder(profile, "sd-vae-f2c4", tiny.folder / "model.safetensors")
    evaluate_reconstruction(profile, chosen, data=tiny.folder / "data", output=output, path=path)
    return load(output / f"{LABEL}.json")


def values(output):
    return pq.read_table(output / f"{LABEL}.images.parquet").to_pydict()


@pytest.fixture
def uncompiled(monkeypatch):
    """Fast networks without a compiler, which takes longer than these tests may, and a scale for their weights."""
    scale = [1 + 2e-5]

    def spoil(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data * scale[0]  # fast networks share their memory with eager ones

    monkeypatch.setattr(networks, "compile_blocks", spoil)
    monkeypatch.setattr(paths, "wants_fast", lambda request, device: request != "eager")
    return scale


def test_the_record_names_the_path(tiny, uncompiled):
    eager, fast = evaluate(tiny, tiny.folder / "eager", "eager"), evaluate(tiny, tiny.folder / "fast")
    assert (eager.path.name, eager.path.reason) == ("eager", "asked for")
    assert fast.path.name == "fast" and 0 < fast.path.agreement.error < fast.path.agreement.limit == 1e-3
    assert "compiled blocks" in fast.path.how and fast.settings == eager.settings
    assert fast.provenance.recipe_sha256 == eager.provenance.recipe_sha256
    for key, metric in eager.metrics.items():
        assert fast.metrics[key].value == pytest.approx(metric.value, rel=1e-2), key


def test_a_fast_path_that_disagrees_is_left(tiny, uncompiled, capsys):
    uncompiled[0] = 1.2
    record = evaluate(tiny, tiny.folder / "auto")
    assert record.path.name == "eager" and record.path.agreement.error > record.path.agreement.limit
    assert f"sd-vae-f2c4: the path is eager: {record.path.reason}" in " ".join(capsys.readouterr().err.split())
    evaluate(tiny, tiny.folder / "eager", "eager")
    assert values(tiny.folder / "auto") == values(tiny.folder / "eager")
    with pytest.raises(ConfigError, match="--path fast: cannot be taken"):
        evaluate(tiny, tiny.folder / "fast", "fast")


def test_an_interrupted_pass_does_not_go_on_by_another_path(tiny, uncompiled, monkeypatch):
    whole, written = Store.write, []

    def stopped(self, *arguments):
        if len(written) == 3:
            raise Stopped
        written.append(arguments[0])
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stopped)
        with pytest.raises(Stopped):
            evaluate(tiny, tiny.folder / "mixed", "fast")
    evaluate(tiny, tiny.folder / "mixed", "eager")
    evaluate(tiny, tiny.folder / "whole", "eager")
    assert values(tiny.folder / "mixed") == values(tiny.folder / "whole")


def test_the_state_of_an_eager_pass_has_the_name_that_it_always_had(tiny, uncompiled, monkeypatch):
    names = []
    monkeypatch.setattr(Evaluation, "_run", lambda self, item, crops, output, state, clock: names.append(state.name))
    for path in ("eager", "fast", "eager"):
        evaluate_without_record(tiny, path)
    assert names[0] == names[2] != names[1]


def evaluate_without_record(tiny, path):
    profile = load_profile(tiny.folder / "tiny.yaml")
    chosen = choose_autoencoder(profile, "sd-vae-f2c4", tiny.folder / "model.safetensors")
    reconstruction_run.evaluate_reconstruction(
        profile, chosen, data=tiny.folder / "data", output=tiny.folder / "none", path=path
    )


@pytest.mark.long
def test_the_fast_path_is_compiled(tiny, monkeypatch):
    """With a compiler and no stand-in, on the processor."""
    output = tiny.folder / "out"
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tiny.folder / "compiled"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dcae_bench", "evaluate", *tiny.options, "--output", str(output), "--path", "fast"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HOURS)
    assert done.returncode == 0, done.stderr
    fast, eager = load(output / f"{LABEL}.json"), evaluate(tiny, tiny.folder / "eager")
    assert fast.path.name == "fast" and fast.path.agreement.error < 1e-4 and eager.path.name == "eager"
    assert fast.metrics["psnr"].value == pytest.approx(eager.metrics["psnr"].value, abs=1e-2)
