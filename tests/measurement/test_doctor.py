import json
import sys

import pytest

from dcae_bench.base.errors import MeasurementError
from dcae_bench.cli.main import main
from dcae_bench.measurement.instruments import doctor, nvml
from dcae_bench.measurement.instruments.nvml import Replay

UUID = "GPU-00000000-0000-0000-0000-000000000001"


def verdicts(findings) -> dict[str, str]:
    return {finding.topic: finding.verdict for finding in findings}


@pytest.fixture
def findings(trace):
    def make(pid: int = 42, **keywords):
        return doctor.gpu_findings(Replay(trace(seconds=1, **keywords), lambda: 100.0), pid)

    return make


def test_idle_gpu_is_good(findings):
    found = findings(reasons=0x1, identity={"persistence": True, "power_default_w": 700.0})
    assert set(verdicts(found).values()) == {"good"}


@pytest.mark.parametrize(
    ("keywords", "topic", "verdict"),
    [
        ({"identity": {"mig": True}}, "MIG", "limits"),
        ({"identity": {"mig": None}}, "MIG", "note"),
        ({"identity": {"power_limit_w": 500.0, "power_default_w": 700.0}}, "power limit", "note"),
        ({"identity": {"persistence": False}}, "persistence", "note"),
        ({"reasons": 0x60}, "throttling now", "limits"),
        ({"without": ("energy_mj",)}, "energy counter", "limits"),
        ({"without": ("processes",)}, "GPU processes", "note"),
        ({"pid": 1}, "GPU processes", "limits"),
    ],
)
def test_what_stands_against_a_gpu(findings, keywords, topic, verdict):
    assert verdicts(findings(**keywords))[topic] == verdict


def test_machine_without_a_gpu_gets_reasons_not_errors(monkeypatch, capsys):
    def missing():
        raise MeasurementError("NVML: library not found")

    monkeypatch.setattr("dcae_bench.running.gpus.gpus", missing)
    monkeypatch.setattr(doctor.time, "sleep", lambda _s: None)
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    content = json.loads(capsys.readouterr().out)
    worth = {one["number"]: one for one in content["worth"]}
    assert worth["energy"]["worth"] == "no" and worth["energy"]["why"] == "NVML: library not found"
    assert worth["images/s on the CPU"]["worth"] in ("yes", "limited")
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "doctor"])
    with pytest.raises(SystemExit):
        main()
    assert "What a measurement here would be worth" in capsys.readouterr().out


def test_gpu_of_a_trace_is_worth_its_numbers_unless_it_is_hot(trace, monkeypatch):
    monkeypatch.setattr(doctor, "gpu_of_timing", lambda: UUID)
    monkeypatch.setattr(doctor.time, "sleep", lambda _s: None)
    monkeypatch.setattr(doctor.os, "getpid", lambda: 42)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def worth(**keywords) -> dict[str, str]:
        monkeypatch.setattr(nvml, "Live", lambda _uuid, _now: Replay(trace(seconds=1, **keywords), lambda: 100.0))
        return {one.number: one.worth for one in doctor.examine().worth}

    assert worth()["energy"] == worth()["images/s and ratios on a GPU"] == "yes"
    assert worth(reasons=0x20)["images/s and ratios on a GPU"] == "limited"
    assert worth(identity={"mig": True})["energy"] == "no"
