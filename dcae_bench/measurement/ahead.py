"""Compiling ahead: all shapes of a plan at once, each in a process of its own, before a session that needs them.

Compilation keeps one processor busy and the GPU idle. torch keeps compiled code on disk by the graph that it came from,
and the blocks of a network have few graphs: a network of four blocks gives the code of the whole one.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.plans import PlanSpec, PlanStep
from dcae_bench.measurement.session import leased_device
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.cases import Case
from dcae_bench.measurement.workloads.job import Job
from dcae_bench.measurement.workloads.recipes import recipe_for
from dcae_bench.running.launch import LAUNCHER
from dcae_bench.specs.denoisers import DenoiserSpec

DEPTH = 4
"""Blocks of a shallow denoiser. Under autocast the first block gets another type than the second, and a UViT has such
a pair on both sides of its middle."""
LIMIT_S = 150.0
"""Seconds after which a shape is left to the session that needs it."""
ALONE = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_AUTOTUNE_LOCAL_CACHE": "0"}
"""The processes share processors and GPU. Which variant of a kernel is the fastest, a session finds out alone."""


class Shallow(Case):
    """A case whose denoiser has :data:`DEPTH` blocks, with the shapes of all of them."""

    @property
    def spec(self) -> DenoiserSpec:
        """Spec of the shallow denoiser. Raises as :attr:`Case.spec` does."""
        return super().spec.model_copy(update={"depth": DEPTH})


class Shape(NamedTuple):
    """A case of a step; other cases of its session may need the same code."""

    step: PlanStep
    case: Case


def shapes(plan: PlanSpec) -> list[Shape]:
    """Every shape that sessions of a plan compile, once. Raises as :attr:`PlanStep.cases` does."""
    found: dict[tuple, Shape] = {}
    for step in dict.fromkeys(step for session in plan.sessions if session.ahead for step in session.steps):
        if not step.compiles:
            continue
        for case in step.cases:
            key = (step.protocol, step.denoiser, step.work, case.space.tokens, step.batch_of(case))
            found.setdefault(key, Shape(step, case))
    return list(found.values())


def compile_shape(shape: Shape, device: torch.device) -> None:
    """Compile the blocks of one shape in this process, into the folders that torch keeps its code in."""
    step, case = shape
    recipe = recipe_for(step.protocol)
    shallow = Shallow.model_validate(case.model_dump())
    build_workload(Job(shallow, recipe, step.batch_of(case), device, mode="compile", check=False)).call()
    if device.type == "cuda":
        torch.cuda.synchronize()


def compile_ahead(plan: PlanSpec, say: Callable[[str], None] = lambda _text: None) -> int:
    """Compile all shapes of a plan, as many at once as there are processors. Returns how many were compiled.

    A shape that fails is said and left to its session. Raises :class:`MeasurementError` if the device cannot be leased.
    """
    wanted = shapes(plan)
    if not wanted:
        return 0
    with leased_device(recipe_for(wanted[0].step.protocol), say):
        commands = [["measure", "--plan", plan.name, "--compile-shape", str(number)] for number in range(len(wanted))]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            codes = list(pool.map(_run, commands))
    for shape, code in zip(wanted, codes, strict=True):
        if code:
            say(f"{shape.case.name}: was not compiled ahead ({code})")
    return codes.count("")


def _run(words: Sequence[str]) -> str:
    """Run ``dcae-bench`` in its own process. Returns what went wrong; empty if nothing did."""
    environment = {**os.environ, **ALONE, LAUNCHER: str(os.getpid())}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dcae_bench", *words, "--output", "."],
            timeout=LIMIT_S,
            env=environment,
            capture_output=True,
            text=True,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return str(error)
    return "" if done.returncode == 0 else next(iter(done.stderr.splitlines()[-1:]), f"exit code {done.returncode}")


def compile_numbered(plan: PlanSpec, number: int) -> None:
    """Compile one shape of a plan in this process, whose parent leased the GPU. Raises :class:`MeasurementError`."""
    wanted = shapes(plan)
    if not 0 <= number < len(wanted):
        raise MeasurementError(f"--compile-shape {number}: plan {plan.name} has {len(wanted)} shapes")
    shape = wanted[number]
    compile_shape(shape, torch.device(recipe_for(shape.step.protocol).device))
