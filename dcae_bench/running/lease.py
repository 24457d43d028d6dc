"""The lease of devices: a device has one holder at a time, a job or a timing.

A lease is a lock (``flock``) on a file of the machine: one file per GPU UUID, and one for the processors. The kernel
frees the lock when its holder ends, even if the holder crashes. The file stays and names the last holder. Processes
that a holder starts take part in its lock (:func:`join_lease`), so a device is free when the last of them has ended.

Who waits has a ticket, a locked file with a number. A command takes all its devices at once or none, and leaves those
alone that a command with a smaller ticket waits for. So two commands never wait for each other, and a command that
needs many devices gets its turn.
"""

import fcntl
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path

from dcae_bench.base.errors import MeasurementError
from dcae_bench.records.provenance import command_line
from dcae_bench.running.lease_queue import Ticket, alone, folder, open_lock, try_lock

CPU = "cpu"
"""Device name of the processors, which have no UUID."""
LEASED = "DCAE_BENCH_LEASED"
"""Environment variable that tells the processes of a holder its devices: ``<token>:<device>,<device>``."""
POLL_S = 0.2
_inherited: dict[str, int] = {}
"""Devices that the command which started this process holds, with open files whose locks keep them."""


@contextmanager
def lease(
    devices: Sequence[str],
    count: int | None = None,
    *,
    timeout_s: float = 3600.0,
    say: Callable[[str], None] = lambda _text: None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[list[str]]:
    """Hold ``count`` (default: all) of ``devices`` (GPU UUIDs, or :data:`CPU`). CUDA then sees only the leased GPUs.

    Waits up to ``timeout_s`` seconds for other holders and names one of them once through ``say``. Take the lease
    before the first use of a GPU, because CUDA reads ``CUDA_VISIBLE_DEVICES`` when it starts. Yields the leased
    devices. Raises :class:`MeasurementError` after the timeout, and if this process already computes on another GPU.
    """
    among = _require_free_cuda(list(dict.fromkeys(devices)), count)
    wanted = len(among) if count is None else count
    if wanted > len(among):
        raise MeasurementError(f"{', '.join(among)}: {wanted} devices are wanted, {len(among)} are there; want fewer")
    mine = [device for device in among if device in _inherited]
    if len(mine) >= wanted:
        with _seen_by_cuda(mine[:wanted], None):
            yield mine[:wanted]
        return
    with ExitStack() as held:
        token = secrets.token_hex(8)
        taken = held.enter_context(_taken(among, wanted, token, timeout_s, say, sleep, now))
        held.enter_context(_seen_by_cuda(taken, token))
        yield taken


def join_lease() -> None:
    """Keep, until this process ends, the devices that the command which started it holds.

    Raises :class:`MeasurementError` if that command has ended, because its devices may be another's by now.
    """
    token, _, devices = os.environ.get(LEASED, "").partition(":")
    if not token:
        return
    with alone():
        for device in devices.split(","):
            descriptor = open_lock(_path(device))
            if try_lock(descriptor, fcntl.LOCK_SH) and _content(descriptor).get("token") == token:
                _inherited[device] = descriptor
                continue
            os.close(descriptor)
            raise MeasurementError(f"{device}: the command that leased it for this process has ended; run it again")


def holder(device: str) -> str | None:
    """Description of the process that holds a device's lease now; None if the lease is free."""
    try:
        descriptor = os.open(_path(device), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if try_lock(descriptor) else _read_holder(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _taken(
    among: list[str],
    wanted: int,
    token: str,
    timeout_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None],
    now: Callable[[], float],
) -> Iterator[list[str]]:
    """Wait for ``wanted`` of the devices ``among``, and hold them."""
    begin, told = now(), False
    held: dict[str, int] = {}
    with Ticket(among) as ticket:
        while not held:
            with alone():
                blocked = ticket.wanted_before()
                held = _lock_some([device for device in among if device not in blocked], wanted, token)
                if held:
                    break
                reason = _reason(among, blocked)
            if now() - begin >= timeout_s:
                waited = "" if timeout_s == inf else f", waited {timeout_s:.0f} s"
                raise MeasurementError(f"{reason}{waited}; wait for it to end or end it")
            if not told:
                say(f"waiting for {'' if len(among) == 1 else f'{wanted} of {len(among)} devices: '}{reason}")
                told = True
            sleep(POLL_S)
    try:
        yield list(held)
    finally:
        for descriptor in held.values():
            os.close(descriptor)  # frees the lock, if no process that this one started has it too


def _lock_some(devices: list[str], wanted: int, token: str) -> dict[str, int]:
    """Lock ``wanted`` of the devices, the first that are free; none if too few are free. Others must be kept out."""
    free: dict[str, int] = {}
    try:
        for device in devices:
            descriptor = open_lock(_path(device))
            if try_lock(descriptor):
                free[device] = descriptor
                if len(free) == wanted:
                    break
            else:
                os.close(descriptor)
        if len(free) == wanted:
            for descriptor in free.values():
                _write_holder(descriptor, token)
                # Shared with the processes that this one starts. Whoever wants the device needs the whole lock.
                if not try_lock(descriptor, fcntl.LOCK_SH):  # someone got it between the two locks
                    return {}
            taken, free = free, {}
            return taken
        return {}
    finally:
        for descriptor in free.values():
            os.close(descriptor)


def _reason(among: list[str], blocked: set[str]) -> str:
    """Why the devices cannot be had now, by one that has a holder, else by one that another command waits for."""
    for device in among:
        if who := holder(device):
            return f"{device}: is leased by {who}"
    first = next((device for device in among if device in blocked), among[0])
    return f"{first}: other commands wait for it"


def _write_holder(descriptor: int, token: str) -> None:
    """Write this process into the lock file, for processes that wait and for those that this one starts."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    content = {"pid": os.getpid(), "since": since, "token": token, "command": command_line()[:1000]}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(), 0)


def _content(descriptor: int) -> dict[str, object]:
    """What is written in a lock file; nothing where that cannot be read."""
    try:
        content = json.loads(os.pread(descriptor, 16384, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_holder(descriptor: int) -> str:
    """Description of the process in the lock file."""
    content = _content(descriptor)
    if not {"pid", "since", "command"} <= content.keys():
        return "another process"
    return f"process {content['pid']} since {content['since']} ({content['command']})"


def _path(device: str) -> Path:
    return folder() / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.lock"


def _require_free_cuda(devices: list[str], count: int | None) -> list[str]:
    """The devices that this process can still use: one GPU alone if CUDA runs on it already.

    Raises :class:`MeasurementError` if CUDA already runs in this process on a GPU that is not in ``devices``.
    """
    gpus = [device for device in devices if device != CPU]
    torch = sys.modules.get("torch")
    if not gpus or torch is None or not torch.cuda.is_initialized():
        return devices
    used = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    same = [gpu for gpu in gpus if gpu.removeprefix("GPU-").removeprefix("MIG-") == used]
    if not same:
        raise MeasurementError(
            f"{', '.join(gpus)}: CUDA runs on GPU {used} in this process already; take the lease before the first use"
        )
    return same if count == 1 else devices


@contextmanager
def _seen_by_cuda(devices: list[str], token: str | None) -> Iterator[None]:
    """Set ``CUDA_VISIBLE_DEVICES``, and tell processes that start of the lease; restore both on exit."""
    changes = {}
    if gpus := [device for device in devices if device != CPU]:
        changes["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if token is not None:
        changes[LEASED] = f"{token}:{','.join(devices)}"
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
