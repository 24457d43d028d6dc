"""The estimate of a plan's seconds on one H100, from what its first measurements there took.

The constants follow from ``results/reference/h100-2026-11-27`` (a test derives them again): two cases in each session,
whose networks were still built on the processor. The estimate is for planning; no number in a table rests on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from dcae_bench.measurement.plans import PlanSession, PlanStep
from dcae_bench.measurement.workloads.cases import Case
from dcae_bench.measurement.workloads.recipes import recipe_for, with_effort
from dcae_bench.models.cost import denoiser_cost
from dcae_bench.specs.denoisers import DenoiserSpec

RATES = {
    ("paper", "train"): 272e12,
    ("paper", "forward"): 358e12,
    ("tuned", "train"): 366e12,
    ("tuned", "forward"): 419e12,
}
"""Operations per second of UViT-H on f8p2, by protocol and work; recomputation is not counted."""
NARROW, NARROW_RATE = 1024, 0.6
"""Networks below this width reach about this part of a rate: the paper's UViT-S has 0.66 of its UViT-H's."""
IMAGES_PER_S = {"encode": 151.0, "decode": 103.0, "phase": 18.3}
"""Images/s of DC-AE f32c32 at 512 px, eager bf16: one pass, and one training step."""
LAUNCHES_S = 0.015
"""Shortest iteration in eager mode, which the launches of its kernels take."""
START_S = 24.0
"""Before a process's first network and after its last: Python, torch, CUDA, NVML, records. A session of six rows was
outside of timing for 35 s (``results/reference/h100-2026-11-27-second/plan.json``)."""
BUILD_S = 1.0
"""A network on the GPU with its inputs, and the copies of a first check."""
COMPILE_S = {"train": 19.0, "forward": 9.5}
"""Compiling, capturing and checking one shape of ``tuned`` from nothing, on all processors."""
LOAD_S = {"train": 5.0, "forward": 3.5}
"""The same with compiled code on disk. Not of the H100: a processor's seconds for UViT-S, 46 and 19 from nothing."""
CHECKED = {"train": 30, "forward": 10}
"""Iterations of capture and checks, before the timing and after it."""
PROCESSORS, SLOWER = 16, 2.0
"""Processors of the borrowed machine, and how much longer a shape takes that has only one of them: an assumption."""
ENERGY_S = 12.0
"""An energy window of 10 s with its lead-in and the wait for the counter."""
SETTLING = 1.5
"""Iterations of a warm-up over the fewest that its schedule asks for."""


@dataclass(frozen=True)
class Seconds:
    """Estimated seconds of a session."""

    timing: float
    """Warm-ups, blocks and energy windows."""
    other: float
    """Start, networks, compilation and checks."""

    @property
    def all(self) -> float:
        """The session's seconds."""
        return self.timing + self.other


def session_seconds(session: PlanSession) -> Seconds | None:
    """Estimate a session on one H100; None where nothing measured there says how fast its work is."""
    timing, other = 0.0, START_S
    for step in session.steps:
        found = _step(step)
        if found is None:
            return None
        timing, other = timing + found.timing, other + found.other
    return Seconds(timing, other)


def ahead_seconds(shapes: Sequence[str]) -> float:
    """Seconds of compiling the shapes of these works ahead: as many at once as there are processors."""
    longest = sorted((SLOWER * COMPILE_S["train" if work == "train" else "forward"] for work in shapes), reverse=True)
    return START_S + sum(longest[::PROCESSORS])


def _step(step: PlanStep) -> Seconds | None:
    schedule = with_effort(recipe_for(step.protocol), step.effort).schedule
    block_s = 1.1 * schedule.block_s  # blocks are planned a tenth longer than asked for
    timing, other = schedule.warm_up_s + schedule.blocks * block_s, 0.0  # the ceiling's
    shapes: set[tuple[int, int]] = set()
    for case in step.cases:
        iteration_s = _iteration_s(step, case)
        if iteration_s is None:
            return None
        settling = SETTLING if step.effort != "peak" else 1.0  # it tolerates what others wait for
        warm_up_s = settling * max(schedule.warm_up_iterations * iteration_s, schedule.warm_up_s)
        timing += warm_up_s + schedule.blocks * max(block_s, schedule.block_iterations * iteration_s)
        timing += ENERGY_S if step.energy is None or case.latent.slug in step.energy else 0
        other += BUILD_S + 2 * iteration_s
        if step.protocol == "tuned":
            kind = "train" if case.trains else "forward"
            shape = (case.space.tokens, step.batch_of(case))
            load_s = LOAD_S[kind] if step.compiles else COMPILE_S[kind]
            other += CHECKED[kind] * iteration_s + (load_s if shape not in shapes else 0)
            shapes.add(shape)  # equal shapes of a process share compiled code
    return Seconds(timing, other)


@cache
def _gmacs(spec: DenoiserSpec) -> float:
    return denoiser_cost(spec).gmacs


def _iteration_s(step: PlanStep, case: Case) -> float | None:
    batch = step.batch_of(case)
    if recipe_for(step.protocol).device != "cuda":
        return None
    if case.denoiser is None:
        kind = "phase" if case.trains else case.work
        return batch * (case.resolution / 512) ** 2 / IMAGES_PER_S[kind] if kind in IMAGES_PER_S else None
    if (step.protocol, case.work) not in RATES:
        return None
    rate = RATES[step.protocol, case.work] * (NARROW_RATE if case.spec.width < NARROW else 1)
    operations = (6e9 if case.trains else 2e9) * _gmacs(case.spec) * batch
    return max(operations / rate, LAUNCHES_S if step.protocol == "paper" else 0.0)
