"""Plans: lists of sessions, the most important first. Each session is one process."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.typed import Name, Strict
from dcae_bench.measurement.record import Work
from dcae_bench.measurement.workloads.cases import DENOISERS, LATENTS, Case, Latent, usual_resolution
from dcae_bench.measurement.workloads.paper_phases import PHASE_WORK, paper_architectures
from dcae_bench.measurement.workloads.recipes import Effort, recipe_for, with_effort
from dcae_bench.measurement.workloads.stand_ins import stand_in

if TYPE_CHECKING:  # a plan's own process does not need torch, which takes seconds to import
    from dcae_bench.measurement.session import Session

_F8, _F16, _F32, _F64 = "sd-vae-f8c4-p2", "ldm-f16c16-p2", "dc-ae-f32c32-p1", "dc-ae-f64c128-p1"
_F8P4 = "sd-vae-f8c4-p4"
_ALL = tuple(latent.slug for latent in LATENTS)


class PlanStep(Strict):
    """A part of a session: one kind of work of one network on several latent spaces, timed in turn."""

    protocol: str
    denoiser: str | None
    latents: tuple[str, ...]
    work: Work
    resolution: int | None = Field(default=None, description="side of the images in px; null: the work's default")
    batch: int | None = None
    share: int | None = Field(default=None, ge=2, description="4: a quarter of the protocol's batch; null: the whole")
    effort: Effort = "whole"
    energy: tuple[str, ...] | None = Field(
        default=None, description="latent spaces that get an energy window on a GPU; null: all"
    )

    @property
    def side(self) -> int:
        """Side of the images, px."""
        return self.resolution or usual_resolution(self.work)

    @property
    def compiles(self) -> bool:
        """Whether the step compiles a denoiser."""
        return self.denoiser is not None and recipe_for(self.protocol).mode.startswith("compile")

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases, one per latent space. Raises :class:`MeasurementError` and :class:`ConfigError`."""
        latents = map(Latent.parse, self.latents)
        return tuple(Case(denoiser=self.denoiser, latent=one, resolution=self.side, work=self.work) for one in latents)

    def timings(self, output: Path, restart: int) -> "Session":
        """What the step measures and where its records lie. Raises as :attr:`cases` does."""
        from dcae_bench.measurement.session import Session

        recipe = with_effort(recipe_for(self.protocol), self.effort)
        return Session(self.cases, recipe, output, restart, self.batch, share=self.share, energy=self.energy)

    def batch_of(self, case: Case) -> int:
        """Images per iteration, or where the search for them starts. Raises :class:`MeasurementError`."""
        return self.batch or recipe_for(self.protocol).first_batch(case, self.share)[0]


class PlanSession(Strict):
    """What one process measures, step after step. Each step's records are written when it ends."""

    name: Name
    steps: tuple[PlanStep, ...] = Field(min_length=1)
    restarts: int | None = Field(default=None, ge=1, description="number of restarts; null: the plan's")
    ahead: bool = Field(default=True, description="whether its shapes are compiled with those of the other sessions")

    @property
    def compiles(self) -> bool:
        """Whether a step compiles a denoiser."""
        return any(step.compiles for step in self.steps)


class PlanSpec(Strict):
    """Sessions in the order of their importance. Every session runs once before any session is restarted."""

    name: Name
    what: str
    sessions: tuple[PlanSession, ...]
    restarts: int = Field(ge=1)
    compile_ahead: bool = Field(
        default=False,
        description="whether all compiled steps have batches that are known, so that they can be compiled at once",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> "PlanSpec":
        if len({one.name for one in self.sessions}) != len(self.sessions):
            raise ValueError("two sessions have one name; give each its own")
        return self

    def runs(self) -> Iterator[tuple[PlanSession, int]]:
        """The sessions in the order in which they run, each with the number of the restart."""
        for restart in range(1, self.restarts + 1):
            for session in self.sessions:
                if restart <= (session.restarts or self.restarts):
                    yield session, restart

    def session(self, name: str) -> PlanSession:
        """A session by name. Raises :class:`MeasurementError` if the name is unknown."""
        found = next((one for one in self.sessions if one.name == name), None)
        if found is None:
            known = ", ".join(one.name for one in self.sessions[:20])
            raise MeasurementError(f"--session {name}: plan {self.name} has no such session; choose {known}")
        return found

    @property
    def timings(self) -> int:
        """Number of records that the whole plan writes."""
        return sum(len(step.latents) for session, _ in self.runs() for step in session.steps)


def _step(protocol: str, denoiser: str | None, work: Work, *latents: str, **more: object) -> PlanStep:
    return PlanStep.model_validate(
        {"protocol": protocol, "denoiser": denoiser, "latents": latents, "work": work, **more}
    )


def _alone(step: PlanStep, restarts: int | None = None) -> PlanSession:
    """A session of one step, named after all of it."""
    batch = f"b{step.batch}" if step.batch else None
    parts = (step.protocol, step.denoiser, step.work.replace("_", "-"), f"{step.side}px", batch, *step.latents)
    return PlanSession(name=".".join(filter(None, parts)), steps=(step,), restarts=restarts)


# --- one borrowed GPU, a quarter of an hour -------------------------------------------------------------------------

_LEASED = {
    "uvit-h": ((_F8, _F32, _F64), None),
    "dit-xl": ((_F8, _F32), None),
    "uvit-s": ((_F8, _F16, _F32, _F64), None),
    "dit-s": ((_F8, _F8P4, _F32, _F64), 1024),
}
"""Denoisers of the paper's speed tables with their latent spaces and resolution, the headline first."""
_TRAIN_SHARE = {"uvit-h": (8, 16), "dit-xl": (8, 16), "uvit-s": (8, 32), "dit-s": (8, 32)}
_FORWARD_SHARE = 4
"""Parts of the authors' batches, of training under ``paper`` and ``tuned``. Without checkpoints, as under ``tuned``,
UViT-H fills 25 GiB at a sixteenth, and two must fit."""


def _leased_speed(denoiser: str, protocol: str) -> list[PlanStep]:
    """Training and one forward pass. Energy of the headline's training only."""
    latents, side = _LEASED[denoiser]
    share, more = _TRAIN_SHARE[denoiser][protocol == "tuned"], {"resolution": side, "effort": "brief"}
    forward = _step(protocol, denoiser, "forward", *latents, share=_FORWARD_SHARE, energy=(), **more)
    if denoiser != "uvit-h":
        return [_step(protocol, denoiser, "train", *latents, share=share, energy=(), **more), forward]
    # On an H100 at its power limit the six brief blocks of f8p2 were not steady. The headline's pair comes first and
    # alone, because three UViT-H without checkpoints do not fit in memory together.
    headline = _step(protocol, denoiser, "train", _F8, _F64, share=share, **{**more, "effort": "steady"})
    return [headline, forward, _step(protocol, denoiser, "train", _F32, share=share, energy=(), **more)]


def _leased_latency() -> list[PlanStep]:
    """One forward pass at batch 2, as the paper prints its latency."""
    return [
        _step("paper", denoiser, "forward", *latents, batch=2, resolution=side, effort="brief", energy=())
        for denoiser, (latents, side) in _LEASED.items()
    ]


def _leased_memory(denoiser: str) -> list[PlanStep]:
    """Memory of training at batch 256, which the paper prints. Each case has the GPU for itself."""
    latents, side = _LEASED[denoiser]
    return [
        _step("paper", denoiser, "train", latent, batch=256, resolution=side, effort="peak", energy=())
        for latent in reversed(latents)
    ]


def _leased_autoencoders() -> PlanSession:
    works: tuple[Work, ...] = ("encode", "decode", *PHASE_WORK)
    steps = [
        _step("paper", None, work, _F32, _F64, effort="brief", energy=(), share=4 if work in PHASE_WORK else None)
        for work in works
    ]
    return PlanSession(name="dc-ae", steps=tuple(steps))


def _leased() -> tuple[PlanSession, ...]:
    headline = [
        PlanSession(name=f"uvit-h.{protocol}", steps=tuple(_leased_speed("uvit-h", protocol)))
        for protocol in ("paper", "tuned")
    ]
    others = [
        PlanSession(name=name, steps=tuple(_leased_speed(name, "paper") + _leased_speed(name, "tuned")))
        for name in ("dit-xl", "uvit-s")
    ]
    memory = [step for name in _LEASED if name != "dit-s" for step in _leased_memory(name)]
    columns = PlanSession(name="latency-memory", steps=(*_leased_latency(), *memory))
    # DiT-S at 1024 px is the least important: a second lease continues with it.
    last = (*_leased_speed("dit-s", "paper"), *_leased_memory("dit-s"), *_leased_speed("dit-s", "tuned"))
    return (*headline, *others, _leased_autoencoders(), columns, PlanSession(name="dit-s", steps=last, ahead=False))


def _rehearsed(sessions: Iterable[PlanSession]) -> tuple[PlanSession, ...]:
    """The same sessions with tiny stand-ins on the processors. What ``tuned`` does needs a GPU and is left out."""
    found = []
    for session in sessions:
        steps = tuple(map(_on_processors, (step for step in session.steps if step.protocol == "paper")))
        found += [PlanSession(name=session.name.replace(".paper", ""), steps=steps)] if steps else []
    return tuple(found)


def _on_processors(step: PlanStep) -> PlanStep:
    stand_ins = {
        "protocol": "cpu",
        "denoiser": step.denoiser and stand_in(step.denoiser),
        "latents": step.latents if step.denoiser else (f"{stand_in('dc-ae')}-p1",),
        "resolution": 128 if step.denoiser else 32,
        "batch": step.batch and min(step.batch, 4),
        "effort": "rehearsal",
    }
    return step.model_copy(update=stand_ins)


# --- everything -----------------------------------------------------------------------------------------------------


def _matrix() -> tuple[PlanSession, ...]:
    """Every timing as a session of its own. Two UViT-2B do not fit in memory together."""
    steps: list[PlanStep] = []
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
            steps += [_step(protocol, None, work, f"{autoencoder}-p1") for work in ("encode", "decode")]
        for autoencoder in paper_architectures():
            steps += [_step(protocol, None, work, f"{autoencoder}-p1") for work in PHASE_WORK]
    return tuple(map(_alone, dict.fromkeys(steps)))


PLANS = {
    plan.name: plan
    for plan in (
        PlanSpec(
            name="cpu",
            what="UViT-S at its real size on the processors, f8p2 beside f64p1",
            # A training step takes seconds, so training gets one restart: the plan stays within five minutes.
            sessions=(
                _alone(_step("cpu", "uvit-s", "forward", _F8, _F64)),
                _alone(_step("cpu", "uvit-s", "train", _F8, _F64), restarts=1),
            ),
            restarts=3,
        ),
        PlanSpec(
            name="cpu-rehearsal",
            what="the steps of h100-15min under paper, with tiny stand-ins on the processors; its numbers mean nothing",
            sessions=_rehearsed(_leased()),
            restarts=1,
        ),
        PlanSpec(
            name="h100-15min",
            what="the paper's speed tables on a borrowed H100: parts of the batches and fewer iterations",
            sessions=_leased(),
            restarts=3,
            compile_ahead=True,
        ),
        PlanSpec(
            name="matrix",
            what="every network, latent space, resolution and work on a GPU; many hours",
            sessions=_matrix(),
            restarts=3,
        ),
    )
}


def plan_for(name: str) -> PlanSpec:
    """A plan by name. Raises :class:`MeasurementError` if the name is unknown."""
    if name not in PLANS:
        raise MeasurementError(f"--plan {name}: there is no such plan; choose {', '.join(PLANS)}")
    return PLANS[name]


def plan_recipe(name: str) -> list[dict[str, object]]:
    """Everything that shapes the timings of a plan, except code: one configuration for each of its steps."""
    steps = dict.fromkeys(step for session, _ in plan_for(name).runs() for step in session.steps)
    return [step.timings(Path(), 1).configuration for step in steps]
