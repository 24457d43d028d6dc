"""What made a number: code, configuration, versions, device, times."""

import ast
import hashlib
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

from pydantic import BaseModel, ConfigDict, Field

from dcae_bench.files import REPOSITORY, sha256_json

RECORDED_VERSIONS = ("torch", "torchvision", "diffusers", "accelerate", "numpy", "pillow", "scipy", "torchmetrics")


class Device(BaseModel):
    """The machine a number was taken on."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(description="'cpu' or 'cuda'")
    name: str = Field(description="processor or GPU name as the system prints it")
    threads: int = Field(description="CPU threads that torch was given")
    precision: str = Field(description="fp32, bf16 or fp16")
    processes: int = Field(
        default=1, description="processes that shared the work, on a GPU a device of its own for each"
    )

    @property
    def machine(self) -> str:
        """Name, threads and number of processes, as tables print them."""
        shared = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.name}, {self.threads} threads{shared}"


class Provenance(BaseModel):
    """Everything needed to judge, and to repeat, one measurement."""

    model_config = ConfigDict(extra="forbid")

    commit: str | None = Field(description="git commit of the code, null outside a git checkout")
    dirty: bool | None = Field(description="whether tracked files differed from that commit")
    code_sha256: str = Field(description="fingerprint of the package's code, comments and docstrings left out")
    config_sha256: str = Field(description="hash of the resolved part of the profile that the result depends on")
    seed: int
    versions: dict[str, str]
    device: Device
    command: str
    started: datetime
    finished: datetime
    seconds: float = Field(description="wall-clock seconds from start to finish, resumed runs added up")


class Stopwatch:
    """Start time and elapsed seconds of one measurement."""

    def __init__(self, already_s: float = 0.0):
        """Start now; ``already_s`` are seconds spent on the same work before an interruption."""
        self.started = datetime.now(UTC)
        self._start = time.monotonic()
        self._already_s = already_s

    @property
    def seconds(self) -> float:
        """Seconds since the start, plus those of earlier, interrupted runs."""
        return self._already_s + time.monotonic() - self._start


def collect(*, config: object, seed: int, device: Device, clock: Stopwatch) -> Provenance:
    """Gather the provenance of a measurement that ends now. ``config`` is any JSON-serialisable recipe."""
    commit, dirty = git_state()
    return Provenance(
        commit=commit,
        dirty=dirty,
        code_sha256=fingerprint("dcae_bench"),
        config_sha256=sha256_json(config),
        seed=seed,
        versions={"python": platform.python_version(), **_versions()},
        device=device,
        command=command_line(),
        started=clock.started,
        finished=datetime.now(UTC),
        seconds=round(clock.seconds, 3),
    )


def command_line() -> str:
    """The command that this process runs, without the folder it was installed in."""
    name = Path(sys.argv[0]).name
    program = ["python", "-m", "dcae_bench"] if name == "__main__.py" else [name]
    return shlex.join([*program, *sys.argv[1:]])


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Commit hash of the checkout and whether tracked files differ from it; ``(None, None)`` outside git."""
    try:
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


@cache
def fingerprint(*modules: str) -> str:
    """Hash of the code of modules or packages, unmoved by comments, docstrings and layout.

    Snakemake sees only the text of its rules, so each rule carries the fingerprint of the modules that shape its
    result: an edit there, and only there, makes it stale.
    """
    sources: dict[str, str] = {}
    for module in modules:
        root = REPOSITORY.joinpath(*module.split("."))
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root.with_suffix(".py")]:
            sources[path.relative_to(REPOSITORY).as_posix()] = _code_sha256(path.read_text())
    return sha256_json(sources)


@cache
def _code_sha256(source: str) -> str:
    """Hash of one file's code. Rules name the same files many times, and parsing takes seconds."""
    tree = ast.parse(source)
    _drop_docstrings(tree)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant)
            and isinstance(node.body[0].value.value, str)
        ):
            node.body = node.body[1:]


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
