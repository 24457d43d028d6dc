"""Provenance of a result: code, configuration, library versions, device and times."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import Field

from dcae_bench.base.files import REPOSITORY, sha256_json
from dcae_bench.base.typed import Sha256, Strict

RECORDED_VERSIONS = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",  # whose encoders diffusers' AutoencoderRAE computes with
    "accelerate",
    "numpy",
    "pillow",
    "scipy",
    "torchmetrics",
)


class Device(Strict):
    """The machine that produced a result."""

    kind: str = Field(description="'cpu' or 'cuda'")
    name: str = Field(description="processor or GPU name as the system prints it")
    threads: int = Field(description="CPU threads that torch was given")
    precision: str = Field(description="fp32, bf16 or fp16")
    processes: int = Field(default=1, description="processes that shared the work; on GPUs, each has its own")

    @property
    def machine(self) -> str:
        """Name, number of threads and number of processes, as tables print them."""
        shared = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.name}, {self.threads} threads{shared}"


class Provenance(Strict):
    """Everything that a reader needs to judge and repeat one measurement."""

    commit: str | None = Field(description="git commit of the code; null outside a git checkout")
    dirty: bool | None = Field(description="whether tracked files differed from that commit")
    code_sha256: str = Field(
        description="fingerprint of the modules that shape the result, without their comments and texts"
    )
    config_sha256: str = Field(description="hash of the recipe: the part of the profile that the result depends on")
    recipe_sha256: Sha256 | None = Field(
        default=None,
        description="hash of what the profile alone asks for, without data, weights and code; null: not stated",
    )
    seed: int
    versions: dict[str, str]
    device: Device
    command: str
    started: datetime
    finished: datetime
    seconds: float = Field(description="wall-clock seconds from start to finish, summed over resumed runs")


class Stopwatch:
    """Start time and elapsed wall-clock seconds of one measurement."""

    def __init__(self, already_s: float = 0.0):
        """Start now. ``already_s`` are the seconds that earlier, interrupted runs spent on the same work."""
        self.started = datetime.now(UTC)
        self._start = time.monotonic()
        self._already_s = already_s

    @property
    def seconds(self) -> float:
        """Seconds since the start, plus the seconds of earlier, interrupted runs."""
        return self._already_s + time.monotonic() - self._start


def collect(
    *, code: str, config: object, seed: int, device: Device, clock: Stopwatch, recipe: object | None = None
) -> Provenance:
    """Gather the provenance of a measurement that ends now.

    ``code`` is the fingerprint of the module that measured; ``config`` is everything that shaped the result, and
    ``recipe`` the part of it that a profile alone tells; both are any JSON-serialisable value.
    """
    commit, dirty = git_state()
    return Provenance(
        commit=commit,
        dirty=dirty,
        code_sha256=code,
        config_sha256=sha256_json(config),
        recipe_sha256=None if recipe is None else sha256_json(recipe),
        seed=seed,
        versions={"python": platform.python_version(), **_versions()},
        device=device,
        command=command_line(),
        started=clock.started,
        finished=datetime.now(UTC),
        seconds=round(clock.seconds, 3),
    )


def command_line() -> str:
    """Command line of this process, without the folder of the program."""
    name = Path(sys.argv[0]).name
    program = ["python", "-m", "dcae_bench"] if name == "__main__.py" else [name]
    return shlex.join([*program, *sys.argv[1:]])


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout, and whether tracked files differ from the commit; ``(None, None)`` outside git.

    A copy of this code inside another repository counts as outside git: that repository's commit does not describe
    this code.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != REPOSITORY:
            return None, None
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def processor_name() -> str:
    """Name and core count of the CPU, as Linux prints them."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()
