"""A sealed folder of timings, and its table built again."""

import json
import re

import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import main
from dcae_bench.measurement import evidence
from dcae_bench.measurement.record import save
from dcae_bench.tables.bundle.write import write_evidence
from dcae_bench.tables.rebuild import check_tables, count_tables
from dcae_bench.tables.throughput.build import planned_timings
from dcae_bench.tables.throughput.evidence import check_table
from tests.tables.timings import timing


@pytest.fixture
def measured(tmp_path):
    folder = tmp_path / "measured"
    for latent in ("sd-vae-f8c4 p2", "dc-ae-f64c128 p1"):
        save(timing(latent), folder / f"{latent}.json")
    (folder / "x.nvml.json").write_text("{}")
    (folder / "plan.json").write_text("{}")
    (folder / "table.json").write_text("{}")
    return folder


def test_folder_is_named_after_device_and_date_and_holds_everything(measured, tmp_path):
    folder = write_evidence(measured, tmp_path / "reference")
    assert folder.name == "nvidia-h100-80gb-hbm3-2026-01-02"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        *("SHA256SUMS", "bundle.json", "environment.json", "plan.json"),
        *("table_throughput.md", "table_throughput.csv", "table_throughput.json", "throughput.png"),
        *("records/sd-vae-f8c4 p2.json", "records/dc-ae-f64c128 p1.json", "records/x.nvml.json"),
    }
    assert len(json.loads((folder / "environment.json").read_text())) == 1
    assert list(check_table(folder)) == []
    with pytest.raises(ResultsError, match="is there already"):
        write_evidence(measured, tmp_path / "reference")
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_table_that_the_records_do_not_make_is_found(measured, tmp_path, monkeypatch, capsys):
    folder = write_evidence(measured, tmp_path / "reference")
    page = folder / "table_throughput.md"
    page.write_text(page.read_text().replace("502 M", "503 M"))
    (folder / evidence.SUMS).unlink()
    evidence.seal(folder)  # as somebody would who wants another number
    monkeypatch.setattr("sys.argv", ["dcae-bench", "verify", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "table_throughput.md: is not what the records make of it" in capsys.readouterr().out


def test_a_table_holds_after_the_code_that_measures_was_edited(measured, tmp_path, monkeypatch):
    """It says of its rows what was true when it was made."""
    folder = write_evidence(measured, tmp_path / "reference")
    assert not list(check_table(folder))
    monkeypatch.setattr("dcae_bench.tables.throughput.evidence.fingerprint", lambda module: "edited")
    assert not list(check_table(folder))
    again = write_evidence(measured, tmp_path / "again")
    content = json.loads((again / "table_throughput.json").read_text())
    assert content["code_sha256"] == "edited" and not list(check_table(again))


def test_devices_are_not_mixed(measured, tmp_path):
    save(timing(gpu=None), measured / "cpu.json")
    with pytest.raises(ResultsError, match="several devices"):
        write_evidence(measured, tmp_path)


def seal_again(folder):
    """As somebody would who wants another number."""
    (folder / evidence.SUMS).unlink()
    evidence.seal(folder)


@pytest.mark.parametrize("forged", ["table_throughput.csv", "table_throughput.json"])
@pytest.mark.parametrize("gone", ["table_throughput.md", None])
def test_a_forged_twin_is_found_with_and_without_its_page(measured, tmp_path, forged, gone):
    folder = write_evidence(measured, tmp_path / "reference")
    text = (folder / forged).read_text()
    (folder / forged).write_text(re.sub(r"\d+\.\d+", "9.75", text, count=1))
    if gone:
        (folder / gone).unlink()
    seal_again(folder)
    assert not any(forged in problem for problem in evidence.verify(folder).problems), "every hash is right"
    problems = list(check_table(folder))
    assert f"{forged}: is not what the records make of it" in problems
    assert (gone is not None) == any("is missing beside" in problem for problem in problems)


@pytest.mark.parametrize("gone", ["table_throughput.*", "environment.json"])
def test_a_bundle_without_its_table_or_environment_is_found(measured, tmp_path, gone):
    folder = write_evidence(measured, tmp_path / "reference")
    removed = [path for path in folder.glob(gone) if not path.unlink()]
    seal_again(folder)
    assert len(list(check_table(folder))) == len(removed)


def test_a_table_of_a_part_says_so(measured, tmp_path, monkeypatch):
    """Two sessions of two latent spaces are planned, and the records of one are there; NVML's probe is no timing."""
    sessions = {f"measure --latent a --latent b --restart {restart}": "measured" for restart in (1, 2)}
    plan = {"plan": "what", "sessions": {"doctor --probe probe.json": "measured", **sessions}}
    (measured / "plan.json").write_text(json.dumps(plan))
    folder = write_evidence(measured, tmp_path / "reference")
    said = "Holds 2 of the 4 timings that its plan asks for."
    assert said in (folder / "table_throughput.md").read_text() and list(check_table(folder)) == []
    assert json.loads((folder / "table_throughput.json").read_text())["planned"] == 4
    arguments = ["table-throughput", str(measured), "--output", str(tmp_path / "t.md")]
    monkeypatch.setattr("sys.argv", ["dcae-bench", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert said in (tmp_path / "t.md").read_text()


def test_a_plan_states_its_number_of_timings(measured):
    (measured / "plan.json").write_text(json.dumps({"plan": "what", "timings": 7, "sessions": {"a, restart 1": "ok"}}))
    assert planned_timings([measured]) == 7


@pytest.mark.parametrize("text", ["", "[]", '{"sessions": 1}', '{"sessions": [1]}', '{"timings": "many"}', "1"])
def test_a_plan_that_cannot_be_read_is_one_line(measured, text):
    (measured / "plan.json").write_text(text)
    with pytest.raises(ResultsError, match=r"plan\.json: is not the state of a plan"):
        planned_timings([measured])


def test_a_forged_environment_is_found(measured, tmp_path):
    folder = write_evidence(measured, tmp_path / "reference")
    content = json.loads((folder / "environment.json").read_text())
    content[0]["threads"] = content[0]["threads"] + 1
    (folder / "environment.json").write_text(json.dumps(content))
    seal_again(folder)
    assert list(check_table(folder)) == ["environment.json: is not what the records say"]


def test_a_folder_of_records_alone_has_no_table_to_check(measured):
    assert list(check_table(measured)) == []


COMMITTED = [
    pytest.param(path, id=path.name)
    for path in sorted((REPOSITORY / "results" / "reference").iterdir())
    if path.is_dir()
]


@pytest.mark.parametrize("folder", COMMITTED)
def test_committed_evidence_holds(folder):
    """A table that is written another way is made again of the same records: bundle them anew."""
    found = evidence.verify(folder)
    assert list(found.problems) == [] and found.records + count_tables(folder) > 0
    assert [*check_table(folder), *check_tables(folder)] == []
