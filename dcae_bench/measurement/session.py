"""The session of one process: lease the device, build the cases, time them in turn, write a record of each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from dcae_bench.base.errors import MeasurementError, UserError
from dcae_bench.base.files import write_text
from dcae_bench.measurement.instruments.ceiling import Matmul
from dcae_bench.measurement.instruments.environment import Environment, read_environment
from dcae_bench.measurement.instruments.memory import (
    BatchSearch,
    OutOfMemory,
    catch_out_of_memory,
    largest_batch,
    release_memory,
)
from dcae_bench.measurement.instruments.nvml import Live, Source
from dcae_bench.measurement.instruments.probe import probe
from dcae_bench.measurement.instruments.timing import Clock, CudaClock, HostClock, time_of
from dcae_bench.measurement.record import TRACE_SUFFIX, Restart, ThroughputRecord, derive, save
from dcae_bench.measurement.run import run
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.cases import Case
from dcae_bench.measurement.workloads.costs import timed_model
from dcae_bench.measurement.workloads.job import Job, Ready
from dcae_bench.measurement.workloads.modes import reason_without_tensorrt
from dcae_bench.measurement.workloads.recipes import PAPER, Mode, Recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.provenance import Device, Provenance, Stopwatch, collect, processor_name
from dcae_bench.running.gpus import leased_gpu
from dcae_bench.running.lease import CPU, lease

MEMORY_SHARE = 0.9
"""Share of the GPU's memory for all cases of a session. CUDA's context and the ceiling need the rest."""


@dataclass(frozen=True)
class Session:
    """The cases that one process measures, with their protocol."""

    cases: tuple[Case, ...]
    recipe: Recipe
    output: Path
    restart: int = 1
    batch: int | None = None
    """Batch size; None: the protocol's."""
    mode: Mode | None = None
    """Mode; None: the protocol's."""
    share: int | None = None
    """4: a quarter of the protocol's batch, without a search; None: the protocol's batch."""
    energy: tuple[str, ...] | None = None
    """Latent spaces whose energy is measured on a GPU, which takes longer than most timings; None: all."""

    @property
    def stem(self) -> str:
        """Start of the name of every file that the session writes."""
        return self.recipe.protocol.rpartition("/")[2] + (f".{self.mode}" if self.mode else "")

    @property
    def configuration(self) -> dict[str, object]:
        """The configuration that all restarts of one measurement share."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "cases": [case.recipe for case in self.cases],
            "batch": self.batch,
            "mode": self.mode,
            **({} if self.share is None else {"share": self.share}),
            **({} if self.energy is None else {"energy": list(self.energy)}),
        }

    def path(self, case: Case) -> Path:
        """Path of the record of a case."""
        batch = f".b{self.batch}" if self.batch else f".share{self.share}" if self.share else ""
        return self.output / f"{self.stem}.{case.name}{batch}.r{self.restart}.json"

    def wants_energy(self, case: Case) -> bool:
        """Whether the energy of a case is measured where there is a GPU."""
        return self.energy is None or case.latent.slug in self.energy

    @property
    def trace(self) -> str:
        """File name of the GPU's trace, which lies beside the records."""
        return self.path(self.cases[0]).name.removesuffix(".json") + TRACE_SUFFIX


@dataclass(frozen=True)
class _Built:
    """A case whose workload is ready, or the reason why the workload cannot run."""

    ready: Ready | None
    job: Job
    reason: str | None
    status: Literal["measured", "oom", "skipped"]
    peak_gib: float | None
    search: BatchSearch | None
    setup_s: float | None = None
    """Time of the first call, s; None if there was none yet."""


def measure(session: Session, say: Callable[[str], None] = lambda _text: None) -> list[Path]:
    """Measure the cases and write their records. Returns the records' paths.

    Raises :class:`MeasurementError` if the protocol cannot run on this machine.
    """
    return measure_each([session], say)


def measure_each(sessions: Sequence[Session], say: Callable[[str], None] = lambda _text: None) -> list[Path]:
    """Measure sessions one after the other under one lease of their device. Returns the records' paths.

    Each session writes its records when it ends, and a user's error of one leaves the others alone. Raises
    :class:`MeasurementError` if the protocol cannot run on this machine, and afterwards if sessions failed.
    """
    if len({one.recipe.device for one in sessions}) != 1:
        raise MeasurementError("sessions of one process need protocols of one device; run them apart")
    for session in sessions:
        if len({case.name for case in session.cases}) != len(session.cases):
            raise MeasurementError("the same case is given twice; name each once")
    paths: list[Path] = []
    failed: list[str] = []
    with leased_device(sessions[0].recipe, say) as leased:
        for session in sessions:
            try:
                paths += _measure_on(leased, session, say)
            except UserError as error:
                if len(sessions) == 1:
                    raise
                failed.append(str(error))
                say(f"failed: {error}")
    if failed:
        raise MeasurementError(f"{len(failed)} of {len(sessions)} parts failed: {failed[0]}")
    return paths


def _measure_on(leased: "_Leased", session: Session, say: Callable[[str], None]) -> list[Path]:
    watch = Stopwatch()
    device, clock, source = leased
    built = {}
    for case in session.cases:
        built[case.name] = one = _build_case(case, session, device, clock, len(session.cases))
        say(f"{case.name}: " + (f"ready, batch {one.job.batch}" if one.ready else f"{one.status}: {one.reason}"))
    calls = {name: one.ready.call for name, one in built.items() if one.ready is not None}
    restarts: dict[str, Restart] = {}
    if calls:
        half = "fp16" if "fp16" in session.recipe.precision(session.cases[0]) else "bf16"
        dtype = torch.float32 if device.type == "cpu" else {"fp16": torch.float16, "bf16": torch.bfloat16}[half]
        measured = run(
            calls,
            clock=clock,
            schedule=session.recipe.schedule,
            ceiling=Matmul(dtype, device),
            source=source,
            setup_s={name: one.setup_s for name, one in built.items() if one.setup_s is not None},
            with_energy={case.name for case in session.cases if session.wants_energy(case)},
            peaks_gib={name: one.peak_gib for name, one in built.items() if one.peak_gib is not None},
            trace_file=session.trace,
        )
        built = {name: _checked_again(one) for name, one in built.items()}
        restarts = measured.restarts
        if measured.trace is not None:
            write_text(session.output / session.trace, measured.trace.model_dump_json() + "\n")
    identity = source.identity() if source else None
    paths = []
    for case in session.cases:
        one = built[case.name]
        made = collect(
            code=fingerprint(__name__),
            config=session.configuration,
            seed=one.job.seed,
            device=Device(
                kind=device.type,
                name=(identity.name if identity else None) or processor_name(),
                threads=torch.get_num_threads(),
                precision=one.job.precision,
            ),
            clock=watch,
        )
        record = _record(session, one, restarts.get(case.name), read_environment(identity), made)
        save(record, session.path(case))
        paths.append(session.path(case))
    return paths


_Leased = tuple[torch.device, Clock, Source | None]


@contextmanager
def leased_device(recipe: Recipe, say: Callable[[str], None]) -> Iterator[_Leased]:
    """Lease the protocol's device. Yields the device, its clock and, for a GPU, its NVML source."""
    if recipe.device == "cuda":
        with _leased_gpu(recipe.protocol, say) as leased:
            yield leased
    else:
        with lease([CPU], say=say):
            yield torch.device("cpu"), HostClock(), None


@contextmanager
def _leased_gpu(protocol: str, say: Callable[[str], None]) -> Iterator[tuple[torch.device, Clock, Source]]:
    """Lease a GPU. Nothing uses CUDA before the lease, because CUDA reads the visible devices when it starts."""
    with leased_gpu(say=say) as uuid:
        if not torch.cuda.is_available():
            raise MeasurementError(f"protocol {protocol}: torch sees no GPU; install a CUDA build of torch")
        yield torch.device("cuda"), CudaClock(), Live(uuid, time.perf_counter)


def _build_case(case: Case, session: Session, device: torch.device, clock: Clock, sharing: int) -> _Built:
    """Find the batch of a case and build its workload. Running out of memory is a result, not an error.

    ``sharing`` is the number of cases that share the GPU's memory.
    """
    recipe, mode = session.recipe, session.mode or session.recipe.mode
    if case.work in ("sample", "sample_decode") and mode == "compile+cudagraph":
        mode = "compile"  # sampling cannot be one graph: the sampler computes between the network's passes
    first = (session.batch, "named by the user") if session.batch else recipe.first_batch(case, session.share)
    job = Job(case, recipe, first[0], device, recipe.checkpointing == "full", mode)
    if mode == "trt" and (reason := reason_without_tensorrt()):
        return _Built(None, job, reason, "skipped", None, None)
    with _memory_share(device, sharing):
        search = None
        if recipe.batch == "search" and not session.batch and not session.share and device.type == "cuda":
            job, search = _search_batch(job)
            if job.batch == 0:
                return _Built(None, replace(job, batch=1), "not even one image fits", "oom", None, search)
        while True:
            base = _reset_peak_memory(device)
            made = catch_out_of_memory(partial(_build_warm, job, clock))
            if not isinstance(made, OutOfMemory):
                ready, setup_s = made
                peak = None if device.type == "cpu" else (torch.cuda.max_memory_allocated() - base) / 2**30
                ready = replace(ready, settings={"batch": "searched" if search else first[1], **ready.settings})
                return _Built(ready, job, None, "measured", peak, search, setup_s)
            if search is None or job.batch == 1:
                return _Built(None, job, made.message, "oom", None, search)
            # The search ran in eager mode; a CUDA graph's memory pool may need more.
            job = replace(job, batch=job.batch // 2)


def _checked_again(one: _Built) -> _Built:
    """The case with its error after the timing. Raises :class:`MeasurementError` if it computes garbage by now."""
    if one.ready is None or one.ready.agreement is None or (again := one.ready.agree_again()) is None:
        return one
    agreement = one.ready.agreement.model_copy(update={"error_after": again.error})
    return replace(one, ready=replace(one.ready, agreement=agreement))


def _search_batch(job: Job) -> tuple[Job, BatchSearch]:
    """Find the largest batch that is a power of two and fits; batch 0 if not even one image fits.

    Checkpointing is used only if less than 1/16 of the authors' batch fits without checkpointing.
    """

    def run_twice(batch: int, checkpointing: bool) -> None:
        ready = build_workload(replace(job, batch=batch, checkpointing=checkpointing, mode="eager", check=False))
        for _ in range(2):  # the first iteration allocates the optimiser's state, which the second needs beside it
            ready.call()

    start = max(1, job.batch // 8)
    for checkpointing in (False, True) if job.case.trains else (False,):
        found = largest_batch(partial(run_twice, checkpointing=checkpointing), start=start, limit=job.batch)
        if found.batch and (checkpointing or not job.case.trains or found.batch >= job.batch // 16):
            break
    batch = 2 ** ((found.batch or 0).bit_length() - 1) if found.batch else 0
    return replace(job, batch=batch, checkpointing=checkpointing), found


def _build_warm(job: Job, clock: Clock) -> tuple[Ready, float | None]:
    """Build the job's workload; on a GPU also run it twice, so that its peak of memory is known.

    Returns the workload with the time of its first call, which the warm-up then need not repeat; None without a call.
    """
    ready = build_workload(job)
    if job.device.type == "cpu":
        return ready, None
    setup_s = time_of(ready.call, clock)
    time_of(ready.call, clock)
    return ready, setup_s


@contextmanager
def _memory_share(device: torch.device, sharing: int) -> Iterator[None]:
    """Limit torch to the memory of the built cases and this case's share, so that all cases fit together."""
    if device.type == "cpu":
        yield
        return
    release_memory()
    total = torch.cuda.get_device_properties(device).total_memory
    taken = torch.cuda.memory_reserved() / total
    torch.cuda.set_per_process_memory_fraction(min(taken + MEMORY_SHARE / sharing, 0.97))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _reset_peak_memory(device: torch.device) -> int:
    """Start a new peak of allocated memory. Returns the bytes allocated now; 0 on a CPU."""
    if device.type == "cpu":
        return 0
    release_memory()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _record(
    session: Session, one: _Built, restart: Restart | None, where: Environment, made: Provenance
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
        share=session.share,
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


def probe_gpu(path: Path, say: Callable[[str], None]) -> None:
    """Write what NVML answers on this machine's GPU. Raises :class:`MeasurementError` if there is no GPU."""
    with _leased_gpu(PAPER.protocol, say) as (device, clock, source):
        found = probe(source, Matmul(torch.float16, device), clock)
        write_text(path, found.model_dump_json(indent=1) + "\n")
