"""What jobs ask a cluster for, against the plan's estimates."""

import math
from types import SimpleNamespace

import pytest
import yaml

from dcae_bench.planning import limits
from dcae_bench.planning.estimate import Estimator
from dcae_bench.planning.limits import MARGIN, PROCESS_GIB, START_MIN, UNKNOWN_MIN, Limits
from dcae_bench.planning.plan import PlanRow
from dcae_bench.planning.workflow import Workflow
from tests import tiny_diffusion as tiny

RULES = [
    ("preparation", {"dataset": "photos-indoor"}),
    ("training", {"autoencoder": "sd-vae", "phase": "1"}),
    ("evaluation", {"autoencoder": "sd-vae", "phase": "1"}),
    ("evaluation_as_is", {"subject": "sd-vae@own", "set": "photos-indoor-32"}),
    ("encoding", {"latent": "sd-vae@retrained", "images": "two"}),
    ("diffusion_training", {"row": "uvit"}),
    ("sampling", {"row": "uvit", "scale": "1.5"}),
    ("evaluation_of_samples", {"row": "uvit", "scale": "1.5"}),
]


class Wildcards(list):
    """As Snakemake's: values in order, and by name."""

    def __init__(self, **values):
        super().__init__(values.values())
        self.__dict__ |= values


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The jobs of a tiny profile on embedded photographs."""
    monkeypatch.chdir(tmp_path)
    sets = ["photos-indoor", "photos-mixed"]
    changes = {("training", "datasets"): sets, ("evaluation", "sets", 0, "dataset"): sets[0]}
    changes |= {("diffusion", "data", "two", "datasets"): sets, ("diffusion", "data", "plain", "datasets"): sets[1:]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
    found = Workflow("tiny.yaml")
    found.subjects["sd-vae@own"] = "sd-vae"  # as with weights of its own
    return found


def shared(jobs, **changes):
    """The jobs of the same profile with other fields."""
    jobs.profile = jobs.profile.model_copy(update=changes)
    return jobs


@pytest.mark.parametrize(("name", "wildcards"), RULES)
def test_every_job_asks_for_time_and_memory_and_for_more_in_each_attempt(jobs, name, wildcards):
    asked = getattr(Limits(jobs, submitted=True), name)
    assert asked.keys() == {"runtime", "mem_mb"}
    for resource, least in (("runtime", START_MIN), ("mem_mb", PROCESS_GIB * 1024)):
        first = asked[resource](Wildcards(**wildcards), attempt=1)
        assert isinstance(first, int) and least <= first < 2 * least
        assert asked[resource](Wildcards(**wildcards), attempt=3) == 3 * first


def test_a_run_on_this_machine_asks_for_nothing_and_estimates_nothing(jobs, monkeypatch):
    monkeypatch.setattr(limits, "Rates", SimpleNamespace())
    assert all(getattr(Limits(jobs, submitted=False), name) == {} for name, _ in RULES)
    assert Limits(jobs, submitted=False).listing == {}


def test_time_is_that_of_the_clock_with_a_margin(jobs, monkeypatch):
    def minutes(**row):
        monkeypatch.setattr(Estimator, "training", lambda *_: PlanRow("train", "", 1, **row))
        return Limits(jobs, submitted=True).training["runtime"](Wildcards(autoencoder="sd-vae", phase="1"), attempt=1)

    assert minutes(cpu_hours=10) == START_MIN + MARGIN * 600
    shared(jobs, threads=4)  # the plan's hours of processors are those of all threads
    assert minutes(cpu_hours=10) == START_MIN + MARGIN * 150
    shared(jobs, device="cuda", processes=8)
    assert minutes(gpu_hours=80) == START_MIN + MARGIN * 600
    assert minutes() == UNKNOWN_MIN


def test_a_split_of_files_is_listed_by_all_threads_of_one_job(jobs, monkeypatch):
    monkeypatch.setattr(Estimator, "preparation", lambda *_: PlanRow("prepare", "", 1, cpu_hours=8))
    asked = Limits(shared(jobs, threads=4, processes=2), submitted=True).listing
    wildcards = Wildcards(dataset="imagenet", split="eval")
    assert asked["runtime"](wildcards, attempt=1) == START_MIN + MARGIN * 120
    assert asked["mem_mb"](wildcards, attempt=1) == PROCESS_GIB * 1024


def test_memory_is_that_of_every_process(jobs, monkeypatch):
    def memory(**row):
        monkeypatch.setattr(Estimator, "training", lambda *_: PlanRow("train", "", 1, **row))
        return Limits(jobs, submitted=True).training["mem_mb"](Wildcards(autoencoder="sd-vae", phase="1"), attempt=1)

    assert memory(cpu_hours=1, memory_gib=3) == math.ceil((PROCESS_GIB + MARGIN * 3) * 1024)
    shared(jobs, processes=2)
    assert memory(cpu_hours=1, memory_gib=3) == 2 * math.ceil((PROCESS_GIB + MARGIN * 3) * 1024)
    shared(jobs, device="cuda")  # the plan's memory is that of the GPU
    assert memory(gpu_hours=1, memory_gib=70) == 2 * PROCESS_GIB * 1024


def test_no_job_asks_for_more_than_the_cluster_gives(jobs, monkeypatch):
    monkeypatch.setattr(Estimator, "training", lambda *_: PlanRow("train", "", 1, cpu_hours=100))
    asked = Limits(jobs, submitted=True, longest=1440).training["runtime"]
    assert [asked(Wildcards(autoencoder="sd-vae", phase="1"), attempt=attempt) for attempt in (1, 2)] == [1440, 1440]


def test_a_job_that_cannot_be_estimated_has_a_limit(jobs):
    asked = Limits(jobs, submitted=True)
    assert asked.encoding["runtime"](Wildcards(latent="none@retrained", images="two"), attempt=1) == UNKNOWN_MIN
    assert asked.listing["runtime"](Wildcards(dataset="imagenet", split="no-such-split"), attempt=1) == UNKNOWN_MIN


def test_a_training_on_several_nodes_asks_for_a_task_and_its_gpus_on_each(jobs):
    one = Limits(shared(jobs, device="cuda", processes=4), submitted=True).training
    assert one.keys() == {"runtime", "mem_mb"}
    two = Limits(shared(jobs, nodes=2), submitted=True)
    asked = two.diffusion_training
    fixed = {name: value for name, value in two.training.items() if name not in ("runtime", "mem_mb")}
    assert fixed == {"nodes": 2, "tasks": 2, "mpi": "srun", "gres": "gpu:4", "tasks_per_gpu": 0}
    assert asked.keys() == two.training.keys() and jobs.training_gpus == 8 and jobs.gpus == 4
    assert two.encoding.keys() == {"runtime", "mem_mb"}, "everything else runs on one machine"
    wildcards = Wildcards(autoencoder="sd-vae", phase="1")
    assert two.training["mem_mb"](wildcards, attempt=1) == one["mem_mb"](wildcards, attempt=1), "each node"


def test_hours_of_a_training_are_shared_by_all_nodes(jobs, monkeypatch):
    monkeypatch.setattr(Estimator, "training", lambda *_: PlanRow("train", "", 1, gpu_hours=80))
    shared(jobs, device="cuda", processes=4, nodes=2)
    minutes = Limits(jobs, submitted=True).training["runtime"](Wildcards(autoencoder="sd-vae", phase="1"), attempt=1)
    assert minutes == START_MIN + MARGIN * 600
