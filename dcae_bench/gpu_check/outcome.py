"""Checks and their outcomes, and the summary of a run of all checks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from dcae_bench.base.errors import CheckError
from dcae_bench.base.typed import Strict

Status = Literal["ok", "failed", "skipped"]


class Skip(Exception):
    """Raised by a check that cannot run here; the message is the reason."""


def require(holds: bool, said: str) -> None:
    """Raise :class:`CheckError` with ``said`` unless something holds."""
    if not holds:
        raise CheckError(said)


def within(what: str, error: float, limit: float) -> str:
    """What was compared, with its error and limit. Raises :class:`CheckError` for an error above the limit, or NaN."""
    said = f"{what}: error {error:.2g}, limit {limit:g}"
    require(error <= limit, said)
    return said


@dataclass(frozen=True)
class Check:
    """One check. ``run`` takes the kind of device, cuda or cpu, and an empty folder, and returns what it found.

    ``run`` is a function of a module, because a process of its own calls it. It raises :class:`Skip` where it cannot
    run, and any other exception where something is wrong.
    """

    name: str
    run: Callable[[str, Path], str]
    gpu_only: bool = False
    """Whether it is skipped on a CPU."""
    alone: bool = False
    """Whether it needs a process in which nothing has used the GPU."""
    needs: tuple[str, ...] = ()
    """Distributions that must be installed, beside torch and what the harness always imports."""
    limit_s: float = 60.0
    instrument: bool = False
    """Whether other checks rest on what it tries, so that it runs before them."""


class Outcome(Strict):
    """What became of one check."""

    name: str
    status: Status
    seconds: float = Field(ge=0)
    said: str = Field(description="what the check found; for a failed one the error, for a skipped one the reason")

    printed: str | None = Field(default=None, description="end of what a failed check printed, with its traceback")

    @property
    def line(self) -> str:
        """One line for the terminal."""
        return f"{self.status:<8}{self.name:<30}{self.seconds:6.1f} s  {self.said}"


class Summary(Strict):
    """The outcomes of all checks, for a file."""

    version: Literal[1] = 1
    device: Literal["cuda", "cpu"]
    device_name: str
    commit: str | None
    versions: dict[str, str] = Field(description="of python, torch and the harness's packages that are installed")
    seconds: float
    outcomes: tuple[Outcome, ...]

    def count(self, status: Status) -> int:
        """Number of checks with this outcome."""
        return sum(outcome.status == status for outcome in self.outcomes)
