"""Plans: lists of sessions, the most important first. Each session runs in its own process; existing records stay."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.files import sha256_json, write_text
from dcae_bench.base.typed import Strict
from dcae_bench.measurement.record import Work, load
from dcae_bench.measurement.workloads.cases import DENOISERS, LATENTS, Case, Latent, usual_resolution
from dcae_bench.measurement.workloads.paper_phases import PHASE_WORK, paper_architectures
from dcae_bench.measurement.workloads.recipes import recipe_for
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.running.launch import LAUNCHER

STATE = "plan.json"
_F8, _F32, _F64 = "sd-vae-f8c4-p2", "dc-ae-f32c32-p1", "dc-ae-f64c128-p1"
_ALL = tuple(latent.slug for latent in LATENTS)


class PlanStep(Strict):
    """One session of a plan: one kind of work of one network on several latent spaces, timed in turn."""

    protocol: str
    denoiser: str | None
    latents: tuple[str, ...]
    work: Work
    resolution: int | None = Field(default=None, description="side of the images in px; null: the work's default")
    batch: int | None = None
    short: bool = False
    restarts: int | None = Field(default=None, ge=1, description="number of restarts; null: the plan's")

    @property
    def side(self) -> int:
        """Side of the images, px."""
        return self.resolution or usual_resolution(self.work)

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases, one per latent space. Raises :class:`MeasurementError` and :class:`ConfigError`."""
        latents = map(Latent.parse, self.latents)
        return tuple(Case(denoiser=self.denoiser, latent=one, resolution=self.side, work=self.work) for one in latents)

    def command(self, output: Path, restart: int) -> list[str]:
        """Arguments of ``dcae-bench`` that run this session."""
        words = ["measure", "--protocol", self.protocol, "--work", self.work, "--resolution", str(self.side)]
        words += ["--denoiser", self.denoiser] if self.denoiser else []
        words += [word for latent in self.latents for word in ("--latent", latent)]
        words += ["--batch", str(self.batch)] if self.batch else []
        words += ["--short"] if self.short else []
        return [*words, "--restart", str(restart), "--output", str(output)]


class PlanSpec(Strict):
    """Steps in the order of their importance. Every step runs once before any step is restarted."""

    what: str
    steps: tuple[PlanStep, ...]
    restarts: int = Field(ge=1)
    probe: bool = Field(default=False, description="whether the plan starts with a probe of NVML")

    def sessions(self) -> Iterator[tuple[PlanStep, int]]:
        """The sessions in the order in which they run, each as a step and the number of the restart."""
        for restart in range(1, self.restarts + 1):
            for step in self.steps:
                if restart <= (step.restarts or self.restarts):
                    yield step, restart


def _step(protocol: str, denoiser: str, work: Work, *latents: str, short: bool = False, **more: int | None) -> PlanStep:
    return PlanStep(protocol=protocol, denoiser=denoiser, latents=latents, work=work, short=short, **more)


def _autoencoder_step(protocol: str, autoencoder: str, work: Work) -> PlanStep:
    return PlanStep(protocol=protocol, denoiser=None, latents=(f"{autoencoder}-p1",), work=work)


def _headline_steps() -> tuple[PlanStep, ...]:
    """The paper's headline first. Two UViT-2B do not fit in memory together, so each gets its own process."""
    main = [("uvit-h", (_F8, _F32, _F64)), ("dit-xl", (_F8, _F32)), ("uvit-s", (_F8, _F64))]
    steps = [
        _step(protocol, denoiser, work, *latents, short=True)
        for denoiser, latents in main
        for work in ("train", "forward")
        for protocol in ("paper", "tuned")
    ]
    steps += [
        _step(protocol, "uvit-2b", work, latent, short=True)
        for work in ("train", "forward")
        for protocol in ("paper", "tuned")
        for latent in (_F8, _F64)
    ]
    return tuple(steps)


def _matrix_steps() -> tuple[PlanStep, ...]:
    steps = []
    for protocol in ("paper", "tuned"):
        for denoiser in DENOISERS:
            alone = denoiser == "uvit-2b"
            for work in ("train", "forward"):
                for resolution in (None, 1024, 2048):
                    for group in [(one,) for one in _ALL] if alone else [(_F8, one) for one in _ALL if one != _F8]:
                        steps.append(_step(protocol, denoiser, work, *group, resolution=resolution))
            for latent in _ALL:
                steps.append(_step(protocol, denoiser, "forward", latent, batch=2))
                steps.append(_step(protocol, denoiser, "train", latent, batch=256))
                steps.append(_step(protocol, denoiser, "sample_decode", latent, batch=16))
        for autoencoder in dict.fromkeys(latent.autoencoder for latent in LATENTS):
            steps += [_autoencoder_step(protocol, autoencoder, work) for work in ("encode", "decode")]
        for autoencoder in paper_architectures():
            steps += [_autoencoder_step(protocol, autoencoder, work) for work in PHASE_WORK]
    return tuple(dict.fromkeys(steps))


PLANS = {
    "cpu": PlanSpec(
        what="UViT-S at its real size on the processors, f8p2 beside f64p1",
        # A training step takes seconds, so training gets one restart: the plan stays within five minutes.
        steps=(
            _step("cpu", "uvit-s", "forward", _F8, _F64),
            _step("cpu", "uvit-s", "train", _F8, _F64, restarts=1),
        ),
        restarts=3,
    ),
    "h100-30min": PlanSpec(
        what="the paper's headline on a borrowed H100, with fewer iterations than its protocol",
        steps=_headline_steps(),
        restarts=3,
        probe=True,
    ),
    "matrix": PlanSpec(
        what="every network, latent space, resolution and work on a GPU; many hours", steps=_matrix_steps(), restarts=3
    ),
}


def plan_for(name: str) -> PlanSpec:
    """A plan by name. Raises :class:`MeasurementError` if the name is unknown."""
    if name not in PLANS:
        raise MeasurementError(f"--plan {name}: there is no such plan; choose {', '.join(PLANS)}")
    return PLANS[name]


def run_plan(
    plan: PlanSpec,
    output: Path,
    *,
    budget_s: float | None = None,
    say: Callable[[str], None] = lambda _text: None,
    launch: Callable[[list[str], float | None], int] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Run the sessions whose records are missing, each in its own process. Returns each outcome by its command.

    After every session the outcomes are written to ``output``. An interrupted plan loses one session at most; the same
    call continues the plan. After ``budget_s`` seconds no session starts, and a running session is ended. A failed
    session is reported through ``say`` and does not stop the plan.
    """
    launch = launch or _launch
    begin = now()
    outcomes: dict[str, str] = {}
    commands = [(step.command(output, restart), _is_done(step, output, restart)) for step, restart in plan.sessions()]
    if plan.probe:
        path = output / "probe.json"
        commands.insert(0, (["doctor", "--probe", str(path)], path.exists()))
    for command, done in commands:
        key = " ".join(command)
        left = None if budget_s is None else budget_s - (now() - begin)
        if done:
            outcomes[key] = "was there"
        elif left is not None and left <= 0:
            outcomes[key] = "not begun: the time is over"
        else:
            say(key)
            started = now()
            code = launch(command, left)
            result = (
                "measured" if code == 0 else "ended by the plan: the time is over" if code < 0 else f"exit code {code}"
            )
            outcomes[key] = f"{result}, {now() - started:.0f} s"
            say(f"  {outcomes[key]}")
        write_text(output / STATE, json.dumps({"plan": plan.what, "sessions": outcomes}, indent=1) + "\n")
    return outcomes


def _is_done(step: PlanStep, output: Path, restart: int) -> bool:
    from dcae_bench.measurement.session import Session

    session = Session(step.cases, recipe_for(step.protocol), output, restart, step.batch)
    made = fingerprint(Session.__module__), sha256_json(session.configuration)
    return all(_was_made_by(session.path(case), made) for case in step.cases)


def _was_made_by(path: Path, made: tuple[str, str]) -> bool:
    """Whether the record exists and has this code and configuration. Restarts of one measurement must share both."""
    if not path.exists():
        return False
    provenance = load(path).provenance
    return (provenance.code_sha256, provenance.config_sha256) == made


def plan_recipe(name: str) -> list[dict[str, object]]:
    """Everything that shapes the timings of a plan, except code: one configuration for each of its sessions' steps."""
    from dcae_bench.measurement.session import Session

    steps = dict.fromkeys(step for step, _ in plan_for(name).sessions())
    return [Session(step.cases, recipe_for(step.protocol), Path(), batch=step.batch).configuration for step in steps]


def _launch(command: list[str], limit_s: float | None) -> int:
    """Run ``dcae-bench`` in its own process, which ends with this one.

    Returns the exit code; below 0 if the time ran out.
    """
    environment = {**os.environ, LAUNCHER: str(os.getpid())}
    try:
        return subprocess.run(
            [sys.executable, "-m", "dcae_bench", *command], timeout=limit_s, env=environment
        ).returncode
    except subprocess.TimeoutExpired:
        return -1
