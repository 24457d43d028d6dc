"""The lease of a device: while a timing holds the lease, no other timing of this program runs on the device.

A lease is a lock (``flock``) on a file of the machine: one file per GPU UUID, and one for the processors. The kernel
frees the lock when its holder ends, even if the holder crashes. The file stays and names the last holder.
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

from dcae_bench.base.errors import MeasurementError

CPU = "cpu"
"""Device name of the processors, which have no UUID."""
POLL_S = 0.2


def folder() -> Path:
    """Folder of the machine's leases: ``$DCAE_BENCH_LEASES``, else ``dcae-bench-leases`` among temporary files.

    All users of a machine share the folder. Containers that share a GPU must share the folder too.
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
    """Hold ``devices`` (GPU UUIDs, or :data:`CPU`) exclusively. CUDA then sees only the leased GPUs.

    Waits up to ``timeout_s`` seconds for another holder and names the holder once through ``say``. Take the lease
    before the first use of a GPU, because CUDA reads ``CUDA_VISIBLE_DEVICES`` when it starts. Raises
    :class:`MeasurementError` after the timeout, and if this process already computes on another GPU.
    """
    gpus = [device for device in devices if device != CPU]
    _require_free_cuda(gpus)
    with ExitStack() as held:
        # All processes lock in the same order, so two of them never wait for each other.
        for device in sorted(set(devices)):
            held.enter_context(_locked(device, timeout_s, say, sleep, now))
        if gpus:
            held.enter_context(_only_visible(",".join(gpus)))
        yield


def holder(device: str) -> str | None:
    """Description of the process that holds a device's lease now; None if the lease is free."""
    path = _path(device)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def choose_gpu(uuids: Sequence[str], visible: str | None, order: str | None) -> str:
    """The UUID of the GPU to lease: the first GPU that ``CUDA_VISIBLE_DEVICES`` names.

    ``uuids`` are NVML's, in PCI order. ``visible`` is ``CUDA_VISIBLE_DEVICES`` and ``order`` is ``CUDA_DEVICE_ORDER``.
    Raises :class:`MeasurementError` if no GPU fits, and for an index where CUDA's order may differ from NVML's.
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
            who = _read_holder(descriptor)
            if now() - begin >= timeout_s:
                raise MeasurementError(
                    f"{device}: is leased by {who}, waited {timeout_s:.0f} s; wait for it to end or end it"
                )
            if not told:
                say(f"{device}: waiting for {who}")
                told = True
            sleep(POLL_S)
        _write_holder(descriptor)
        yield
    finally:
        os.close(descriptor)  # frees the lock


def _open(path: Path) -> int:
    """Open a lock file; create it, for every user of the machine, if it is missing."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o1777)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # First without O_CREAT, which Linux refuses on another user's file in a folder like /tmp.
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


def _write_holder(descriptor: int) -> None:
    """Write this process into the lock file, for processes that wait."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    content = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": command}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode()[:4000], 0)


def _read_holder(descriptor: int) -> str:
    """Description of the process in the lock file."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {content['pid']} since {content['since']} ({content['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _path(device: str) -> Path:
    return folder() / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.lock"


def _require_free_cuda(gpus: Sequence[str]) -> None:
    """Raise :class:`MeasurementError` if CUDA already runs in this process on a GPU that is not in ``gpus``."""
    torch = sys.modules.get("torch")
    if not gpus or torch is None or not torch.cuda.is_initialized():
        return
    used = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    if used not in {gpu.removeprefix("GPU-").removeprefix("MIG-") for gpu in gpus}:
        raise MeasurementError(
            f"{', '.join(gpus)}: CUDA runs on GPU {used} in this process already; take the lease before the first use"
        )


@contextmanager
def _only_visible(uuids: str) -> Iterator[None]:
    """Set ``CUDA_VISIBLE_DEVICES``, and restore it on exit."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = uuids
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
