"""The summary of a run: on what device and by which code and packages the checks ran."""

import importlib.metadata
import multiprocessing
import platform
from collections.abc import Sequence
from typing import Literal

from dcae_bench.gpu_check.outcome import Outcome, Summary
from dcae_bench.records.provenance import RECORDED_VERSIONS, git_state, processor_name

PACKAGES = ("triton", "nvidia-ml-py", "pydantic", *RECORDED_VERSIONS)


def device_name(device: str) -> str | None:
    """Name of the processor or of the first CUDA device; None if there is none.

    Another process asks CUDA, because a process that has asked cannot choose the device of a lease any more.
    """
    if device == "cpu":
        return processor_name()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_cuda_name, args=(theirs,))
    process.start()
    theirs.close()
    try:
        name: str | None = ours.recv()
    except EOFError:
        name = None
    process.join()
    return name


def _send_cuda_name(pipe: "multiprocessing.connection.Connection") -> None:
    import torch

    pipe.send(torch.cuda.get_device_name(0) if torch.cuda.is_available() else None)


def summary_of(device: Literal["cuda", "cpu"], name: str, outcomes: Sequence[Outcome]) -> Summary:
    """The summary of outcomes."""
    return Summary(
        device=device,
        device_name=name,
        commit=git_state()[0],
        versions={"python": platform.python_version(), **_versions()},
        seconds=round(sum(outcome.seconds for outcome in outcomes), 2),
        outcomes=tuple(outcomes),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
