"""One process's session: lease the device, build the cases, time them in turn, write a record of each."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dcae_bench.errors import MeasurementError
from dcae_bench.files import write_text
from dcae_bench.measurement.cases import Case
from dcae_bench.measurement.ceiling import Matmul
from dcae_bench.measurement.costs import timed_model
from dcae_bench.measurement.environment import environment
from dcae_bench.measurement.job import Job, Ready
from dcae_bench.measurement.lease import CPU, choose_gpu, lease
from dcae_bench.measurement.memory import BatchSearch, OutOfMemory, attempt, largest_batch, release
from dcae_bench.measurement.modes import no_tensorrt
from dcae_bench.measurement.nvml import Live, Source, gpus
from dcae_bench.measurement.probe import probe
from dcae_bench.measurement.recipes import PAPER, Mode, Recipe
from dcae_bench.measurement.record import TRACE_SUFFIX, Restart, ThroughputRecord, derive, save
from dcae_bench.measurement.run import run
from dcae_bench.measurement.timing import Clock, CudaClock, HostClock
from dcae_bench.measurement.workloads import prepare
from dcae_bench.provenance import Device, Provenance, Stopwatch, collect, processor_name

MEMORY_SHARE = 0.9
"""Part of the GPU's memory that the cases of one session share; the rest is the context's and the ceiling's."""


@dataclass(frozen=True)
class Session:
    """What one process measures, and how."""

    cases: tuple[Case, ...]
    recipe: Recipe
    output: Path
    restart: int = 1
    batch: int | None = None
    """None: as the protocol says."""
    mode: Mode | None = None
    """None: the protocol's."""

    @property
    def stem(self) -> str:
        """Beginning of every file name."""
        return self.recipe.protocol.rpartition("/")[2] + (f".{self.mode}" if self.mode else "")

    def path(self, case: Case) -> Path:
        """The record of one case."""
        batch = f".b{self.batch}" if self.batch else ""
        return self.output / f"{self.stem}.{case.name}{batch}.r{self.restart}.json"

    @property
    def trace(self) -> str:
        """Name of the GPU's trace, beside the records."""
        return self.path(self.cases[0]).name.removesuffix(".json") + TRACE_SUFFIX


@dataclass(frozen=True)
class _Built:
    """A case that stands ready, or why it does not."""

    ready: Ready | None
    job: Job
    reason: str | None
    status: str
    peak_gib: float | None
    search: BatchSearch | None


def measure(session: Session, say: Callable[[str], None] = lambda _text: None) -> list[Path]:
    """Measure and save; the records' paths. Raises :class:`MeasurementError` where the protocol cannot run here."""
    if len({case.name for case in session.cases}) != len(session.cases):
        raise MeasurementError("the same case is given twice; name each once")
    watch = Stopwatch()
    with _device(session.recipe, say) as (device, clock, source):
        built = {}
        for case in session.cases:
            built[case.name] = one = _build(case, session, device, len(session.cases))
            say(f"{case.name}: " + (f"ready, batch {one.job.batch}" if one.ready else f"{one.status}: {one.reason}"))
        ready = {name: one for name, one in built.items() if one.ready}
        restarts: dict[str, Restart] = {}
        if ready:
            half = "fp16" if "fp16" in session.recipe.precision(session.cases[0]) else "bf16"
            dtype = torch.float32 if device.type == "cpu" else {"fp16": torch.float16, "bf16": torch.bfloat16}[half]
            measured = run(
                {name: one.ready.call for name, one in ready.items()},
                clock=clock,
                plan=session.recipe.plan,
                ceiling=Matmul(dtype, device),
                source=source,
                peaks_gib={name: one.peak_gib for name, one in ready.items() if one.peak_gib is not None},
                trace_file=session.trace,
            )
            restarts = measured.restarts
            if measured.trace is not None:
                write_text(session.output / session.trace, measured.trace.model_dump_json() + "\n")
        identity = source.identity() if source else None
        paths = []
        for case in session.cases:
            one = built[case.name]
            made = collect(
                config=_recipe_of(session),
                seed=one.job.seed,
                device=Device(
                    kind=device.type,
                    name=(identity.name if identity else None) or processor_name(),
                    threads=torch.get_num_threads(),
                    precision=one.job.precision,
                ),
                clock=watch,
            )
            record = _record(session, one, restarts.get(case.name), environment(identity), made)
            save(record, session.path(case))
            paths.append(session.path(case))
    return paths


@contextmanager
def _device(recipe: Recipe, say: Callable[[str], None]) -> Iterator[tuple[torch.device, Clock, Source | None]]:
    """The leased device with its clock and, of a GPU, NVML; nothing of CUDA is asked before the lease."""
    if recipe.device != "cuda":
        with lease([CPU], say=say):
            yield torch.device("cpu"), HostClock(), None
        return
    uuid = choose_gpu(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER"))
    with lease([uuid], say=say):
        if not torch.cuda.is_available():
            raise MeasurementError(f"protocol {recipe.protocol}: torch sees no GPU; install a CUDA build of torch")
        yield torch.device("cuda"), CudaClock(), Live(uuid, time.perf_counter)


def _build(case: Case, session: Session, device: torch.device, sharing: int) -> _Built:
    """Find the batch and build; out of memory is a result."""
    recipe, mode = session.recipe, session.mode or session.recipe.mode
    if case.work in ("sample", "sample_decode") and mode == "compile+cudagraph":
        mode = "compile"  # a sampler's steps lie between the passes: its networks are compiled, not one graph
    first = (session.batch, "named by the user") if session.batch else recipe.first_batch(case)
    job = Job(case, recipe, first[0], device, recipe.checkpointing == "full", mode)
    if mode == "trt" and (reason := no_tensorrt()):
        return _Built(None, job, reason, "skipped", None, None)
    with _memory_of_its_own(device, sharing):
        search = None
        if recipe.batch == "search" and not session.batch and device.type == "cuda":
            job, search = _searched(job)
            if job.batch == 0:
                return _Built(None, replace(job, batch=1), "not even one image fits", "oom", None, search)
        while True:
            base = _allocated(device)
            made = attempt(lambda job=job: _warm(job))
            if not isinstance(made, OutOfMemory):
                peak = None if device.type == "cpu" else (torch.cuda.max_memory_allocated() - base) / 2**30
                ready = replace(made, settings={"batch": "searched" if search else first[1], **made.settings})
                return _Built(ready, job, None, "measured", peak, search)
            if search is None or job.batch == 1:
                return _Built(None, job, made.message, "oom", None, search)
            job = replace(job, batch=job.batch // 2)  # a graph's own pool may need more than the search found


def _searched(job: Job) -> tuple[Job, BatchSearch]:
    """The largest power of two that fits, without checkpointing where at least 1/16 of the authors' batch does."""

    def run_twice(batch: int, checkpointing: bool) -> None:
        ready = prepare(replace(job, batch=batch, checkpointing=checkpointing, mode="eager", check=False))
        for _ in range(2):  # the optimiser's state is there from the second
            ready.call()

    start = max(1, job.batch // 8)
    for checkpointing in (False, True) if job.case.trains else (False,):
        found = largest_batch(lambda b, c=checkpointing: run_twice(b, c), start=start, limit=job.batch)
        if found.batch and (checkpointing or not job.case.trains or found.batch >= job.batch // 16):
            break
    batch = 2 ** ((found.batch or 0).bit_length() - 1) if found.batch else 0
    return replace(job, batch=batch, checkpointing=checkpointing), found


def _warm(job: Job) -> Ready:
    ready = prepare(job)
    for _ in range(2 if job.device.type == "cuda" else 0):
        ready.call()
    if job.device.type == "cuda":
        torch.cuda.synchronize()
    return ready


@contextmanager
def _memory_of_its_own(device: torch.device, sharing: int) -> Iterator[None]:
    """Let a case take its share beside those that are built already, so that all of them fit at once."""
    if device.type == "cpu":
        yield
        return
    release()
    total = torch.cuda.get_device_properties(device).total_memory
    taken = torch.cuda.memory_reserved() / total
    torch.cuda.set_per_process_memory_fraction(min(taken + MEMORY_SHARE / sharing, 0.97))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _allocated(device: torch.device) -> int:
    if device.type == "cpu":
        return 0
    release()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _record(
    session: Session, one: _Built, restart: Restart | None, where: object, made: Provenance
) -> ThroughputRecord:
    model, flops = timed_model(one.job.case)
    batch = one.job.batch
    return ThroughputRecord(
        protocol=session.recipe.protocol,
        model=model,
        work=one.job.case.work,
        mode=one.job.mode,
        precision=one.job.precision,
        batch=batch,
        images_per_iteration=batch,
        flops_per_image=flops,
        settings=one.ready.settings if one.ready else {},
        agreement=one.ready.agreement if one.ready else None,
        status=one.status,
        reason=one.reason,
        derived=derive([restart], batch, flops) if restart else None,
        restarts=(restart,) if restart else (),
        search=one.search,
        environment=where,
        provenance=made,
    )


def _recipe_of(session: Session) -> dict:
    """What restarts of the same measurement have in common."""
    return {
        "recipe": session.recipe.model_dump(mode="json"),
        "cases": [case.name for case in session.cases],
        "batch": session.batch,
        "mode": session.mode,
    }


def probe_gpu(path: Path, say: Callable[[str], None]) -> None:
    """Write what NVML answers on this machine's GPU. Raises :class:`MeasurementError` where there is none."""
    with _device(PAPER, say) as (device, clock, source):
        found = probe(source, Matmul(torch.float16, device), clock)
        write_text(path, found.model_dump_json(indent=1) + "\n")
