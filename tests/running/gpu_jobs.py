"""Jobs that take stand-ins for GPUs; a module without torch, so that fifty of them start in a second."""

import json
import os
import time

from dcae_bench.running import lease as leases
from dcae_bench.running.lease import lease

UUIDS = [f"GPU-{number}{number}" for number in range(8)]


def job(folder: str, name: str, count: int, seconds: float) -> None:
    """Take GPUs, hold them for a while, and note both in the events of the machine."""
    os.environ["DCAE_BENCH_LEASES"] = f"{folder}/leases"
    leases.POLL_S = 0.02
    with lease(UUIDS, count, timeout_s=60) as taken:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(taken)
        note(folder, "take", name, taken)
        time.sleep(seconds)
        note(folder, "give", name)


def note(folder: str, event: str, name: str, taken: list[str] | None = None) -> None:
    """Add an event; the kernel puts the lines of all processes into one order."""
    line = json.dumps({"event": event, "name": name, "gpus": taken or [], "pid": os.getpid()}) + "\n"
    descriptor = os.open(f"{folder}/events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
