"""From the workloads to a sealed folder, on a GPU that a trace plays."""

import hashlib
import json
import sys
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from dcae_bench.base.errors import MeasurementError, ResultsError
from dcae_bench.base.files import write_text
from dcae_bench.cli.main import main
from dcae_bench.measurement import evidence
from dcae_bench.measurement.instruments import host
from dcae_bench.measurement.instruments.environment import read_environment
from dcae_bench.measurement.instruments.nvml import Replay
from dcae_bench.measurement.instruments.timing import TimingSchedule
from dcae_bench.measurement.record import ThroughputRecord, TimedModel, derive, load, merge, save, speed_up
from dcae_bench.measurement.run import run
from dcae_bench.records.digest import digest_of
from dcae_bench.records.provenance import Device, Provenance

BATCH = {"small": 64, "large": 4}


class Product:
    """A ceiling of known speed."""

    flops = 2e12

    def __init__(self, call):
        self.call = call

    def __call__(self):
        self.call()


@pytest.fixture
def measured(trace, make_clock, monkeypatch):
    """Records and trace of one process that times two workloads and the ceiling in turn."""
    busy = host.HostState(t=0, cpus=2, busy_s=0, own_s=0, throttled_s=0)
    monkeypatch.setattr(host, "read_state", lambda: busy)
    # Where the test runs is not what the record says: our id is the one in the trace.
    monkeypatch.setattr("dcae_bench.measurement.run.os.getpid", lambda: 42)

    def make(slower: float = 1.0, **keywords) -> tuple[dict[str, ThroughputRecord], str]:
        clock = make_clock()
        source = Replay(trace(seconds=120, **keywords), clock.now)
        schedule = TimingSchedule(warm_up_s=0, warm_up_iterations=20)
        workloads = {
            "small": clock.workload("small", 0.055 * slower),
            "large": clock.workload("large", 0.065 * slower),
        }
        found = run(
            workloads,
            clock=clock,
            schedule=schedule,
            ceiling=Product(clock.workload("matmul", 0.01)),
            source=source,
            peaks_gib=dict.fromkeys(workloads, 3.5),
            trace_file="trace.json",
            period_s=3600,
            sleep=clock.sleep,
        )
        records = {}
        for name, restart in found.restarts.items():
            records[name] = ThroughputRecord(
                protocol="throughput/paper-v1",
                model=TimedModel(
                    name="uvit-s", latent_space=name, resolution=512, tokens=64, parameters=44_000_000, gmacs=2.97
                ),
                work="forward",
                mode="eager",
                precision="fp16",
                batch=BATCH[name],
                images_per_iteration=BATCH[name],
                flops_per_image=1e11,
                status="measured",
                derived=derive([restart], BATCH[name], 1e11),
                restarts=(restart,),
                environment=read_environment(source.identity()),
                provenance=provenance(),
            )
        return records, found.trace.model_dump_json()

    return make


def provenance() -> Provenance:
    return Provenance(
        commit=None,
        dirty=None,
        code_sha256="a" * 64,
        config_sha256="b" * 64,
        seed=0,
        versions={},
        device=Device(kind="cuda", name="H100", threads=1, precision="fp16"),
        command="dcae-bench",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        finished=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=1.0,
    )


@pytest.fixture
def folder(measured, tmp_path):
    records, content = measured()
    path = tmp_path / "evidence"
    for name, record in records.items():
        save(record, path / f"{name}.json")
    write_text(path / "trace.json", content)
    evidence.seal(path)
    return path


def alter(path, change) -> None:
    """Change a record and hash it anew, as somebody would who wants another number."""
    content = json.loads(path.read_text())
    change(content)
    if "digest" in content:
        content["digest"] = digest_of(content)
    path.write_text(json.dumps(content))
    (path.parent / evidence.SUMS).unlink()
    evidence.seal(path.parent)


def test_what_is_derived_is_right(measured):
    found = measured()[0]["small"].derived
    assert found.images_per_s.value == pytest.approx(64 / 0.055)
    assert found.images_per_s.low <= found.images_per_s.value <= found.images_per_s.high
    assert found.iteration_ms.value == pytest.approx(55)
    assert found.ceiling_tflops.value == pytest.approx(200)
    assert found.mfu == pytest.approx(64 / 0.055 * 0.1 / 200)
    assert found.energy_per_image_j.value == pytest.approx(600 / (64 / 0.055), rel=0.02)
    assert found.energy_per_image_j.low < 600 / (64 / 0.055) < found.energy_per_image_j.high
    assert found.peak_gib == 3.5 and found.gate.state == "good"


def test_restarts_merge_into_their_mean(measured):
    restarts = [measured(slower)[0]["small"] for slower in (1.0, 1.02, 0.98)]
    merged = merge(restarts)
    assert len(merged.restarts) == 3
    rates = [record.derived.images_per_s.value for record in restarts]
    assert merged.derived.images_per_s.value == pytest.approx(sum(rates) / 3)
    assert "3 process restarts" in merged.derived.images_per_s.method
    assert merged.derived.images_per_s.low < min(rates) and merged.derived.images_per_s.high > max(rates)
    with pytest.raises(ResultsError, match="twice"):
        merge([restarts[0], restarts[0]])


def test_only_restarts_of_the_same_measurement_merge(measured):
    small, large = measured()[0].values()
    with pytest.raises(ResultsError, match="different measurements"):
        merge([small, large])


def test_speed_up_is_paired_within_processes_and_combined_between_them(measured):
    first, second = measured()[0], measured(1.1)[0]
    ratio = speed_up(first["small"], first["large"])
    assert ratio.value == pytest.approx(64 / 0.055 / (4 / 0.065)) and "rounds" in ratio.method
    apart = speed_up(first["small"], second["small"])
    assert apart.value == pytest.approx(1.1) and "independent" in apart.method
    pairs = [merge([first[name], second[name]]) for name in ("small", "large")]
    assert "geometric mean of 2" in speed_up(*pairs).method
    assert speed_up(*pairs).value == pytest.approx(ratio.value)


def test_worst_restart_decides_the_gate(measured):
    records = [measured()[0]["small"], measured(reasons=0x44)[0]["small"]]
    gate = merge(records).derived.gate
    assert gate.state == "degraded" and [reason.kind for reason in gate.reasons] == ["thermal"]


def test_energy_is_null_with_a_reason_if_one_restart_has_none(measured):
    records = [measured()[0]["small"], measured(without=("energy_mj",))[0]["small"]]
    found = merge(records).derived
    assert found.energy_per_image_j is None and "does not answer" in found.energy_reason


def test_record_reads_back_and_incoherent_ones_are_refused(measured, tmp_path):
    record = measured()[0]["small"]
    save(record, tmp_path / "record.json")
    assert load(tmp_path / "record.json").model_copy(update={"digest": None}) == record
    content = record.model_dump()
    oom = {**content, "status": "oom", "reason": "CUDA out of memory", "derived": None, "restarts": ()}
    assert ThroughputRecord.model_validate(oom).derived is None
    for wrong in ({"status": "oom"}, {"derived": None}, {"reason": "x"}, {"images": 3}):
        with pytest.raises(ValidationError):
            ThroughputRecord.model_validate({**content, **wrong})
    assert merge([record, ThroughputRecord.model_validate(oom)]).status == "oom"
    (tmp_path / "record.json").write_text("{}")
    for path in (tmp_path / "record.json", tmp_path / "none.json"):
        with pytest.raises(ResultsError, match=path.name):
            load(path)


def test_sealed_folder_is_sound_and_sha256sum_reads_its_list(folder):
    found = evidence.verify(folder)
    assert (found.files, found.records, found.problems) == (3, 2, ())
    for line in (folder / evidence.SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    with pytest.raises(MeasurementError, match="sealed once"):
        evidence.seal(folder)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "trace.json").unlink(), "trace.json: is missing"),
        (lambda folder: (folder / "more.txt").write_text("x"), "more.txt: is not in"),
        (lambda folder: (folder / "small.json").write_text("{}"), "small.json: has another hash"),
    ],
)
def test_changed_files_are_found(folder, spoil, problem):
    spoil(folder)
    assert any(text.startswith(problem) for text in evidence.verify(folder).problems)


def faster(record: dict) -> None:
    record["derived"]["images_per_s"]["value"] *= 1.01


def less_energy(record: dict) -> None:
    record["restarts"][0]["energy"]["energy_j"] *= 0.9


def better_gate(record: dict) -> None:
    record["restarts"][0]["gate"]["state"] = "unknown"


def slower_blocks(record: dict) -> None:
    for block in record["restarts"][0]["series"]["blocks"]:
        block["host_s"] *= 1.01


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (faster, "do not follow from its samples"),
        (less_energy, "energy does not follow from the trace"),
        (better_gate, "the gate says good of what was recorded, not unknown"),
        (slower_blocks, "do not follow from its samples"),
    ],
)
def test_numbers_that_do_not_follow_from_their_samples_are_found(folder, change, problem):
    alter(folder / "small.json", change)
    problems = evidence.verify(folder).problems
    assert any(text.startswith("small.json") and problem in text for text in problems), problems


def test_broken_lists_and_folders_are_refused(folder, tmp_path):
    with pytest.raises(MeasurementError, match="not a folder"):
        evidence.seal(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MeasurementError, match="holds no files"):
        evidence.seal(tmp_path / "empty")
    with pytest.raises(MeasurementError, match="SHA256SUMS: cannot be read"):
        evidence.verify(tmp_path / "empty")
    (folder / evidence.SUMS).write_text("no hash\n")
    with pytest.raises(MeasurementError, match="line 1"):
        evidence.verify(folder)


def test_command_says_what_holds_and_fails_where_it_does_not(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "verify", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "3 files have their hashes, 2 timings follow from their samples" in capsys.readouterr().out
    (folder / "trace.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and "trace.json: has another hash" in out
    assert err.startswith("dcae-bench: error: ") and err.count("\n") == 1


def test_workload_cannot_take_the_ceilings_name(make_clock):
    with pytest.raises(ValueError, match="matmul"):
        run({"matmul": lambda: None}, clock=make_clock())


def test_only_what_is_marked_gets_an_energy_window(trace, make_clock):
    clock = make_clock()
    workloads = {name: clock.workload(name, 0.05) for name in ("marked", "other")}
    found = run(
        workloads,
        clock=clock,
        schedule=TimingSchedule(warm_up_s=0, blocks=3),
        source=Replay(trace(seconds=120), clock.now),
        with_energy={"marked"},
        period_s=3600,
        sleep=clock.sleep,
    ).restarts
    assert found["marked"].energy.energy_j > 0
    assert found["other"].energy.energy_j is None and found["other"].energy.reason == "no window was asked for"
