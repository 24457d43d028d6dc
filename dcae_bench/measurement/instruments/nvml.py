"""One GPU through NVML: identity, state and counters, read live or replayed from a recorded trace.

This module only reads; it never changes a setting. A value that the GPU, the driver or a MIG slice does not give is
null, and ``unavailable`` holds the reason.
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.reading import read_json
from dcae_bench.base.typed import Strict
from dcae_bench.running.gpus import nvml_library, text

# Bits of the clocks event reasons, from nvml.h.
IDLE, APPLICATION_CLOCKS, POWER_CAP, HARDWARE_SLOWDOWN = 0x1, 0x2, 0x4, 0x8
SYNC_BOOST, SOFTWARE_THERMAL, HARDWARE_THERMAL, POWER_BRAKE = 0x10, 0x20, 0x40, 0x80
REASONS = {
    IDLE: "idle",
    APPLICATION_CLOCKS: "clocks set by the administrator",
    POWER_CAP: "software power cap",
    HARDWARE_SLOWDOWN: "hardware slowdown",
    SYNC_BOOST: "sync boost",
    SOFTWARE_THERMAL: "software thermal slowdown",
    HARDWARE_THERMAL: "hardware thermal slowdown",
    POWER_BRAKE: "hardware power brake",
}


class GpuProcess(Strict):
    """A process that computes on the GPU."""

    pid: int
    memory_mib: int | None


class Identity(Strict):
    """Which GPU this is, and its settings. Read once per measurement."""

    uuid: str
    name: str | None = None
    pci: str | None = None
    vbios: str | None = None
    gsp_firmware: str | None = None
    driver: str | None = None
    nvml: str | None = None
    cuda_driver: str | None = None
    mig: bool | None = Field(default=None, description="whether the GPU is divided into MIG slices")
    ecc: bool | None = None
    persistence: bool | None = None
    exclusive: bool | None = Field(default=None, description="whether the compute mode allows only one process")
    power_limit_w: float | None = Field(default=None, description="enforced power limit")
    power_default_w: float | None = None
    power_min_w: float | None = None
    power_max_w: float | None = None
    sm_max_mhz: int | None = None
    memory_max_mhz: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    unavailable: dict[str, str] = Field(
        default_factory=dict, description="for each field that NVML did not answer, the reason"
    )


class Sample(Strict):
    """State of the GPU at one time."""

    t: float = Field(description="host's monotonic time, s")
    energy_mj: int | None = Field(default=None, description="energy counter since the driver was loaded")
    power_w: float | None = Field(default=None, description="instant power")
    power_average_w: float | None = Field(default=None, description="NVML's average over one second")
    temperature_c: int | None = None
    memory_temperature_c: int | None = None
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    reasons: int | None = Field(default=None, description="bit mask of the clocks event reasons")
    power_violation_ns: int | None = Field(
        default=None, description="counter of the time in which the power limit lowered the clock"
    )
    thermal_violation_ns: int | None = Field(
        default=None, description="counter of the time in which heat lowered the clock"
    )
    ecc_uncorrected: int | None = Field(
        default=None, description="uncorrected memory errors since the driver was loaded"
    )
    processes: tuple[GpuProcess, ...] | None = None
    unavailable: dict[str, str] = Field(default_factory=dict)


class Source(Protocol):
    """One GPU, live or replayed."""

    def identity(self) -> Identity:
        """Which GPU this is, and its settings."""
        ...

    def sample(self, *, full: bool = True) -> Sample:
        """State of the GPU now; without ``full`` only the values that change fast."""
        ...


class Trace(Strict):
    """Samples of one GPU during a measurement."""

    version: Literal[1] = 1
    origin: str = Field(description="recorded: on a GPU; synthetic: written by hand from NVML's documentation")
    identity: Identity
    samples: tuple[Sample, ...]

    def between(self, start: float, end: float) -> "Trace":
        """The samples from ``start`` to ``end`` (host's monotonic time, s), both included."""
        return self.model_copy(update={"samples": tuple(s for s in self.samples if start <= s.t <= end)})


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises :class:`MeasurementError`."""
    try:
        return Trace.model_validate(read_json(path))
    except OSError as error:
        raise MeasurementError(f"{path}: trace cannot be read ({error.strerror}); name a recorded trace") from error
    except (ValueError, ValidationError) as error:
        raise MeasurementError(f"{path}: is not a trace of NVML; record it again") from error


class Replay:
    """A GPU that replays a trace: at each time it shows the last sample before that time."""

    def __init__(self, trace: Trace, now: Callable[[], float]):
        """Replay ``trace`` by the clock ``now``. Raises :class:`MeasurementError` for a trace without samples."""
        if not trace.samples:
            raise MeasurementError(f"trace of {trace.identity.uuid}: holds no samples; record it again")
        self._trace, self._now = trace, now
        self._times = [sample.t for sample in trace.samples]

    def identity(self) -> Identity:
        """The recorded GPU."""
        return self._trace.identity

    def sample(self, *, full: bool = True) -> Sample:
        """The last recorded sample before now, with the present time."""
        index = max(bisect_right(self._times, self._now()) - 1, 0)
        return self._trace.samples[index].model_copy(update={"t": self._now()})


class Live:
    """A GPU of this machine, read through NVML."""

    def __init__(self, uuid: str, now: Callable[[], float]):
        """Open the GPU with this UUID: ``GPU-…`` or ``MIG-…``, or without a prefix, as torch prints it.

        A UUID and not NVML's index, because NVML's order ignores ``CUDA_VISIBLE_DEVICES``. Raises
        :class:`MeasurementError` if NVML or the GPU is missing.
        """
        self._n = n = nvml_library()
        self._now = now
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        for name in names:
            try:
                self._handle = n.nvmlDeviceGetHandleByUUID(name)
            except n.NVMLError:
                continue
            self.uuid = name
            break
        else:
            raise MeasurementError(f"GPU {uuid}: NVML has no GPU of this UUID; `nvidia-smi -L` lists those there are")

    def identity(self) -> Identity:
        """Which GPU this is, and its settings."""
        n, handle = self._n, self._handle
        why: dict[str, str] = {}

        def ask(field: str, function: str, *arguments: Any, take: Callable[[Any], Any] = lambda value: value) -> Any:
            return _ask(n, why, field, lambda: take(getattr(n, function)(*arguments)))

        limits = ask("power_min_w", "nvmlDeviceGetPowerManagementLimitConstraints", handle) or (None, None)
        values = {
            "name": ask("name", "nvmlDeviceGetName", handle),
            "pci": ask("pci", "nvmlDeviceGetPciInfo", handle, take=lambda info: text(info.busId)),
            "vbios": ask("vbios", "nvmlDeviceGetVbiosVersion", handle),
            "gsp_firmware": ask("gsp_firmware", "nvmlDeviceGetGspFirmwareVersion", handle, take=text),
            "driver": ask("driver", "nvmlSystemGetDriverVersion"),
            "nvml": ask("nvml", "nvmlSystemGetNVMLVersion"),
            "cuda_driver": ask(
                "cuda_driver", "nvmlSystemGetCudaDriverVersion_v2", take=lambda v: f"{v // 1000}.{v % 1000 // 10}"
            ),
            "mig": ask("mig", "nvmlDeviceGetMigMode", handle, take=lambda modes: bool(modes[0])),
            "ecc": ask("ecc", "nvmlDeviceGetEccMode", handle, take=lambda modes: bool(modes[0])),
            "persistence": ask("persistence", "nvmlDeviceGetPersistenceMode", handle, take=bool),
            "exclusive": ask(
                "exclusive",
                "nvmlDeviceGetComputeMode",
                handle,
                take=lambda mode: mode == n.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
            ),
            "power_limit_w": ask("power_limit_w", "nvmlDeviceGetEnforcedPowerLimit", handle, take=_thousandth),
            "power_default_w": ask(
                "power_default_w", "nvmlDeviceGetPowerManagementDefaultLimit", handle, take=_thousandth
            ),
            "power_min_w": _thousandth(limits[0]),
            "power_max_w": _thousandth(limits[1]),
            "sm_max_mhz": ask("sm_max_mhz", "nvmlDeviceGetMaxClockInfo", handle, n.NVML_CLOCK_SM),
            "memory_max_mhz": ask("memory_max_mhz", "nvmlDeviceGetMaxClockInfo", handle, n.NVML_CLOCK_MEM),
            "pcie_generation": ask("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration", handle),
            "pcie_width": ask("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", handle),
        }
        if self.uuid.startswith("MIG-"):
            values["mig"] = True
            why.pop("mig", None)
        return Identity(uuid=self.uuid, **values, unavailable=why)

    def sample(self, *, full: bool = True) -> Sample:
        """State of the GPU now; without ``full`` no processes, violations and ECC errors, which change slowly."""
        n, handle = self._n, self._handle
        why: dict[str, str] = {}

        def ask(field: str, function: str, *arguments: Any, take: Callable[[Any], Any] = lambda value: value) -> Any:
            return _ask(n, why, field, lambda: take(getattr(n, function)(*arguments)))

        t = self._now()
        power, average, memory_temperature = self._fields(why)
        values = {
            "energy_mj": ask("energy_mj", "nvmlDeviceGetTotalEnergyConsumption", handle),
            "power_w": power,
            "power_average_w": average,
            "temperature_c": _ask(n, why, "temperature_c", self._temperature),
            "memory_temperature_c": memory_temperature,
            "sm_mhz": ask("sm_mhz", "nvmlDeviceGetClockInfo", handle, n.NVML_CLOCK_SM),
            "memory_mhz": ask("memory_mhz", "nvmlDeviceGetClockInfo", handle, n.NVML_CLOCK_MEM),
            "reasons": ask("reasons", "nvmlDeviceGetCurrentClocksEventReasons", handle),
        }
        if full:
            for field, policy in (
                ("power_violation_ns", n.NVML_PERF_POLICY_POWER),
                ("thermal_violation_ns", n.NVML_PERF_POLICY_THERMAL),
            ):
                values[field] = ask(
                    field, "nvmlDeviceGetViolationStatus", handle, policy, take=lambda status: int(status.violationTime)
                )
            values["ecc_uncorrected"] = ask(
                "ecc_uncorrected",
                "nvmlDeviceGetTotalEccErrors",
                handle,
                n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                n.NVML_VOLATILE_ECC,
            )
            values["processes"] = ask("processes", "nvmlDeviceGetComputeRunningProcesses", handle, take=_processes)
        return Sample(t=t, **values, unavailable=why)

    def _temperature(self) -> int:
        """Temperature in °C by the newer call, or by the older one, which old drivers need and CUDA 14 drops."""
        n = self._n
        try:
            return n.nvmlDeviceGetTemperatureV(self._handle, n.NVML_TEMPERATURE_GPU)
        except (AttributeError, n.NVMLError_FunctionNotFound, n.NVMLError_NotSupported):
            return n.nvmlDeviceGetTemperature(self._handle, n.NVML_TEMPERATURE_GPU)

    def _fields(self, why: dict[str, str]) -> tuple[float | None, float | None, int | None]:
        """Instant power (W), average power (W) and memory temperature (°C), which only NVML's field values hold.

        Power is that of the GPU, or of the whole module if NVML does not give the GPU's alone (Grace Hopper).
        """
        n = self._n
        found: list[Any] = []
        for field, number, scopes in (
            ("power_w", n.NVML_FI_DEV_POWER_INSTANT, (n.NVML_POWER_SCOPE_GPU, n.NVML_POWER_SCOPE_MODULE)),
            ("power_average_w", n.NVML_FI_DEV_POWER_AVERAGE, (n.NVML_POWER_SCOPE_GPU, n.NVML_POWER_SCOPE_MODULE)),
            ("memory_temperature_c", n.NVML_FI_DEV_MEMORY_TEMP, (0,)),
        ):
            for scope in scopes:
                value = _ask(n, why, field, partial(self._field, number, scope))
                if value is not None:
                    why.pop(field, None)
                    break
            found.append(value)
        return _thousandth(found[0]), _thousandth(found[1]), found[2]

    def _field(self, number: int, scope: int) -> int:
        """One of NVML's field values. Raises NVMLError."""
        n = self._n
        value = n.nvmlDeviceGetFieldValues(self._handle, [(number, scope)])[0]
        if value.nvmlReturn != n.NVML_SUCCESS:
            raise n.NVMLError(value.nvmlReturn)
        return int(value.value.uiVal)


def _ask(n: Any, why: dict[str, str], field: str, question: Callable[[], Any]) -> Any:
    """The answer; or None, with the reason in ``why``. Raises :class:`MeasurementError` if the GPU is lost."""
    try:
        return question()
    except AttributeError:
        why[field] = "not in this version of nvidia-ml-py"
    except n.NVMLError_GpuIsLost as error:
        raise MeasurementError(f"NVML: {error}; restart the machine") from error
    except n.NVMLError as error:
        why[field] = str(error)
    return None


def _processes(found: list[Any]) -> tuple[GpuProcess, ...]:
    return tuple(
        GpuProcess(pid=one.pid, memory_mib=None if one.usedGpuMemory is None else one.usedGpuMemory >> 20)
        for one in found
    )


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
