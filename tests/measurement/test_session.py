"""A process's session on the CPU: from cases to records."""

import pytest
import torch

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement import session as sessions
from dcae_bench.measurement.instruments.nvml import Replay
from dcae_bench.measurement.instruments.probe import probe
from dcae_bench.measurement.instruments.timing import TimingSchedule
from dcae_bench.measurement.record import load, merge, speed_up
from dcae_bench.measurement.session import Session, measure
from dcae_bench.measurement.workloads.recipes import CPU, PAPER
from tests.measurement import tiny

QUICK = TimingSchedule(blocks=3, block_s=0.005, warm_up_iterations=4, warm_up_s=0, window=2, warm_up_limit_s=0.2)
RECIPE = CPU.model_copy(update={"schedule": QUICK})


class SmallMatmul(sessions.Matmul):
    def __init__(self, dtype, device):
        super().__init__(dtype, device, size=64)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    tiny.use(monkeypatch)
    monkeypatch.setattr(sessions, "Matmul", SmallMatmul)
    monkeypatch.setenv("DCAE_BENCH_LEASES", str(tmp_path / "leases"))


def pair(work="forward"):
    return tiny.case(work, "sd-vae-f8c4-p2"), tiny.case(work)


def test_cases_are_timed_in_turn_and_recorded(tmp_path):
    records = []
    for restart in (1, 2):
        paths = measure(Session(pair(), RECIPE, tmp_path, restart))
        records.append([load(path) for path in paths])
    slow, fast = records[0]
    assert {len(record.restarts[0].series.blocks) for record in (slow, fast)} == {3}
    assert slow.restarts[0].run == fast.restarts[0].run
    assert (slow.batch, fast.batch) == (1024 // 64, 1024 // 4)
    assert slow.derived.energy_per_image_j is None and "not measured" in slow.derived.energy_reason
    assert slow.derived.peak_gib is None and slow.derived.mfu > 0 and slow.agreement is None
    assert "rounds" in speed_up(fast, slow).method
    assert len(merge([records[0][0], records[1][0]]).restarts) == 2


def test_a_measurement_out_of_memory_is_a_result_and_the_other_case_is_timed(tmp_path, monkeypatch):
    real = sessions.build_workload

    def build_workload(job):
        if job.case.latent.autoencoder == "sd-vae-f8c4":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB\nmore")
        return real(job)

    monkeypatch.setattr(sessions, "build_workload", build_workload)
    slow, fast = (load(path) for path in measure(Session(pair(), RECIPE, tmp_path)))
    assert (slow.status, fast.status) == ("oom", "measured")
    assert slow.reason == "CUDA out of memory. Tried to allocate 80 GiB"


def test_other_errors_are_no_results(tmp_path, monkeypatch):
    def broken(job):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(sessions, "build_workload", broken)
    with pytest.raises(RuntimeError, match="kernel"):
        measure(Session(pair(), RECIPE, tmp_path))
    assert not list(tmp_path.glob("*.json"))


def test_tensorrt_is_skipped_with_its_reason(tmp_path):
    record = load(measure(Session(pair()[:1], RECIPE, tmp_path, mode="trt"))[0])
    assert record.status == "skipped" and "TensorRT" in record.reason and record.derived is None


def test_protocols_of_a_gpu_say_that_there_is_none(tmp_path, monkeypatch):
    def none():
        raise MeasurementError("NVML: no driver; a machine with an NVIDIA GPU and its driver is needed")

    monkeypatch.setattr("dcae_bench.running.gpus.gpus", none)
    with pytest.raises(MeasurementError, match="NVIDIA GPU"):
        measure(Session(pair(), PAPER, tmp_path))
    with pytest.raises(MeasurementError, match="twice"):
        measure(Session(pair()[:1] * 2, RECIPE, tmp_path))


def test_probe_tells_the_counters_period_and_what_answers(clock, trace):
    source = Replay(trace(seconds=120, without=("memory_temperature_c",)), clock.now)

    def work():
        clock.host += 0.05

    found = probe(source, work, clock, poll_s=3, iterations=5, sleep=clock.sleep)
    assert found.counter_period_s == pytest.approx(0.1, abs=0.06)
    assert found.answers["memory_temperature_c"] == "Not Supported" and found.answers["power_w"] == "answered"
    assert found.energy.energy_j == pytest.approx(600 * found.energy.seconds, rel=0.03)


def test_a_part_of_the_batch_is_recorded_and_is_another_measurement(tmp_path):
    whole, quarter, sixteenth = (
        load(measure(Session(pair()[:1], RECIPE, tmp_path, share=share))[0]) for share in (None, 4, 16)
    )
    assert (whole.share, quarter.share, sixteenth.share) == (None, 4, 16)
    assert (whole.batch, quarter.batch, sixteenth.batch) == (16, 4, 1)
    assert quarter.settings["batch"] == "1/4 of 1024 tokens, or one image"
    assert len({whole.key, quarter.key, sixteenth.key}) == 3 and len(list(tmp_path.glob("*.json"))) == 3


def test_a_part_of_a_batch_is_never_less_than_one_image(tmp_path):
    record = load(measure(Session(pair()[:1], RECIPE, tmp_path, share=1000))[0])
    assert record.batch == 1 and record.share == 1000
