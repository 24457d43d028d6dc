"""Two small honest bundles, which tests copy: timings of an H100, and reconstructions of another machine."""

import shutil
from pathlib import Path

import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.records.record import load, save
from dcae_bench.tables.bundle.write import write_bundle
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.files import write
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
from tests.tables.conftest import record

H100 = REPOSITORY / "results/reference/h100-2026-11-27-second/records"


@pytest.fixture(scope="package")
def results(tmp_path_factory) -> Path:
    """Results of a tiny profile with a table, an unfinished run, and a figure."""
    folder, records = tmp_path_factory.mktemp("run") / "results", {}
    for family, psnr in (("sd-vae", 20.0), ("dc-ae", 22.5)):
        path = folder / f"tiny/reconstruction/{family}-f32c32@retrained/phase3/photos-128.json"
        save(record(family, profile="tiny", psnr=psnr, intervals={"psnr": (psnr - 0.1, psnr + 0.1)}), path)
        records[path] = load(path)
    rows = load_reported_reconstruction()
    write(build("tiny", records, rows, lambda *_: ("no images",)), folder / "table_rfid.md")
    for name in ("tiny/runs/x/record.json", "tiny/data/photos/eval.json", "report.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "figures").mkdir()
    (folder / "figures/losses.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture(scope="package")
def timings(tmp_path_factory) -> Path:
    """Timings of one forward pass on an H100 with their trace; the state of one was not good."""
    folder = tmp_path_factory.mktemp("timings") / "measured"
    folder.mkdir()
    for path in H100.glob("paper-v1.uvit-h.*.forward.share4.r1*.json"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="package")
def honest(results, timings, tmp_path_factory) -> dict[str, Path]:
    """Bundles by name, as folders."""
    root = tmp_path_factory.mktemp("bundles")
    return {
        "timings": write_bundle(timings, root / "timings"),
        "tables": write_bundle(results, root / "tables"),
    }
