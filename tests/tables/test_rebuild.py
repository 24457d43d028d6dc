"""Tables of records in a folder of evidence, made again of the records that they hold."""

import json
import sys
from pathlib import Path

import pytest

from dcae_bench.cli.main import main
from dcae_bench.measurement import evidence
from dcae_bench.records.digest import digest_of
from dcae_bench.records.record import Metric, load, save
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.generation.build import build as build_generation
from dcae_bench.tables.generation.files import write as write_generation
from dcae_bench.tables.rebuild import check_tables, count_tables
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.files import write
from dcae_bench.tables.reported.generation import load_reported_generation
from dcae_bench.tables.runs import Holdings


def not_run(row, source):
    return (f"too small a machine for {source} weights", "no images")


def saved(record, path):
    save(record, path)
    return load(path)


@pytest.fixture
def folder(tmp_path, make_record, make_released, reported):
    """A sealed folder with both tables: own records, one left out, one beside that answers a row, a denoiser."""
    made, records = tmp_path / "evidence", {}
    for family in ("sd-vae", "dc-ae"):
        path = tmp_path / f"{family}.json"
        intervals = {"psnr": (21.356, 21.556)}
        records[path] = saved(make_record(family, intervals=intervals, psnr=21.456), path)
    beside = {tmp_path / "b.json": saved(make_released(), tmp_path / "b.json")}
    holdings = Holdings(("a", "b"), {tmp_path / "o.json": ("its seed is 1, the profile's 2",)}, {}, tuple(records))
    gone = {("x", "photos-64"): ("no data",)}
    table = build("demo", records, reported, not_run, beside=beside, not_measured=gone, holdings=holdings)
    write(table, made / "table_rfid.md")
    about = {"row": "r", "name": "uvit-s", "family": "uvit", "process": "vp", "patch": 1, "tokens": 64, "classes": None}
    denoiser = DenoiserSubject(**about, parameters=7, gmacs=1.5, weights_sha256="e" * 64)
    for kind in ("generation", "diffusion_training"):
        key = "gfd_x" if kind == "generation" else "loss"
        changes = {"denoiser": denoiser, "metrics": {key: Metric(label=key, value=0.5, better="lower")}}
        records[tmp_path / kind] = saved(make_record(kind=kind).model_copy(update=changes), tmp_path / kind)
    denoisers = {path: record for path, record in records.items() if record.denoiser}
    write_generation(
        build_generation("demo", denoisers, load_reported_generation(), not_run), made / "table_diffusion.md"
    )
    evidence.seal(made)
    return made


def seal_again(folder):
    (folder / evidence.SUMS).unlink()
    evidence.seal(folder)


def problems(folder) -> list[str]:
    seal_again(folder)
    assert evidence.verify(folder).problems == ()
    return list(check_tables(folder))


def test_sound_tables_are_made_again_to_the_byte(folder, monkeypatch, capsys):
    assert problems(folder) == [] and count_tables(folder) == 2
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "verify", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "2 tables of records from their records" in capsys.readouterr().out


def test_a_folder_without_tables_has_nothing_to_make_again(tmp_path):
    assert list(check_tables(tmp_path)) == [] and count_tables(tmp_path) == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("table_rfid.md", "21.46", "29.46"),
        ("table_rfid.csv", "21.456", "29.456"),
        ("table_rfid.md", "its seed is 1", "its seed is 2"),
        ("table_rfid.json", '"match"', '"better"'),
        ("table_rfid.json", '"value": 26.1489275', '"value": 26.1489276'),
        ("table_rfid.json", '"value": 2.64', '"value": 2.65'),
        ("table_diffusion.md", "1.5", "1.6"),
        ("table_diffusion.csv", "0.5", "0.4"),
        ("table_diffusion.json", '"loss": 0.5', '"loss": 0.4'),
    ],
)
@pytest.mark.parametrize("without_page", [False, True])
def test_a_forged_file_is_found(folder, file, old, new, without_page):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    page = path.with_suffix(".md")
    if without_page and path != page:
        page.unlink()
    found = problems(folder)
    assert found and all(path.stem in problem for problem in found)


def edit(folder, change, *, digest: bool):
    path = folder / "table_rfid.json"
    content = json.loads(path.read_text())
    record = content["runs"][0]["record"]
    change(record)
    if digest:
        record["digest"] = digest_of(record)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return problems(folder)


def test_an_edited_record_in_a_table_is_found(folder):
    def psnr(record):
        record["metrics"]["psnr"]["value"] = 21.4

    (found,) = edit(folder, psnr, digest=False)
    assert "its digest is not that of its content" in found


def test_an_edited_record_with_a_digest_contradicts_the_pages(folder):
    def psnr(record):
        record["metrics"]["psnr"]["value"] = 21.4

    assert len(edit(folder, psnr, digest=True)) == 3


def test_a_value_outside_its_interval_is_found(folder):
    def psnr(record):
        record["metrics"]["psnr"]["value"] = 99.9

    (found,) = edit(folder, psnr, digest=True)
    assert "lies outside its own interval" in found


def test_a_record_without_a_digest_is_found(folder):
    (found,) = edit(folder, lambda record: record.pop("digest"), digest=False)
    assert "it carries no digest" in found


@pytest.mark.parametrize("gone", ["table_rfid.csv", "table_rfid.json", "table_diffusion.md"])
def test_a_missing_file_of_a_table_is_found(folder, gone):
    (folder / gone).unlink()
    assert problems(folder) == [f"{gone}: is missing beside the other files of its table"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"runs": 1, "beside": []}', "[" * 100_000])
def test_json_that_is_no_table_is_one_line(folder, text):
    Path(folder / "table_rfid.json").write_text(text)
    (found,) = problems(folder)
    assert "table_rfid.json: is not the JSON of a table" in found and "\n" not in found
