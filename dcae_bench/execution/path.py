"""The choice of a path: the fast way is built, held against eager PyTorch on the first batch, and taken or left."""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.execution.agreement import LIMITS
from dcae_bench.records.path import ComputePath, PathAgreement, PathRequest
from dcae_bench.running.processes import Worker
from dcae_bench.specs.protocols import Precision

Network = TypeVar("Network")
EAGER = ComputePath(name="eager", how="eager PyTorch")


@dataclass(frozen=True)
class Fast(Generic[Network]):
    """A fast way of computing, and what is fast about it, for the record."""

    network: Network
    how: str


@dataclass(frozen=True)
class Chosen(Generic[Network]):
    """What computes from now on, and the path for the record."""

    network: Network
    path: ComputePath


def state_of_path(recipe_sha256: str, path: ComputePath) -> str:
    """Hash of a recipe and the path that computes it, for the state of an unfinished pass: no pass mixes two paths."""
    return recipe_sha256 if path.name == "eager" else sha256_json([recipe_sha256, path.name])


def require_path(found: ComputePath | None, request: PathRequest, folder: Path) -> None:
    """Check that a finished result in ``folder`` took the path that is asked for. Raises :class:`DataError`.

    Results from before there were paths (None) are eager.
    """
    name = found.name if found is not None else "eager"
    if request not in ("auto", name):
        raise DataError(
            f"{folder}: was computed by the {name} path, and --path {request} is asked for; take --path auto or "
            "another folder, or delete this one and run again"
        )


def wants_fast(request: PathRequest, device: torch.device) -> bool:
    """Whether the fast path is to be tried: if asked for, and by default on a GPU."""
    return request == "fast" or (request == "auto" and device.type == "cuda")


def choose_path(
    request: PathRequest,
    device: torch.device,
    eager: Network,
    make_fast: Callable[[], Fast[Network]],
    error_of: Callable[[Network], float],
    *,
    what: str,
    tf32: bool = False,
    precision: Precision = "fp32",
    process: Worker | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Chosen[Network]:
    """Take the fast way if it agrees with ``eager``, in every process; otherwise take ``eager`` and say why.

    ``error_of`` computes the first batch both ways and returns the relative error of the outputs named by ``what``,
    NaN for outputs that are not finite. Its limit is that of timings in the ``precision``; with ``tf32`` both ways
    round their operands, and the limit of fp32 is that of TF32. Raises :class:`ConfigError` where the fast path was
    asked for by name and cannot be taken.
    """
    if not wants_fast(request, device):
        reason: str | None = "asked for" if request == "eager" else "the default without a GPU"
        return Chosen(eager, EAGER.model_copy(update={"reason": reason}))
    fast, agreement, reason = _try(
        make_fast, error_of, what, LIMITS["tf32" if tf32 and precision == "fp32" else precision]
    )
    process = process or Worker()
    if not process.names_everywhere(["fast"] if fast is not None else []):
        fast, reason = None, reason or "another process cannot take the fast path"
    if fast is not None:
        chosen = Chosen(fast.network, ComputePath(name="fast", how=fast.how, agreement=agreement))
        say(f"the path is {chosen.path.described}: {fast.how}")
        return chosen
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if request == "fast":
        raise ConfigError(f"--path fast: cannot be taken: {reason}; use --path auto or --path eager")
    say(f"the path is eager: {reason}")
    return Chosen(eager, EAGER.model_copy(update={"agreement": agreement, "reason": reason}))


def _try(
    make_fast: Callable[[], Fast[Network]], error_of: Callable[[Network], float], what: str, limit: float
) -> tuple[Fast[Network] | None, PathAgreement | None, str | None]:
    """The fast way, its agreement, and the reason why it cannot be taken."""
    try:
        fast = make_fast()
        error = error_of(fast.network)
    except Exception as failed:  # compilers fail in many ways, and eager PyTorch does without them
        return None, None, f"{type(failed).__name__}: {_first_line(failed)}"
    if not math.isfinite(error):
        return None, None, f"{what}: the fast path's hold values that are not finite, or eager PyTorch's are all 0"
    agreement = PathAgreement(what=what, error=error, limit=limit)
    if error > limit:
        return None, agreement, f"{what} differ by {error:.3g}, above {limit:g}"
    return fast, agreement, None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
