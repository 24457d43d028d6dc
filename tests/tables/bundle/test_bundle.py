"""Bundles: honest ones of other machines are accepted, and each way of tampering is refused with its reason."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dcae_bench.base.errors import CheckError, ResultsError
from dcae_bench.base.files import REPOSITORY, sha256_file
from dcae_bench.cli.main import main
from dcae_bench.measurement import evidence
from dcae_bench.records.digest import digest_of
from dcae_bench.tables.bundle.accept import Reason, examine
from dcae_bench.tables.bundle.opened import opened
from dcae_bench.tables.bundle.write import write_bundle


def seal_again(folder: Path, *, listed: bool = True) -> None:
    """As somebody would who wants another number: every hash is right again."""
    manifest = json.loads((folder / "bundle.json").read_text())
    if listed:
        manifest["records"] = {
            name: sha256_file(folder / name) for name in manifest["records"] if (folder / name).exists()
        }
    (folder / "bundle.json").write_text(json.dumps(manifest))
    (folder / evidence.SUMS).unlink()
    evidence.seal(folder)


def record_file(folder: Path, part: str = "") -> Path:
    return sorted(path for path in folder.rglob("records/**/*.json") if part in path.name and "nvml" not in path.name)[
        0
    ]


def edit(change, part: str = "", *, digest: bool = True):
    """A way of tampering: change the content of a record, and mostly its digest."""

    def tamper(folder: Path) -> None:
        path = record_file(folder, part)
        content = json.loads(path.read_text())
        change(content)
        if digest:
            content["digest"] = digest_of(content)
        path.write_text(json.dumps(content))

    return tamper


def rewrite(name: str, old: str, new: str):
    def tamper(folder: Path) -> None:
        text = (folder / name).read_text()
        assert re.search(old, text)
        (folder / name).write_text(re.sub(old, new, text, count=1))

    return tamper


def remove(*names: str):
    def tamper(folder: Path) -> None:
        for name in names:
            for path in folder.glob(name):
                path.unlink()

    return tamper


def put(*keys, value):
    """A change of a record's content: the value at these keys."""

    def change(content) -> None:
        for key in keys[:-1]:
            content = content[key]
        assert content[keys[-1]] != value
        content[keys[-1]] = value

    return change


def edit_table(folder: Path) -> None:
    content = json.loads((folder / "table_rfid.json").read_text())
    record = content["runs"][0]["record"]
    record["metrics"]["psnr"]["value"] = 20.01
    record["digest"] = digest_of(record)
    (folder / "table_rfid.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def remove_record_and_entry(folder: Path) -> None:
    record_file(folder).unlink()


def not_listed(folder: Path) -> None:
    content = json.loads(record_file(folder).read_text())
    (folder / "records/more.json").write_text(json.dumps(content))


def no_table_listed(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | {"tables": []}))


def trace_of_nothing(folder: Path) -> None:
    path = sorted(folder.rglob("*.nvml.json"))[0]
    trace = json.loads(path.read_text())
    trace["samples"] = trace["samples"][:1]
    path.write_text(json.dumps(trace))


SPEED = ("derived", "images_per_s", "value")
GATE = {"state": "good", "reasons": [], "notes": []}
PSNR = ("metrics", "psnr", "value")
WAYS = {
    "a speed": ("timings", edit(put(*SPEED, value=9e9), digest=False), Reason.NUMBER, "digest"),
    "a speed with its digest": ("timings", edit(put(*SPEED, value=9e9)), Reason.NUMBER, "do not follow"),
    "the memory": ("timings", edit(put("derived", "peak_gib", value=0.5)), Reason.NUMBER, "do not follow"),
    "a good state": (
        "timings",
        edit(put("restarts", 0, "gate", value=GATE), "f64c128"),
        Reason.NUMBER,
        "the gate says degraded",
    ),
    "a short trace": ("timings", trace_of_nothing, Reason.NUMBER, "the gate says unknown"),
    "no trace": ("timings", remove("records/*.nvml.json"), Reason.NUMBER, "r1.nvml.json: trace cannot be read"),
    "a trace from elsewhere": (
        "timings",
        edit(put("restarts", 0, "trace", value="../../x.nvml.json")),
        Reason.NUMBER,
        "is not the name of a file beside it",
    ),
    "a page": ("timings", rewrite("table_throughput.md", r"\d\.\d", "9.7"), Reason.TABLE, ".md: is not what"),
    "a table of timings": (
        "timings",
        rewrite("table_throughput.csv", r"\d+\.\d+", "9.75"),
        Reason.TABLE,
        "table_throughput.csv: is not what the records make",
    ),
    "no table of timings": ("timings", remove("table_throughput.*"), Reason.TABLE, "not in the bundle"),
    "an unlisted table": ("timings", no_table_listed, Reason.TABLE, "does not list"),
    "an environment": ("timings", rewrite("environment.json", r'"cpus": \d+', '"cpus": 7'), Reason.FILE, "not what"),
    "a protocol of timings": (
        "timings",
        edit(put("protocol", value="throughput/paper-v9")),
        Reason.PROTOCOL,
        "'throughput/paper-v9' is none of",
    ),
    "a timing less": ("timings", remove_record_and_entry, Reason.TABLE, "is not what the records make"),
    "no commit": ("timings", edit(put("provenance", "commit", value=None)), Reason.CODE, "states no commit"),
    "no hash": ("timings", edit(put("provenance", "code_sha256", value="my")), Reason.CODE, "'my' is no hash of code"),
    "a quality": ("tables", edit(put(*PSNR, value=20.05), digest=False), Reason.NUMBER, "digest"),
    "an impossible quality": ("tables", edit(put(*PSNR, value=99.0)), Reason.NUMBER, "outside its own interval"),
    "a quality with its digest": ("tables", edit(put(*PSNR, value=20.05)), Reason.MISSING, "no file of the bundle"),
    "a quality in the table": ("tables", edit_table, Reason.MISSING, "table_rfid.json: holds"),
    "a verdict": ("tables", rewrite("table_rfid.md", "20.00", "29.00"), Reason.TABLE, "table_rfid.md: is not what"),
    "half a table": ("tables", remove("table_rfid.csv"), Reason.TABLE, "table_rfid.csv: is missing"),
    "no table": ("tables", rewrite("table_rfid.json", r"(?s).*", "[]"), Reason.TABLE, "is not the JSON of a table"),
    "a record less": ("tables", remove_record_and_entry, Reason.MISSING, "no file of the bundle"),
    "a record more": ("tables", not_listed, Reason.FILE, "does not list"),
    "a protocol": (
        "tables",
        edit(put("protocol", value="reconstruction/ours-v1")),
        Reason.PROTOCOL,
        "'reconstruction/ours-v1' is none of",
    ),
    "a machine": ("tables", rewrite("bundle.json", "Testium 9000", "Bestium 9000"), Reason.FILE, "makers"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_tampering_is_refused_with_its_reason(honest, tmp_path, way):
    name, tamper, reason, text = WAYS[way]
    folder = shutil.copytree(honest[name], tmp_path / "bundle")
    tamper(folder)
    seal_again(folder)
    found = examine(folder).refused
    assert any(problem.reason == reason and text in problem.text for problem in found), list(map(str, found))
    assert not any("\n" in str(problem) or str(tmp_path) in str(problem) for problem in found)
    assert not any("hash than SHA256SUMS" in problem.text for problem in found), "every hash is right"


@pytest.mark.parametrize(
    ("tamper", "reason", "text"),
    [
        (rewrite("table_rfid.md", "20.00", "29.00"), Reason.FILE, "table_rfid.md: has another hash"),
        (remove("records/**/*.json"), Reason.MISSING, "is in bundle.json and not in the bundle"),
        (remove("figures/losses.png"), Reason.FILE, "figures/losses.png: is missing"),
    ],
)
def test_what_was_not_sealed_again_is_refused_too(honest, tmp_path, tamper, reason, text):
    folder = shutil.copytree(honest["tables"], tmp_path / "bundle")
    tamper(folder)
    assert any(problem.reason == reason and text in problem.text for problem in examine(folder).refused)


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["dcae-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_a_run_is_bundled_with_everything_and_nothing_else(results, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new" / "run.zip"
    assert run(monkeypatch, capsys, "bundle", results, "--output", path)[0] == 0
    with opened(path) as folder:
        files = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
        records = {name for name in files if name.startswith("records/")}
        assert examine(folder).refused == ()
    place = "records/tiny/reconstruction/{}-f32c32@retrained/phase3/photos-128.json"
    assert records == {place.format("sd-vae"), place.format("dc-ae")}
    others = {"SHA256SUMS", "bundle.json", "table_rfid.md", "table_rfid.csv", "table_rfid.json", "figures/losses.png"}
    assert files == records | others
    code, out, _ = run(monkeypatch, capsys, "verify", path)
    assert code == 0 and "accepted; 8 files" in out and "1 tables" in out
    again = write_bundle(results, tmp_path / "again.zip")
    assert again.read_bytes() == path.read_bytes(), "equal results give equal bytes"
    code, _, error = run(monkeypatch, capsys, "bundle", results, "--output", path)
    assert code == 2 and "is there already" in error


def test_timings_of_a_disturbed_machine_are_told_and_refuse_nothing(honest, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "verify", honest["timings"])
    lines = out.splitlines()
    assert code == 0 and len(lines) == 2 and lines[0].startswith("gate not good: records/paper-v1.uvit-h.dc-ae-f64c128")
    assert "1 timings are accepted nowhere" in lines[1]


def test_a_refused_bundle_ends_with_one_line(honest, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(honest["tables"], tmp_path / "bundle")
    edit(put("protocol", value="reconstruction/ours-v1"))(folder)
    seal_again(folder)
    code, out, error = run(monkeypatch, capsys, "verify", folder)
    assert code == 2 and "foreign protocol: records/" in out
    assert len(error.splitlines()) == 1 and "is not accepted, for" in error


def test_results_that_contradict_themselves_are_not_bundled(results, tmp_path):
    copy = shutil.copytree(results, tmp_path / "results")
    rewrite("table_rfid.md", "20.00", "29.00")(copy)
    with pytest.raises(CheckError, match=r"changed table: table_rfid\.md"):
        write_bundle(copy, tmp_path / "out")
    with pytest.raises(CheckError):
        write_bundle(copy, tmp_path / "out.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_a_table_brings_its_records_along(results, tmp_path):
    """A folder may hold a table alone: its JSON holds the records."""
    (tmp_path / "alone").mkdir()
    for path in results.glob("table_rfid.*"):
        shutil.copy(path, tmp_path / "alone")
    folder = write_bundle(tmp_path / "alone", tmp_path / "out")
    found = examine(folder)
    assert found.refused == () and len(found.records) == 2


def test_a_folder_without_records_is_one_line(tmp_path):
    with pytest.raises(ResultsError, match="holds no record"):
        write_bundle(tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["demo", "h100-2026-11-27", "h100-2026-11-27-second"])
def test_committed_evidence_makes_an_accepted_bundle(name, tmp_path):
    path = write_bundle(REPOSITORY / "results/reference" / name, tmp_path / "bundle.zip")
    with opened(path) as folder:
        found = examine(folder)
    assert found.refused == () and len(found.records) > 7
