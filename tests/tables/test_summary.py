"""The last words on a table: its numbers are those of its JSON."""

import json
import sys
from pathlib import Path

import pytest

from dcae_bench.cli.main import main
from dcae_bench.tables.summary import summary
from tests.fixtures.commands import refused  # noqa: F401

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"
TABLES = sorted(REFERENCE.glob("*/table_*.json"))


def content(name: str) -> dict:
    return json.loads((REFERENCE / name).read_text())


@pytest.mark.parametrize("table", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_committed_table_has_three_numbers_and_says_what_to_open(table):
    before = table.read_bytes()
    head, *numbers, last = summary(table)
    assert head.startswith("results/reference/") and len(numbers) == 3
    assert last.startswith(f"Open {head.partition(':')[0]}") and table.read_bytes() == before


def test_the_numbers_of_a_reconstruction_are_those_of_its_last_pair():
    runs = {run["path"]: run["record"] for run in content("demo/table_rfid.json")["runs"]}
    _, psnr, *_ = summary(REFERENCE / "demo" / "table_rfid.json")
    ours = runs["results/demo/reconstruction/dc-ae-f64c128@retrained/phase3/photos-indoor-128.json"]
    theirs = runs["results/demo/reconstruction/sd-vae-f64c128@retrained/phase3/photos-indoor-128.json"]
    for record in (ours, theirs):
        assert f"{record['metrics']['psnr']['value']:.2f} ±" in psnr and record["subject"]["autoencoder"] in psnr


def test_an_interval_that_is_not_symmetric_is_told_by_its_ends(tmp_path):
    table = content("demo/table_rfid.json")
    for run in table["runs"]:
        metric = run["record"]["metrics"]["psnr"]
        metric["interval"] |= {"low": metric["value"] - 1, "high": metric["value"] + 3}
    path = tmp_path / "table_rfid.json"
    path.write_text(json.dumps(table))
    line = summary(path)[1]
    assert "PSNR" in line and line.count("] dB by ") == 2 and "±" not in line


def test_speed_ups_come_first_with_their_verdicts():
    rows = content("h100-2026-11-27/table_throughput.json")["rows"]
    told = [row for row in rows if row["speed_up"]][:3]
    _, *numbers, _ = summary(REFERENCE / "h100-2026-11-27" / "table_throughput.json")
    for row, line in zip(told, numbers, strict=True):
        assert f"{row['speed_up']:.2f}x" in line and f"({row['verdict']})" in line and row["work"] in line


def test_the_lowest_distances_are_those_of_different_latent_spaces():
    found = content("demo/table_diffusion.json")["runs"]
    values = {}
    for run in found:
        value = run["record"]["metrics"]["gfd_efficientnet_lite0"]["value"]
        values[run["latent_space"]] = min(value, values.get(run["latent_space"], value))
    _, *numbers, _ = summary(REFERENCE / "demo" / "table_diffusion.json")
    for (space, value), line in zip(sorted(values.items(), key=lambda one: one[1]), numbers, strict=False):
        assert f" {value:.1f} ± " in line and f"on {space}" in line


def test_a_judged_number_of_the_paper_comes_first(tmp_path):
    table = content("demo/table_rfid.json")
    answer = table["reported"][0]["answers"]["released"]
    answer["judgements"] = {"rfid": {"verdict": "within_noise", "reason": "0.22 measured, 0.22 reported"}}
    path = tmp_path / "table_rfid.json"
    path.write_text(json.dumps(table))
    assert "rfid: within noise (0.22 measured, 0.22 reported)" in summary(path)[1]


def test_a_table_without_measurements_has_no_numbers(tmp_path):
    table = content("demo/table_rfid.json") | {"runs": [], "differences": [], "expected": []}
    path = tmp_path / "table_rfid.json"
    path.write_text(json.dumps(table))
    assert summary(path)[0].endswith("0 measurements of profile demo") and len(summary(path)) == 2


@pytest.mark.parametrize(
    "damage", ["{", '{"table": "reconstruction"}', '{"table": "other", "runs": []}', '{"rows": 3, "sources": []}']
)
def test_a_damaged_table_is_a_line(damage, refused, tmp_path):  # noqa: F811
    path = tmp_path / "t\x1b.json"
    path.write_text(damage)
    assert "t\\x1b.json" in refused("show", path)


def test_show_prints_the_summary_of_a_table(monkeypatch, capsys):
    path = REFERENCE / "demo" / "table_ablation.json"
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "show", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and capsys.readouterr().out.splitlines() == summary(path)
