"""A plan from end to end on the processors: killed, stopped, cut, continued; and what is compiled ahead."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dcae_bench.measurement import ahead, plan_run
from dcae_bench.measurement.plans import PLANS, PlanSession, PlanSpec, PlanStep
from dcae_bench.measurement.record import load
from dcae_bench.measurement.session import measure_each
from dcae_bench.running.stop import EXIT_CODE
from tests.measurement import tiny

ROOT = Path(__file__).parents[2]
PLAN = PLANS["cpu-rehearsal"]
# What the borrowed machine has none of, or what a session has no use for.
HIDDEN = (
    "snakemake",
    "diffusers",
    "accelerate",
    "torchmetrics",
    "torch_fidelity",
    "cleanfid",
    "pyarrow",
    "torchvision",
)
HIDE = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {HIDDEN!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


@pytest.fixture
def start(tmp_path):
    """Start ``dcae-bench measure`` as a process that cannot import the hidden packages."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDE)
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)]),
        "DCAE_BENCH_LEASES": str(tmp_path / "leases"),
        "OMP_NUM_THREADS": "1",
    }
    begun = []

    def begin(*words):
        command = [sys.executable, "-m", "dcae_bench", "measure", *words]
        begun.append(
            subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def records(folder):
    return {path for path in folder.glob("*.r1.json") if not path.name.endswith(".nvml.json")}


def wait_for(ready, seconds=120.0):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def sessions_of(folder):
    path = folder / "plan.json"
    return json.loads(path.read_text())["sessions"] if path.exists() else {}


@pytest.mark.long
def test_a_plan_is_cut_stopped_and_continued(tmp_path, start):
    output = tmp_path / "out"
    words = ("--plan", PLAN.name, "--output", str(output))

    killed = start(*words)
    wait_for(lambda: len(records(output)) >= 3)
    killed.kill()
    killed.wait()
    first = {path: path.read_bytes() for path in records(output)}
    assert set(sessions_of(output).values()) == {"begun, and never ended"}
    time.sleep(1.0)
    assert len(records(output)) <= len(first) + 3, "the session ended with its plan, but for the step that it was at"

    stopped = start(*words)
    wait_for(lambda: len(sessions_of(output)) >= 2 and len(records(output)) > 6)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == EXIT_CODE and "Traceback" not in err
    assert "Throughput. CPU" in out and f"of the {PLAN.timings} timings that its plan asks for" in out

    cut = start(*words, "--budget-s", "12")
    out, err = cut.communicate(timeout=120)
    outcomes = sessions_of(output)
    assert cut.returncode == 0 and outcomes["uvit-h, restart 1"] == "was there", err
    assert outcomes["latency-memory, restart 1"] == "not begun: the time is over"
    assert "Throughput. CPU" in out

    whole = start(*words)
    out, err = whole.communicate(timeout=400)
    assert whole.returncode == 0, err
    found = [load(path) for path in records(output)]
    assert len(found) == PLAN.timings and {one.status for one in found} == {"measured"}
    assert {path: path.read_bytes() for path in first} == first, "what was there is not measured again"
    assert {one.share for one in found} == {None, 4, 8} and {one.model.name[:9] for one in found} == {"stand-in-"}
    assert "timings that its plan asks for" not in out and (output / "table_throughput.md").read_text() in out


def test_a_session_times_its_steps_in_one_process_and_a_failed_one_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_LEASES", str(tmp_path / "leases"))
    names = {"protocol": "cpu", "denoiser": "stand-in-uvit-s", "latents": ("dc-ae-f64c128-p1",), "effort": "rehearsal"}
    steps = (
        PlanStep(**names, work="train", resolution=128, batch=1),
        PlanStep(**names, work="forward", resolution=100, batch=1),
        PlanStep(**names, work="forward", resolution=128, batch=1),
    )
    said = []
    with pytest.raises(plan_run.MeasurementError, match=r"1 of 3 parts failed: .*100 px"):
        measure_each([step.timings(tmp_path, 1) for step in steps], said.append)
    found = [load(path) for path in sorted(records(tmp_path))]
    assert [one.work for one in found] == ["forward", "train"]
    assert len({one.restarts[0].pid for one in found}) == 1 and any("failed" in text for text in said)
    assert plan_run.timed_s(found) == pytest.approx(
        sum(one.restarts[0].series.seconds + one.restarts[0].ceiling.seconds for one in found)
    )
    session = PlanSession(name="all", steps=(steps[0], steps[2]))
    assert plan_run.measure_session(session, tmp_path, 1) == [], "all of it is there"
    assert plan_run.is_done(steps[0], tmp_path, 1) and not plan_run.is_done(steps[0], tmp_path, 2)


COUNT = """
import sys
import torch
from torch._dynamo.utils import counters
from tests.measurement.test_rehearsal import compile_tiny

compile_tiny(shallow=sys.argv[1] == "ahead")
print(dict(counters["inductor"]))
"""


def compile_tiny(*, shallow: bool) -> None:
    """Compile the training step of a denoiser of eight blocks, or what is compiled ahead of it."""
    from dcae_bench.measurement.workloads.by_name import build_workload
    from dcae_bench.measurement.workloads.job import Job
    from dcae_bench.measurement.workloads.recipes import CPU
    from dcae_bench.specs.denoisers import Architecture

    with pytest.MonkeyPatch.context() as patch:
        deep = Architecture(family="uvit", width=32, depth=8, heads=2)
        patch.setitem(tiny.ARCHITECTURES, "tiny-uvit", deep)
        tiny.use(patch)
        recipe = CPU.model_copy(update={"train_precision": "bf16 autocast"})
        patch.setattr(ahead, "recipe_for", lambda name: recipe)
        step = PlanStep(protocol="cpu", denoiser="tiny-uvit", latents=("dc-ae-f64c128-p1",), work="train", batch=2)
        case = tiny.case("train")
        if shallow:
            ahead.compile_shape(ahead.Shape(step, case), torch.device("cpu"))
        else:
            build_workload(Job(case, recipe, 2, torch.device("cpu"), mode="compile", check=False)).call()


@pytest.mark.long
def test_a_shallow_network_compiles_the_code_of_the_whole_one(tmp_path):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = {}
    for what in ("ahead", "whole"):
        done = subprocess.run([sys.executable, "-c", COUNT, what], env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[what] = done.stdout
    assert "fxgraph_cache_miss" in said["ahead"]
    assert "fxgraph_cache_hit" in said["whole"] and "fxgraph_cache_miss" not in said["whole"]


def test_every_shape_is_compiled_once():
    plan = PLANS["h100-15min"]
    found = ahead.shapes(plan)
    works = [shape.step.work for shape in found]
    # f16p2 of UViT-S has the tokens of f32p1, and DiT-S compiles its own.
    assert works.count("train") == works.count("forward") == 8
    assert {shape.step.protocol for shape in found} == {"tuned"}
    assert ahead.shapes(PlanSpec(name="none", what="none", sessions=PLAN.sessions, restarts=1)) == []
    shallow = ahead.Shallow.model_validate(found[0].case.model_dump()).spec
    assert shallow.depth == ahead.DEPTH and shallow.width == found[0].case.spec.width
