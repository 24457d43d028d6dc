"""The live layer over a binding that answers as NVML's documentation says; no GPU is touched."""

import sys
from types import SimpleNamespace

import pynvml
import pytest

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.instruments import nvml

UUID = "GPU-11111111-2222-3333-4444-555555555555"


class Binding:
    """Stands in for ``pynvml``: constants and errors are its own, calls answer from a dictionary."""

    def __init__(self, **answers):
        self.asked = []
        self.answers = {
            "nvmlInit": None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: self.refuse(6) if uuid != UUID else "handle",
            "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId="00000000:18:00.0"),
            "nvmlDeviceGetVbiosVersion": "96.00.74.00.01",
            "nvmlDeviceGetGspFirmwareVersion": b"570.00",
            "nvmlSystemGetDriverVersion": "570.00",
            "nvmlSystemGetNVMLVersion": "12.570.00",
            "nvmlSystemGetCudaDriverVersion_v2": 12080,
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlDeviceGetEccMode": [1, 1],
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetComputeMode": 0,
            "nvmlDeviceGetEnforcedPowerLimit": 650_000,
            "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
            "nvmlDeviceGetPowerManagementLimitConstraints": [200_000, 700_000],
            "nvmlDeviceGetMaxClockInfo": lambda _handle, clock: 1980 if clock == pynvml.NVML_CLOCK_SM else 2619,
            "nvmlDeviceGetClockInfo": lambda _handle, clock: 1755 if clock == pynvml.NVML_CLOCK_SM else 2619,
            "nvmlDeviceGetCurrPcieLinkGeneration": 5,
            "nvmlDeviceGetCurrPcieLinkWidth": 16,
            "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
            "nvmlDeviceGetFieldValues": self.field,
            "nvmlDeviceGetTemperatureV": 55,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x4,
            "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=5_000_000),
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=7, usedGpuMemory=3 << 20)],
            **answers,
        }

    def __getattr__(self, name):
        if not name.startswith("nvml") or name not in self.answers:
            return getattr(pynvml, name)
        answer = self.answers[name]

        def call(*arguments):
            self.asked.append(name)
            if isinstance(answer, int) and answer < 0:
                self.refuse(-answer)
            return answer(*arguments) if callable(answer) else answer

        return call

    @staticmethod
    def refuse(code: int):
        raise pynvml.NVMLError(code)

    @staticmethod
    def field(_handle, wanted, scopes=(0,)):
        (number, scope), answers = wanted[0], {186: 612_000, 185: 605_000, 82: 71}
        code = 0 if scope in scopes else pynvml.NVML_ERROR_NOT_SUPPORTED
        return [SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=answers[number]))]


NOT_SUPPORTED = -pynvml.NVML_ERROR_NOT_SUPPORTED


@pytest.fixture
def live(monkeypatch):
    def make(uuid=UUID, **answers) -> nvml.Live:
        monkeypatch.setitem(sys.modules, "pynvml", Binding(**answers))
        return nvml.Live(uuid, lambda: 12.5)

    return make


def test_every_answer_arrives_in_its_unit(live):
    identity = live().identity()
    assert identity.unavailable == {}
    assert identity.model_dump(exclude={"unavailable"}) == {
        "uuid": UUID,
        "name": "NVIDIA H100 80GB HBM3",
        "pci": "00000000:18:00.0",
        "vbios": "96.00.74.00.01",
        "gsp_firmware": "570.00",
        "driver": "570.00",
        "nvml": "12.570.00",
        "cuda_driver": "12.8",
        "mig": False,
        "ecc": True,
        "persistence": True,
        "exclusive": False,
        "power_limit_w": 650.0,
        "power_default_w": 700.0,
        "power_min_w": 200.0,
        "power_max_w": 700.0,
        "sm_max_mhz": 1980,
        "memory_max_mhz": 2619,
        "pcie_generation": 5,
        "pcie_width": 16,
    }
    sample = live().sample()
    assert sample.unavailable == {}
    assert sample.model_dump(exclude={"unavailable"}) == {
        "t": 12.5,
        "energy_mj": 123_456_789,
        "power_w": 612.0,
        "power_average_w": 605.0,
        "temperature_c": 55,
        "memory_temperature_c": 71,
        "sm_mhz": 1755,
        "memory_mhz": 2619,
        "reasons": 4,
        "power_violation_ns": 5_000_000,
        "thermal_violation_ns": 5_000_000,
        "ecc_uncorrected": 0,
        "processes": ({"pid": 7, "memory_mib": 3},),
    }


def test_torchs_uuid_without_prefix_is_matched(live):
    assert live(UUID.removeprefix("GPU-")).identity().uuid == UUID


def test_mig_slice_is_known_by_its_uuid(live):
    slice_ = "MIG-9"
    handles = {"nvmlDeviceGetHandleByUUID": lambda uuid: "h" if uuid == slice_ else Binding.refuse(6)}
    found = live("9", **handles, nvmlDeviceGetMigMode=NOT_SUPPORTED)
    assert found.identity().uuid == slice_ and found.identity().mig is True


def test_missing_answer_is_null_with_a_reason_and_no_other_is_lost(live):
    sample = live(nvmlDeviceGetTotalEnergyConsumption=NOT_SUPPORTED, nvmlDeviceGetTotalEccErrors=NOT_SUPPORTED).sample()
    assert sample.energy_mj is None and sample.ecc_uncorrected is None
    assert sample.unavailable == {"energy_mj": "Not Supported", "ecc_uncorrected": "Not Supported"}
    assert sample.power_w == 612.0


def test_power_of_the_module_is_taken_where_the_gpu_has_none(live):
    sample = live(nvmlDeviceGetFieldValues=lambda handle, wanted: Binding.field(handle, wanted, scopes=(1,))).sample()
    assert sample.power_w == 612.0 and "power_w" not in sample.unavailable
    assert sample.memory_temperature_c is None and sample.unavailable["memory_temperature_c"] == "Not Supported"


def test_temperature_by_the_older_call(live):
    old = {"nvmlDeviceGetTemperatureV": -pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "nvmlDeviceGetTemperature": 56}
    assert live(**old).sample().temperature_c == 56


def test_short_sample_does_not_ask_for_what_changes_slowly(live):
    source = live()
    sample = source.sample(full=False)
    assert sample.processes is None and sample.energy_mj == 123_456_789
    assert not {"nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetViolationStatus"} & set(source._n.asked)


def test_settings_are_never_changed(live):
    source = live()
    source.identity(), source.sample()
    assert source._n.asked and not [name for name in source._n.asked if "Set" in name or "Reset" in name]


def test_lost_gpu_is_no_missing_answer(live):
    with pytest.raises(MeasurementError, match="lost"):
        live(nvmlDeviceGetClockInfo=-pynvml.NVML_ERROR_GPU_IS_LOST).sample()


def test_unknown_uuid_missing_library_and_shadowed_binding_are_told_apart(live, monkeypatch):
    with pytest.raises(MeasurementError, match=r"GPU-x: NVML has no GPU of this UUID"):
        live("GPU-x")
    with pytest.raises(MeasurementError, match="driver is needed"):
        live(nvmlInit=-pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace())
    with pytest.raises(MeasurementError, match="uninstall `pynvml`"):
        nvml.Live(UUID, lambda: 0.0)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MeasurementError, match="not installed"):
        nvml.Live(UUID, lambda: 0.0)
