"""The GPUs of a command: those that it may use, and those that it takes for itself."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from typing import Any

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.terminal import printable
from dcae_bench.profile.profile import Profile
from dcae_bench.running.lease import LEASED, lease

_taken = ExitStack()
"""Leases that this process holds to its end."""


def nvml_library() -> Any:
    """NVML's Python binding, initialised. Raises :class:`MeasurementError` if it cannot be used."""
    try:
        import pynvml
    except ImportError as error:
        raise MeasurementError("nvidia-ml-py: is not installed; install it to read a GPU's state") from error
    if not hasattr(pynvml, "_nvmlGetFunctionPointer"):
        raise MeasurementError("pynvml: another package of that name hides nvidia-ml-py; uninstall `pynvml`")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MeasurementError(f"NVML: {error}; a machine with an NVIDIA GPU and its driver is needed") from error
    return pynvml


def text(value: Any) -> str:
    """A text that some versions of the binding return as bytes or inside a structure."""
    return value.decode() if isinstance(value, bytes) else str(getattr(value, "version", value))


def gpus() -> list[str]:
    """UUIDs of this machine's GPUs in PCI order. Raises :class:`MeasurementError` if NVML is missing."""
    n = nvml_library()
    return [text(n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(i))) for i in range(n.nvmlDeviceGetCount())]


def cuda_order() -> str | None:
    """How CUDA numbers the GPUs: ``CUDA_DEVICE_ORDER``, or ``PCI_BUS_ID`` where all are of one kind; None if unknown.

    Raises :class:`MeasurementError` if NVML is missing.
    """
    if said := os.environ.get("CUDA_DEVICE_ORDER"):
        return said
    n = nvml_library()
    names = {text(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(i))) for i in range(n.nvmlDeviceGetCount())}
    return "PCI_BUS_ID" if len(names) == 1 else None


def visible_gpus(uuids: Sequence[str], visible: str | None, order: str | None) -> list[str]:
    """UUIDs of the GPUs that ``CUDA_VISIBLE_DEVICES`` names, in its order; those before the first that is not there.

    ``uuids`` are NVML's, in PCI order. ``visible`` is ``CUDA_VISIBLE_DEVICES`` and ``order`` is ``CUDA_DEVICE_ORDER``.
    Raises :class:`MeasurementError` for a UUID that is not there, and for an index where CUDA's order may differ from
    NVML's.
    """
    if visible is None:
        return list(uuids)
    found: list[str] = []
    for word in (part.strip() for part in visible.split(",")):
        if word.startswith("MIG-"):
            found.append(word)
        elif word.startswith("GPU-"):
            matching = [uuid for uuid in uuids if uuid.startswith(word)]
            if len(matching) != 1:
                raise MeasurementError(f"CUDA_VISIBLE_DEVICES={visible}: no such GPU; there are {', '.join(uuids)}")
            found += matching
        elif not word.isdigit() or int(word) >= len(uuids):
            break  # as CUDA does
        elif len(uuids) > 1 and order != "PCI_BUS_ID":
            raise MeasurementError(
                f"CUDA_VISIBLE_DEVICES={visible}: an index does not tell which GPU, as CUDA's order is not NVML's; "
                f"set CUDA_DEVICE_ORDER=PCI_BUS_ID or name one of {', '.join(uuids)}"
            )
        else:
            found.append(uuids[int(word)])
    return list(dict.fromkeys(found))


def choose_gpu(uuids: Sequence[str], visible: str | None, order: str | None) -> str:
    """The UUID of the GPU of a timing: the first GPU that ``CUDA_VISIBLE_DEVICES`` names.

    Arguments as of :func:`visible_gpus`. Raises :class:`MeasurementError` as it does, and if no GPU fits.
    """
    if not uuids:
        raise MeasurementError("NVML: lists no GPU; a machine with an NVIDIA GPU is needed")
    if not (found := visible_gpus(uuids, visible, order)):
        raise MeasurementError(f"CUDA_VISIBLE_DEVICES={visible}: hides every GPU; name one of {', '.join(uuids)}")
    return found[0]


def gpu_of_timing() -> str:
    """The UUID of the GPU that a timing takes here. Raises :class:`MeasurementError`."""
    return choose_gpu(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"), cuda_order())


@contextmanager
def leased_gpu(say: Callable[[str], None]) -> Iterator[str]:
    """Hold the GPU of a timing; yields its UUID. ``say`` gets the line about waiting. Raises :class:`MeasurementError`.

    A timing does not take any free GPU: its restarts belong together, so they run on the same one.
    """
    uuid = gpu_of_timing()
    with lease([uuid], say=say):
        yield uuid


def usable_gpus() -> list[str]:
    """UUIDs of the GPUs that a command may use here; none without NVML, as on a machine without NVIDIA's driver.

    Raises :class:`MeasurementError` where ``CUDA_VISIBLE_DEVICES`` does not tell which these are.
    """
    try:
        uuids, order = gpus(), cuda_order()
    except MeasurementError:
        return []
    return visible_gpus(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"), order)


def take_gpus(profile: Profile, count: int, *, exactly: bool = False) -> None:
    """Take ``count`` free GPUs, or all usable ones if there are fewer, for this process and those that it starts.

    CUDA then sees no others. Waits while other commands have them, and says so once. The GPUs are free again when the
    last of the processes has ended. Takes none for a profile that computes on processors, on a machine without GPUs,
    where ``exactly`` so many are wanted and fewer are there, and in a process whose command took them. Of processes
    that ``torchrun`` started, the first takes the GPUs of all. Raises :class:`MeasurementError`.
    """
    if profile.device == "cpu" or LEASED in os.environ or not (usable := usable_gpus()):
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each process computes on the GPU with its local rank's number
        if os.environ.get("LOCAL_RANK") != "0":
            return
        count = min(int(os.environ.get("LOCAL_WORLD_SIZE", str(count))), len(usable))
        usable = usable[:count]
    if (exactly and len(usable) < count) or not _torch_has_cuda():
        return
    _taken.enter_context(lease(usable, min(count, len(usable)), timeout_s=inf, say=_say))


def _torch_has_cuda() -> bool:
    import torch

    return torch.version.cuda is not None  # asking whether CUDA is available would start it, before the lease


def _say(line: str) -> None:
    print(printable(f"dcae-bench: {line}"), file=sys.stderr, flush=True)
