"""The diagnosis of a machine: which measurements can be believed here, and why."""

import importlib.metadata
import importlib.util
import os
import shutil
import time
from dataclasses import asdict, dataclass
from typing import Literal

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.instruments import host, nvml
from dcae_bench.measurement.instruments.gate import FOREIGN_CPUS, THERMAL
from dcae_bench.records.provenance import processor_name
from dcae_bench.running.gpus import gpu_of_timing
from dcae_bench.running.lease import CPU, holder

Verdict = Literal["good", "note", "limits"]
Answer = Literal["yes", "limited", "no"]


@dataclass(frozen=True)
class Finding:
    """One fact about the machine, and its meaning for a measurement."""

    topic: str
    found: str
    verdict: Verdict
    meaning: str


@dataclass(frozen=True)
class Worth:
    """Whether one kind of number can be believed on this machine in its present state."""

    number: str
    worth: Answer
    why: str


@dataclass(frozen=True)
class Diagnosis:
    """The findings, and which numbers can be believed because of them."""

    findings: tuple[Finding, ...]
    worth: tuple[Worth, ...]

    def as_json(self) -> dict[str, object]:
        """The diagnosis as plain values."""
        return asdict(self)


def examine(seconds: float = 1.0) -> Diagnosis:
    """Examine the machine without changing it. Other work is watched for ``seconds``."""
    findings = [*_processors(seconds), *_torch()]
    gpu, source = _gpu()
    findings += gpu
    return Diagnosis(tuple(findings), tuple(_worth(findings, source)))


def gpu_findings(source: nvml.Source, pid: int) -> list[Finding]:
    """Findings about a GPU from NVML, before a measurement by process ``pid``."""
    identity, sample = source.identity(), source.sample()
    found = [Finding("GPU", f"{identity.name or 'unknown'}, {identity.uuid}", "good", "its records hold this UUID")]
    if identity.mig:
        found.append(Finding("MIG", "on", "limits", "a slice is timed, others share its power; energy is null"))
    else:
        found.append(
            Finding("MIG", _on_or_off(identity.mig), "good" if identity.mig is False else "note", "energy per GPU")
        )
    meaning = "otherwise the driver may unload between runs, and the first calls take longer"
    found.append(
        Finding("persistence", _on_or_off(identity.persistence), "good" if identity.persistence else "note", meaning)
    )
    limit, default = identity.power_limit_w, identity.power_default_w
    lowered = limit is not None and default is not None and limit < default
    text = f"{limit or '?'} W of {default or '?'} W by default"
    found.append(Finding("power limit", text, "note" if lowered else "good", "printed beside each number"))
    bits = sample.reasons
    names = "not told" if bits is None else ", ".join(n for bit, n in nvml.REASONS.items() if bits & bit) or "none"
    slowed = bits is None or bool(bits & (THERMAL | nvml.POWER_BRAKE | nvml.HARDWARE_SLOWDOWN))
    meaning = "a slowdown for heat or by a brake degrades a timing"
    found.append(Finding("throttling now", names, "limits" if slowed else "good", meaning))
    if sample.energy_mj is None:
        reason = sample.unavailable.get("energy_mj", "no value")
        found.append(Finding("energy counter", reason, "limits", "energy is null, never 0"))
    else:
        found.append(Finding("energy counter", "answers", "good", "windows of 10 s or more"))
    others = [process.pid for process in sample.processes or () if process.pid != pid]
    if sample.processes is None:
        found.append(Finding("GPU processes", "not told", "note", "others would not be seen"))
    elif others:
        text = ", ".join(map(str, others))
        found.append(Finding("GPU processes", text, "limits", "a timing beside other processes is degraded"))
    else:
        found.append(Finding("GPU processes", "none", "good", "looked at again before, during and after a timing"))
    return found


def _processors(seconds: float) -> list[Finding]:
    before = host.read_state()
    time.sleep(seconds)
    seen = host.activity_between(before, host.read_state())
    found = [Finding("processor", processor_name(), "good", f"{seen.cpus} may be used")]
    governor, turbo = host.governor(), host.turbo()
    steady = governor in (None, "performance")
    meaning = "another than 'performance' lets clocks follow the load" if governor else "virtual machines hide it"
    text = f"governor {governor or 'not told'}, turbo {_on_or_off(turbo)}"
    found.append(Finding("clocks", text, "good" if steady and governor else "note", meaning))
    if seen.foreign_cpus is None:
        found.append(Finding("other work", "not told", "note", "a busy machine would not be noticed"))
    else:
        busy = seen.foreign_cpus > FOREIGN_CPUS * seen.cpus
        text = f"{seen.foreign_cpus:.2f} of {seen.cpus} processors, load {os.getloadavg()[0]:.1f}"
        meaning = f"above {FOREIGN_CPUS * seen.cpus:.1f} a timing on the CPU is degraded"
        found.append(Finding("other work", text, "limits" if busy else "good", meaning))
    if seen.throttled_s:
        text = f"held back {seen.throttled_s:.2f} s in {seen.seconds:.1f} s"
        found.append(Finding("CPU quota", text, "limits", "the container's quota stops threads"))
    who = holder(CPU)
    found.append(Finding("lease", who or "free", "note" if who else "good", "one timing at a time on a device"))
    return found


def _torch() -> list[Finding]:
    import torch

    cuda = torch.version.cuda
    found = [Finding("torch", f"{torch.__version__}, CUDA {cuda or 'not built in'}", "good", "in every record")]
    threads, wanted = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    text = f"{threads}, OMP_NUM_THREADS {wanted or 'not set'}"
    over = threads > len(os.sched_getaffinity(0))
    meaning = "more than processors: they wait for each other" if over else "in every record"
    found.append(Finding("threads", text, "limits" if over else "good", meaning))
    compiler = next(
        (path for name in (os.environ.get("CXX"), "g++", "clang++") if name and (path := shutil.which(name))), None
    )
    triton = importlib.util.find_spec("triton") is not None
    ready = triton and compiler if torch.cuda.is_available() else compiler
    text = f"C++ compiler {compiler or 'missing'}, Triton {'there' if triton else 'missing'}"
    found.append(
        Finding("torch.compile", text, "good" if ready else "note", "without it the compiled modes are skipped")
    )
    tensorrt = _tensorrt()
    verdict: Verdict = "good" if tensorrt else "note"
    found.append(Finding("TensorRT", tensorrt or "TensorRT missing", verdict, "without it its rows are skipped"))
    return found


def _tensorrt() -> str | None:
    """TensorRT's version or the path of its program; None if it is not installed."""
    try:
        return f"TensorRT {importlib.metadata.version('tensorrt')}"
    except importlib.metadata.PackageNotFoundError:
        return shutil.which("trtexec")


def _gpu() -> tuple[list[Finding], nvml.Source | None]:
    try:
        uuid = gpu_of_timing()
        source = nvml.Live(uuid, time.perf_counter)
        found = gpu_findings(source, os.getpid())
    except MeasurementError as error:
        return [Finding("NVML", str(error), "limits", "no GPU's number and no energy")], None
    who = holder(uuid)
    found.append(Finding("GPU lease", who or "free", "note" if who else "good", "one timing at a time on a device"))
    return found, source


def _worth(findings: list[Finding], source: nvml.Source | None) -> list[Worth]:
    """Whether each kind of number that people ask for can be believed, with the findings against it."""
    import torch

    def against(*topics: str) -> str:
        limits = (one for one in findings if one.topic in topics and one.verdict == "limits")
        return "; ".join(f"{one.topic}: {one.found}" for one in limits)

    cpu = against("other work", "CPU quota", "threads")
    usable: Answer = "limited" if cpu else "yes"
    result = [
        Worth("ratios of two workloads on the CPU", usable, cpu or "measured in turn, they share the state"),
        Worth("images/s on the CPU", usable, cpu or "this processor's, at its own clocks"),
    ]
    if source is None or not torch.cuda.is_available():
        reason = next((one.found for one in findings if one.topic == "NVML"), "torch sees no GPU")
        numbers = ("images/s and ratios on a GPU", "utilisation against a GPU's ceiling", "energy")
        return result + [Worth(number, "no", reason) for number in numbers]
    state = against("throttling now", "GPU processes")
    result += [
        Worth("images/s and ratios on a GPU", "limited" if state else "yes", state or "printed with its power limit"),
        Worth("utilisation against a GPU's ceiling", "limited" if state else "yes", state or "ceiling of the same run"),
    ]
    counter = against("energy counter", "MIG")
    return [*result, Worth("energy", "no" if counter else "yes", counter or "counter, checked against the power trace")]


def _on_or_off(value: bool | None) -> str:
    return {True: "on", False: "off", None: "not told"}[value]
