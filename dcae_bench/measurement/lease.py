"""A lease on a device, so that nothing else of ours runs during a timing.

A lock on a file of the machine (``flock``), one per GPU UUID, or one for the processors. The kernel frees it when its
holder ends, however it ends; the file itself stays and tells who held it last.
"""

import errno
import fcntl
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dcae_bench.errors import MeasurementError

CPU = "cpu"
"""What stands for the processors, which have no UUID."""
POLL_S = 0.2


def folder() -> Path:
    """Where the machine's leases are: ``$DCAE_BENCH_LEASES``, else ``dcae-bench-leases`` among temporary files.

    All users of a machine share it; containers that share a GPU see each other only if this folder is shared too.
    """
    return Path(os.environ.get("DCAE_BENCH_LEASES") or Path(tempfile.gettempdir()) / "dcae-bench-leases")


@contextmanager
def lease(
    devices: Sequence[str],
    *,
    timeout_s: float = 3600.0,
    say: Callable[[str], None] = lambda _text: None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold ``devices`` (GPU UUIDs, or :data:`CPU`) alone; GPUs become the only ones that CUDA sees.

    Waits up to ``timeout_s`` and tells once, through ``say``, for whom. CUDA reads ``CUDA_VISIBLE_DEVICES`` when it
    starts, so take the lease before the first use of a GPU. Raises :class:`MeasurementError` when the time is over, or
    when this process already computes on another GPU.
    """
    gpus = [device for device in devices if device != CPU]
    _require_same(gpus)
    with ExitStack() as held:
        # In one order everywhere, so that two holders never wait for each other.
        for device in sorted(set(devices)):
            held.enter_context(_locked(device, timeout_s, say, sleep, now))
        if gpus:
            held.enter_context(_visible(",".join(gpus)))
        yield


def holder(device: str) -> str | None:
    """Who holds a device's lease now, in words; null if nobody does."""
    path = _path(device)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _told(descriptor)
    finally:
        os.close(descriptor)
    return None


def choose_gpu(uuids: Sequence[str], visible: str | None, order: str | None) -> str:
    """The GPU to lease: the first that ``CUDA_VISIBLE_DEVICES`` names, of those that NVML lists in PCI order.

    ``order`` is ``CUDA_DEVICE_ORDER``. An index is refused where CUDA's order and NVML's may differ. Raises
    :class:`MeasurementError`.
    """
    if not uuids:
        raise MeasurementError("NVML: lists no GPU; a machine with an NVIDIA GPU is needed")
    if visible is None:
        return uuids[0]
    first = visible.split(",")[0].strip()
    if first.startswith("MIG-"):
        return first
    if first.startswith("GPU-"):
        matching = [uuid for uuid in uuids if uuid.startswith(first)]
        if len(matching) != 1:
            raise MeasurementError(f"CUDA_VISIBLE_DEVICES={visible}: no such GPU; there are {', '.join(uuids)}")
        return matching[0]
    if not first.isdigit() or int(first) >= len(uuids):
        raise MeasurementError(f"CUDA_VISIBLE_DEVICES={visible}: hides every GPU; name one of {', '.join(uuids)}")
    if len(uuids) > 1 and order != "PCI_BUS_ID":
        raise MeasurementError(
            f"CUDA_VISIBLE_DEVICES={visible}: an index does not tell which GPU, as CUDA's order is not NVML's; "
            f"name one of {', '.join(uuids)}"
        )
    return uuids[int(first)]


@contextmanager
def _locked(
    device: str,
    timeout_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None],
    now: Callable[[], float],
) -> Iterator[None]:
    descriptor = _open(_path(device))
    try:
        begin, told = now(), False
        while not _try_lock(descriptor):
            who = _told(descriptor)
            if now() - begin >= timeout_s:
                raise MeasurementError(
                    f"{device}: is leased by {who}, waited {timeout_s:.0f} s; wait for it to end or end it"
                )
            if not told:
                say(f"{device}: waiting for {who}")
                told = True
            sleep(POLL_S)
        _tell(descriptor)
        yield
    finally:
        os.close(descriptor)  # frees the lock


def _open(path: Path) -> int:
    """Open a lock file, made for every user of the machine."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o1777)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # Without O_CREAT first: Linux refuses it on another user's file in a folder like /tmp.
            return os.open(path, flags)
        except FileNotFoundError:
            descriptor = os.open(path, flags | os.O_CREAT, 0o666)
            os.fchmod(descriptor, 0o666)
            return descriptor
    except OSError as error:
        raise MeasurementError(
            f"{path}: lease cannot be opened ({error.strerror}); set DCAE_BENCH_LEASES to a folder all users can write"
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise
    return True


def _tell(descriptor: int) -> None:
    """Write down who holds the lease, for whoever waits."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    content = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": command}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode()[:4000], 0)


def _told(descriptor: int) -> str:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {content['pid']} since {content['since']} ({content['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _path(device: str) -> Path:
    return folder() / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.lock"


def _require_same(gpus: Sequence[str]) -> None:
    """Refuse GPUs that this process cannot use any more because CUDA started with another."""
    torch = sys.modules.get("torch")
    if not gpus or torch is None or not torch.cuda.is_initialized():
        return
    used = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    if used not in {gpu.removeprefix("GPU-").removeprefix("MIG-") for gpu in gpus}:
        raise MeasurementError(
            f"{', '.join(gpus)}: CUDA runs on GPU {used} in this process already; take the lease before the first use"
        )


@contextmanager
def _visible(uuids: str) -> Iterator[None]:
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = uuids
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
