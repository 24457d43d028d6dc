"""Plans: many sessions, the most important first, each in a process of its own; what is there already is kept."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field

from dcae_bench.errors import MeasurementError
from dcae_bench.files import write_text
from dcae_bench.measurement.cases import DENOISERS, LATENTS, Case, Latent, usual_resolution
from dcae_bench.measurement.paper_phases import PHASE_WORK, paper
from dcae_bench.measurement.recipes import recipe_for
from dcae_bench.measurement.record import Work, load
from dcae_bench.measurement.statistics import Value
from dcae_bench.provenance import fingerprint

STATE = "plan.json"
_F8, _F32, _F64 = "sd-vae-f8c4-p2", "dc-ae-f32c32-p1", "dc-ae-f64c128-p1"
_ALL = tuple(latent.slug for latent in LATENTS)


class Step(Value):
    """One session of a plan: one network's work on some latent spaces, timed in turn."""

    protocol: str
    denoiser: str | None
    latents: tuple[str, ...]
    work: Work
    resolution: int | None = Field(default=None, description="null: the work's usual one")
    batch: int | None = None
    short: bool = False
    restarts: int | None = Field(default=None, ge=1, description="null: as many as the plan")

    @property
    def side(self) -> int:
        """Side of the images, px."""
        return self.resolution or usual_resolution(self.work)

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases. Raises :class:`MeasurementError`, :class:`ConfigError`."""
        latents = map(Latent.parse, self.latents)
        return tuple(Case(denoiser=self.denoiser, latent=one, resolution=self.side, work=self.work) for one in latents)

    def command(self, output: Path, restart: int) -> list[str]:
        """Arguments of ``dcae-bench`` that run it."""
        words = ["measure", "--protocol", self.protocol, "--work", self.work, "--resolution", str(self.side)]
        words += ["--denoiser", self.denoiser] if self.denoiser else []
        words += [word for latent in self.latents for word in ("--latent", latent)]
        words += ["--batch", str(self.batch)] if self.batch else []
        words += ["--short"] if self.short else []
        return [*words, "--restart", str(restart), "--output", str(output)]


class PlanSpec(Value):
    """Steps in the order of their importance. All are done once before any is restarted."""

    what: str
    steps: tuple[Step, ...]
    restarts: int = Field(ge=1)
    probe: bool = Field(default=False, description="begin with what NVML's counter and power fields answer")

    def jobs(self) -> Iterator[tuple[Step, int]]:
        """Step and number of the restart, in the order in which they run."""
        for restart in range(1, self.restarts + 1):
            for step in self.steps:
                if restart <= (step.restarts or self.restarts):
                    yield step, restart


def _steps(protocol: str, denoiser: str, work: Work, *latents: str, short: bool = False, **more: int | None) -> Step:
    return Step(protocol=protocol, denoiser=denoiser, latents=latents, work=work, short=short, **more)


def _alone(protocol: str, autoencoder: str, work: Work) -> Step:
    return Step(protocol=protocol, denoiser=None, latents=(f"{autoencoder}-p1",), work=work)


def _borrowed() -> tuple[Step, ...]:
    """What a reviewer of the paper's headline wants first. Of UViT-2B no two fit beside each other."""
    main = [("uvit-h", (_F8, _F32, _F64)), ("dit-xl", (_F8, _F32)), ("uvit-s", (_F8, _F64))]
    steps = [
        _steps(protocol, denoiser, work, *latents, short=True)
        for denoiser, latents in main
        for work in ("train", "forward")
        for protocol in ("paper", "tuned")
    ]
    steps += [
        _steps(protocol, "uvit-2b", work, latent, short=True)
        for work in ("train", "forward")
        for protocol in ("paper", "tuned")
        for latent in (_F8, _F64)
    ]
    return tuple(steps)


def _matrix() -> tuple[Step, ...]:
    steps = []
    for protocol in ("paper", "tuned"):
        for denoiser in DENOISERS:
            alone = denoiser == "uvit-2b"
            for work in ("train", "forward"):
                for resolution in (None, 1024, 2048):
                    for group in [(one,) for one in _ALL] if alone else [(_F8, one) for one in _ALL if one != _F8]:
                        steps.append(_steps(protocol, denoiser, work, *group, resolution=resolution))
            for latent in _ALL:
                steps.append(_steps(protocol, denoiser, "forward", latent, batch=2))
                steps.append(_steps(protocol, denoiser, "train", latent, batch=256))
                steps.append(_steps(protocol, denoiser, "sample_decode", latent, batch=16))
        for autoencoder in dict.fromkeys(latent.autoencoder for latent in LATENTS):
            steps += [_alone(protocol, autoencoder, work) for work in ("encode", "decode")]
        for autoencoder in paper().autoencoders:
            steps += [_alone(protocol, autoencoder, work) for work in PHASE_WORK]
    return tuple(dict.fromkeys(steps))


PLANS = {
    "cpu": PlanSpec(
        what="UViT-S at its real size on the processors, f8p2 beside f64p1",
        # A training step takes seconds: one process of it, so that the plan stays within five minutes.
        steps=(
            _steps("cpu", "uvit-s", "forward", _F8, _F64),
            _steps("cpu", "uvit-s", "train", _F8, _F64, restarts=1),
        ),
        restarts=3,
    ),
    "h100-30min": PlanSpec(
        what="the paper's headline on a borrowed H100, with fewer iterations than its protocol",
        steps=_borrowed(),
        restarts=3,
        probe=True,
    ),
    "matrix": PlanSpec(
        what="every network, latent space, resolution and work on a GPU; many hours", steps=_matrix(), restarts=3
    ),
}


def plan_for(name: str) -> PlanSpec:
    """A plan by name. Raises :class:`MeasurementError`."""
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
    """Run what is not there yet, one process a session; the outcome of each by its command.

    ``output`` holds the state after every session, so that a cut loses one session; the same call goes on. Nothing is
    begun after ``budget_s`` seconds, and a session that would outlast them is ended. A session that fails is told and
    does not stop the plan.
    """
    launch = launch or _launch
    begin, outcomes = now(), {}
    jobs = [(step.command(output, restart), _done(step, output, restart)) for step, restart in plan.jobs()]
    if plan.probe:
        path = output / "probe.json"
        jobs.insert(0, (["doctor", "--probe", str(path)], path.exists()))
    for command, done in jobs:
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


def _done(step: Step, output: Path, restart: int) -> bool:
    from dcae_bench.measurement.session import Session

    session = Session(step.cases, recipe_for(step.protocol), output, restart, step.batch)
    code = fingerprint("dcae_bench")
    return all(_is_of(session.path(case), code) for case in step.cases)


def _is_of(path: Path, code: str) -> bool:
    """Whether a record is there and was measured by the code as it is: restarts of other code are not restarts."""
    return path.exists() and load(path).provenance.code_sha256 == code


def _launch(command: list[str], limit_s: float | None) -> int:
    """Run ``dcae-bench`` in a process of its own; below 0 if it was ended for its time."""
    try:
        return subprocess.run([sys.executable, "-m", "dcae_bench", *command], timeout=limit_s).returncode
    except subprocess.TimeoutExpired:
        return -1
