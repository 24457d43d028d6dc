"""The main table through a real SLURM at a tiny size, with a killed job and a drained node; then the same locally.

    python -m tests.slurm

Starts a SLURM of this machine alone, runs the workflow with ``profiles/slurm``, kills a training in the middle, drains
the node before the training is tried again, resumes it, and compares every result with a run without SLURM. Where SLURM
or Snakemake's plugin for it is missing, one line says so.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from dcae_bench.base.files import REPOSITORY
from dcae_bench.training.checkpoint import CHECKPOINT
from tests import tiny_ablations, tiny_diffusion
from tests.slurm.cluster import Cluster, SlurmError, missing
from tests.workflow.test_killed import content

PLUGIN = "snakemake_executor_plugin_slurm"
TABLE = "results/table_rfid.md"
DATA = ("photos-indoor", "photos-mixed")
PATIENCE_S = 300
"""Longest wait for one thing; a busy machine may give a job no processor for a while."""
NOT_COMPARED = ("logs", "slurm-logs", "runs", "profile.json")
"""What may differ: logs tell of times and machines, and a finished training leaves nothing in ``runs``."""
VICTIM = "sd-vae"
IMAGES = 400
"""Images of a training: long enough to be killed in the middle, after a checkpoint."""


class Wrong(Exception):
    """What SLURM or the workflow did otherwise than it should."""


def profile() -> str:
    """A DC-AE and an SD-VAE with one phase, on packs that are there already."""
    changes = {("training", "datasets"): list(DATA), ("evaluation", "sets", 0, "dataset"): DATA[0]}
    changes |= {("training", "phases", 1, "images"): IMAGES, ("training", "checkpoint_images"): IMAGES // 10}
    tiny = {key: part for key, part in tiny_diffusion.content(changes).items() if key != "diffusion"}
    tiny["autoencoders"]["dc-ae"] = tiny_ablations.content()["autoencoders"]["dc-ae"]
    return yaml.safe_dump(tiny)


def prepare(folder: Path) -> Path:
    """A folder in which the workflow can run. Weights that come in packages are converted once for all folders."""
    tiny_diffusion.write_data(folder / "results" / "tiny" / "data", DATA)
    (folder / "tiny.yaml").write_text(profile())
    (folder / "cache").mkdir()
    (folder.parent / "weights").mkdir(exist_ok=True)
    (folder / "cache" / "weights").symlink_to(folder.parent / "weights")
    return folder


def snakemake(folder: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """The workflow on its way to the table in a folder."""
    variables = os.environ | (environment or {})
    variables |= {"PATH": f"{Path(sys.executable).parent}:{variables['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    variables |= {"DCAE_BENCH_CACHE": "cache", "OMP_NUM_THREADS": "1"}
    command = ["--snakefile", REPOSITORY / "Snakefile", "--directory", folder, *options, "--", TABLE]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--config", f"profile={folder / 'tiny.yaml'}", *map(str, command)],
        env=variables,
        cwd=folder,
        stdout=open(folder / "said", "wb"),  # a pipe that nobody reads would stop the run
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )


def through_slurm(folder: Path, cluster: Cluster) -> subprocess.Popen:
    """The same with the profile for SLURM, which here has no accounting; jobs of seconds are looked after often."""
    options = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
    where = ["--workflow-profile", str(REPOSITORY / "profiles" / "slurm"), "--latency-wait", "10"]
    return snakemake(folder, *where, *options, environment=cluster.environment)


def finished(run: subprocess.Popen, folder: Path) -> str:
    """What a run in a folder said. Raises :class:`Wrong` for one that fails or hangs."""
    try:
        run.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        run.kill()
        raise Wrong(f"the workflow hangs:\n{end_of(folder)}") from None
    if run.returncode:
        raise Wrong(f"the workflow ended with exit code {run.returncode}:\n{end_of(folder)}")
    return (folder / "said").read_text()


def wait_for(what: str, found: Callable[[], object], run: subprocess.Popen, folder: Path) -> None:
    """Wait until something is found. Raises :class:`Wrong` where the run ends before or nothing comes."""
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        if run.poll() is not None or time.monotonic() > deadline:
            run.kill()
            raise Wrong(f"waited in vain for {what}:\n{end_of(folder)}")
        time.sleep(0.1)


def end_of(folder: Path) -> str:
    """The last that a run and its jobs said."""
    logs = [folder / "said", *sorted((folder / "results").glob("**/*.log"))]
    return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def training_in(cluster: Cluster, *states: str) -> list[str]:
    """Numbers of the jobs that train the victim, in some of SLURM's states."""
    comment = f"rule_train_phase_wildcards_{VICTIM}_1"
    return [job for job, said in cluster.jobs(*states).items() if said == comment]


def disturbed(folder: Path, cluster: Cluster) -> None:
    """Run through SLURM, with one training killed and the node drained before it is tried again."""
    run = through_slurm(folder, cluster)
    saved = folder / "results" / "tiny" / "runs" / f"{VICTIM}@retrained-phase1"
    wait_for("a checkpoint of a running training", lambda: [*saved.glob(f"**/{CHECKPOINT}")], run, folder)
    if not (running := training_in(cluster, "RUNNING")):
        raise Wrong(f"the training ended before it could be killed:\n{end_of(folder)}")
    (killed,) = running
    first = cluster.time_limit(killed)
    cluster.set_state("drain")  # first, so that the next attempt cannot start between the two
    cluster.call("scancel", killed)
    wait_for("the killed training to be tried again", lambda: training_in(cluster, "PENDING"), run, folder)
    (again,) = training_in(cluster, "PENDING")
    second = cluster.time_limit(again)
    if _minutes(second) != 2 * _minutes(first):
        raise Wrong(f"the second attempt asks for {second}, the first one for {first}")
    cluster.set_state("resume")
    said = finished(run, folder)
    if "dcae-bench: error" in said:
        raise Wrong(f"a job that was tried again is told as an error:\n{said[-3000:]}")
    if cluster.jobs("CANCELLED").keys() != {killed}:
        raise Wrong(f"cancelled jobs are {cluster.jobs('CANCELLED')}, not {killed} alone")


def results(folder: Path) -> dict[str, object]:
    """All results by path: files as bytes without the place of the folder, records without what tells of time."""
    found = [path.relative_to(folder) for path in sorted((folder / "results").rglob("*")) if path.is_file()]
    return content(folder, [path for path in found if not any(part in NOT_COMPARED for part in path.parts)])


def compare(local: Path, other: Path) -> int:
    """Number of equal files. Raises :class:`Wrong` where one differs."""
    ours, theirs = results(local), results(other)
    differ = sorted(path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path))
    if differ:
        raise Wrong(f"results differ between a local run and SLURM: {', '.join(differ)}")
    if not any(path.endswith(".safetensors") for path in ours) or TABLE not in ours:
        raise Wrong(f"there is nothing to compare: {sorted(ours)}")
    return len(ours)


def _minutes(limit: str) -> int:
    """Minutes of a limit as squeue prints it, H:MM:SS or MM:SS."""
    parts = [int(part) for part in limit.split(":")]
    return parts[-2] + 60 * (parts[-3] if len(parts) > 2 else 0)


def main() -> int:
    lacking = missing() or ([] if importlib.util.find_spec(PLUGIN) else ["Snakemake's plugin (make cluster)"])
    if lacking:
        print(f"SLURM is not tried, because this machine lacks {', '.join(lacking)}")
        return 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        local, there = prepare(Path(name).resolve() / "local"), prepare(Path(name).resolve() / "there")
        beside = snakemake(local, "--cores", "1")  # computes while SLURM's run mostly waits
        try:
            with Cluster.running() as cluster:
                disturbed(there, cluster)
                took = f"{time.monotonic() - started:5.0f} s"
                print(f"{took}  the table, with a killed job and a drained node", flush=True)
                if "Nothing to be done" not in (said := finished(through_slurm(there, cluster), there)):
                    raise Wrong(f"a second run has something to do:\n{said[-3000:]}")
            finished(beside, local)
        finally:
            beside.kill()  # where the other run failed; one that has ended does not mind
        count = compare(local, there)
    seconds = time.monotonic() - started
    print(f"{seconds:5.0f} s  {count} results are those of a local run: bytes of files, records without their times")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Wrong, SlurmError) as wrong:
        sys.exit(f"error: {wrong}")
