"""A sealed folder of timings, and its table built again."""

import json

import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import main
from dcae_bench.measurement import evidence
from dcae_bench.measurement.record import save
from dcae_bench.tables.throughput.evidence import bundle, check_table
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
    folder = bundle(measured, tmp_path / "reference")
    assert folder.name == "nvidia-h100-80gb-hbm3-2026-01-02"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        *("SHA256SUMS", "environment.json", "plan.json"),
        *("table_throughput.md", "table_throughput.csv", "table_throughput.json"),
        *("records/sd-vae-f8c4 p2.json", "records/dc-ae-f64c128 p1.json", "records/x.nvml.json"),
    }
    assert len(json.loads((folder / "environment.json").read_text())) == 1
    assert list(check_table(folder)) == []
    with pytest.raises(ResultsError, match="is there already"):
        bundle(measured, tmp_path / "reference")
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_table_that_the_records_do_not_make_is_found(measured, tmp_path, monkeypatch, capsys):
    folder = bundle(measured, tmp_path / "reference")
    page = folder / "table_throughput.md"
    page.write_text(page.read_text().replace("502 M", "503 M"))
    (folder / evidence.SUMS).unlink()
    evidence.seal(folder)  # as somebody would who wants another number
    monkeypatch.setattr("sys.argv", ["dcae-bench", "verify", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "table_throughput.md: is not what the records make of it" in capsys.readouterr().out


def test_devices_are_not_mixed(measured, tmp_path):
    save(timing(gpu=None), measured / "cpu.json")
    with pytest.raises(ResultsError, match="several devices"):
        bundle(measured, tmp_path)


@pytest.mark.parametrize("folder", sorted(path.parent for path in REPOSITORY.glob("results/reference/*/SHA256SUMS")))
def test_committed_evidence_holds(folder):
    """A table that is written another way is made again of the same records: bundle them anew."""
    found = evidence.verify(folder)
    assert found.records > 0 and list(found.problems) == []
    assert list(check_table(folder)) == []
