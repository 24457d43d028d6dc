"""Jobs and the GPUs of a machine, with stand-ins: UUIDs without GPUs behind them."""

import fcntl
import json
import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch

from dcae_bench.base.errors import ConfigError, MeasurementError
from dcae_bench.planning.options import gpu_limit
from dcae_bench.running import gpus, lease_queue
from dcae_bench.running import lease as leases
from dcae_bench.running.gpus import cuda_order, take_gpus, visible_gpus
from dcae_bench.running.launch import start_processes
from dcae_bench.running.lease import LEASED, holder, join_lease, lease
from tests import tiny_diffusion as tiny
from tests.running.gpu_jobs import UUIDS, job, note


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with eight GPUs, and with torch for CUDA."""
    monkeypatch.setenv("DCAE_BENCH_LEASES", str(tmp_path / "leases"))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "WORLD_SIZE", "LOCAL_RANK", LEASED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "gpus", lambda: UUIDS)
    monkeypatch.setattr(gpus, "cuda_order", lambda: "PCI_BUS_ID")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with ExitStack() as taken:
        monkeypatch.setattr(gpus, "_taken", taken)
        yield


def profile(**changes):
    return tiny.profile({(key,): value for key, value in {"device": "auto", **changes}.items()})


def free() -> list[str]:
    return [uuid for uuid in UUIDS if holder(uuid) is None]


def test_a_job_takes_free_gpus_of_those_that_it_may_use(monkeypatch):
    with lease(["GPU-66"]):
        del os.environ[LEASED]  # another command has the lease
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,GPU-22,1,4")
        take_gpus(profile(), 2)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-22,GPU-11"
        assert free() == ["GPU-00", "GPU-33", "GPU-44", "GPU-55", "GPU-77"]
        gpus._taken.close()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,GPU-22,1,4"
    assert free() == UUIDS


def test_a_job_takes_all_where_there_are_fewer_than_it_wants(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="processes is 2, a GPU for each, and this machine has 1"):
        start_processes(profile(processes=2, device="cuda"), exactly=True)
    assert free() == UUIDS
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    take_gpus(profile(), 3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-33,GPU-55"


@pytest.mark.parametrize("why", ["device", "torch", "hidden", "command"])
def test_who_computes_on_no_gpu_takes_none(monkeypatch, why):
    if why == "torch":
        monkeypatch.setattr(torch.version, "cuda", None)
    if why == "hidden":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if why == "command":
        monkeypatch.setenv(LEASED, "token:GPU-00")
    take_gpus(profile(device="cpu" if why == "device" else "auto"), 1)
    assert free() == UUIDS


def test_of_processes_that_torchrun_started_the_first_takes_the_gpus_of_all(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    take_gpus(profile(), 2)
    assert free() == UUIDS
    monkeypatch.setenv("LOCAL_RANK", "0")
    take_gpus(profile(), 2)
    assert free() == UUIDS[2:]


def test_visible_gpus_are_those_of_cuda():
    assert visible_gpus(UUIDS, None, None) == UUIDS
    assert visible_gpus(UUIDS, "2,2,0,-1,5", "PCI_BUS_ID") == ["GPU-22", "GPU-00"]
    assert visible_gpus(UUIDS, "", None) == visible_gpus(UUIDS, "9", None) == []
    assert visible_gpus(UUIDS, "MIG-a, GPU-3", None) == ["MIG-a", "GPU-33"]
    with pytest.raises(MeasurementError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID or name one of"):
        visible_gpus(UUIDS, "1", None)
    with pytest.raises(MeasurementError, match="no such GPU"):
        visible_gpus(UUIDS, "GPU-9", None)


@pytest.mark.parametrize(
    ("said", "names", "order"),
    [
        (None, ["H100", "H100"], "PCI_BUS_ID"),
        (None, [b"H100", "A100"], None),
        ("FASTEST_FIRST", ["H100", "H100"], "FASTEST_FIRST"),
    ],
)
def test_the_order_of_cuda_is_known_where_all_gpus_are_of_one_kind(monkeypatch, said, names, order):
    if said:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", said)
    library = SimpleNamespace(
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: names[handle],
    )
    monkeypatch.setattr(gpus, "nvml_library", lambda: library)
    assert cuda_order() == order


def test_a_workflow_runs_as_many_jobs_as_there_are_gpus(monkeypatch):
    assert gpu_limit() == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert gpu_limit() == 1

    def missing():
        raise MeasurementError("NVML: library not found")

    monkeypatch.setattr(gpus, "gpus", missing)
    assert gpu_limit() == 0


def test_processes_of_a_holder_keep_its_gpu_when_it_ends(monkeypatch):
    monkeypatch.setattr(leases, "_inherited", inherited := {})
    with lease(UUIDS, 1):
        told = os.environ[LEASED]
        join_lease()  # as another process does
        assert list(inherited) == ["GPU-00"]
        with lease(["GPU-00"], timeout_s=0) as mine:  # a session of a plan, whose parent leased the GPU
            assert mine == ["GPU-00"]
    assert LEASED not in os.environ and holder("GPU-00")
    os.close(inherited.pop("GPU-00"))
    assert holder("GPU-00") is None
    with lease(["GPU-00"], timeout_s=0):
        os.environ[LEASED] = told  # which the end of the lease removes
        with pytest.raises(MeasurementError, match="GPU-00: the command that leased it for this process has ended"):
            join_lease()
    assert holder("GPU-00") is None


# Processes that take GPUs

FORKS = get_context("forkserver")


def events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events").read_text().splitlines()]


def start(folder: Path, name: str, count: int, seconds: float):
    FORKS.set_forkserver_preload(["tests.running.gpu_jobs"])
    process = FORKS.Process(target=job, args=(str(folder), name, count, seconds))
    process.start()
    return process


def wait_for_tickets(folder: Path, count: int, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while len(list((folder / "leases" / "queue").iterdir())) < count:
        assert time.monotonic() < end, f"there are fewer than {count} that wait"
        time.sleep(0.01)


def test_fifty_jobs_of_mixed_size_share_eight_gpus_whatever_is_killed(tmp_path):
    random = Random(0)
    (tmp_path / "events").touch()
    wants = {f"job{number}": random.choice([1, 1, 1, 2, 3, 4, 8]) for number in range(50)}
    processes = {name: start(tmp_path, name, count, random.uniform(0, 0.05)) for name, count in wants.items()}
    for name in random.sample(sorted(wants), 15):
        time.sleep(random.uniform(0, 0.1))
        note(str(tmp_path), "kill", name)
        processes[name].kill()
    for process in processes.values():
        process.join(90)
    codes = Counter(process.exitcode for process in processes.values())
    assert codes.keys() <= {0, -signal.SIGKILL} and codes[0] >= 35, f"deadlock or error: {codes}"

    held: dict[str, list[str]] = {}
    done = Counter()
    for one in events(tmp_path):
        if one["event"] == "take":
            taken = [uuid for uuids in held.values() for uuid in uuids]
            assert len(one["gpus"]) == wants[one["name"]] and not set(one["gpus"]) & set(taken), "a GPU twice"
            held[one["name"]] = one["gpus"]
        elif one["event"] in ("give", "kill"):
            held.pop(one["name"], None)
        done[one["event"]] += 1
    assert done["give"] >= 35
    assert free() == UUIDS, "a GPU is lost"
    with lease(UUIDS, 8, timeout_s=0):  # tickets of killed jobs stop nobody
        assert not list((tmp_path / "leases" / "queue").iterdir())


def test_a_job_of_eight_gets_its_turn_before_later_jobs_of_one(tmp_path):
    (tmp_path / "events").touch()
    with lease(["GPU-00"]):
        eight = start(tmp_path, "eight", 8, 0.05)
        wait_for_tickets(tmp_path, 1)
        ones = [start(tmp_path, f"one{number}", 1, 0.01) for number in range(3)]
        wait_for_tickets(tmp_path, 4)
        assert not events(tmp_path), "seven GPUs are free, and wait for the job of eight"
    for process in (eight, *ones):
        process.join(60)
        assert process.exitcode == 0
    order = [one["name"] for one in events(tmp_path) if one["event"] == "take"]
    assert order[0] == "eight" and len(order) == 4


def test_a_suspended_waiter_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_queue, "SUSPENDED_S", 0.2)
    (tmp_path / "events").touch()
    with lease(["GPU-00"]):
        waiter = start(tmp_path, "waiter", 8, 0)
        wait_for_tickets(tmp_path, 1)
        os.kill(waiter.pid, signal.SIGSTOP)
        with lease(["GPU-11"], timeout_s=5):
            pass
    os.kill(waiter.pid, signal.SIGCONT)
    waiter.join(60)
    assert waiter.exitcode == 0


def test_a_process_suspended_while_it_takes_stops_nobody(monkeypatch):
    monkeypatch.setattr(lease_queue, "SUSPENDED_S", 0.05)
    with lease(["GPU-00"]):  # makes the folder
        pass
    with open(lease_queue.folder() / "queue.lock") as suspended:
        fcntl.flock(suspended, fcntl.LOCK_EX)
        with lease(["GPU-00"], timeout_s=5):
            pass
