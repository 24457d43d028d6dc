"""A folder of results with names that try to break a page, and the page of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.records.record import Metric, Record, load, save
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.report.page import write_report
from dcae_bench.tables.bundle.write import write_bundle
from dcae_bench.tables.generation.build import build as build_generation
from dcae_bench.tables.generation.files import write as write_generation
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.files import write
from dcae_bench.tables.reported.generation import load_reported_generation
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
from dcae_bench.tables.runs import Holdings
from tests.tables.conftest import record as make_record

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&lt;|{{7*7}}'\"`**"
GENERATOR = np.random.default_rng(0)


def kept(record: Record, path: Path) -> Record:
    save(record, path)
    return load(path)


def noise(*shape: int) -> np.ndarray:
    return GENERATOR.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="package")
def results(tmp_path_factory) -> Path:
    """Reconstructions and samples of two autoencoders with images and logs, and the evidence of a GPU."""
    folder = tmp_path_factory.mktemp("report") / "results"
    root = folder / "tiny"
    records, originals = {}, noise(2, 16, 16, 3)
    for family, psnr in (("sd-vae", 20.0), ("dc-ae", 22.5)):
        name = f"{family}-f32c32"
        for phase in (1, 3):
            path = root / f"reconstruction/{name}@retrained/phase{phase}/photos-128.json"
            about = {"phase": phase, "profile": "tiny", "psnr": psnr + phase / 10, "rfd_notes": (f"note {HOSTILE}",)}
            records[path] = kept(make_record(family, intervals={"ssim": (0.6, 0.7)}, **about), path)
            shown = np.stack([originals, noise(2, 16, 16, 3)], axis=1)
            np.save(path.with_suffix(".samples.npy"), shown)
            values = {"group": np.array(["worst", "median"]), "key": np.array([HOSTILE, "b"])}
            values |= {"psnr": np.array([10.0, 20.0]), "lpips_alex_u8": np.array([0.5, 0.2])}
            np.savez(path.with_suffix(".gallery.npz"), images=shown, **values)
            training = root / f"training/{name}@retrained/phase{phase}/record.json"
            losses = {"l1": 0.1} | ({"lpips": 0.5} if phase == 1 else {})  # phase 3 has no LPIPS
            metrics = {key: Metric(label=key, value=value) for key, value in losses.items()}
            made = make_record(family, kind="training", phase=phase, profile="tiny")
            kept(made.model_copy(update={"metrics": metrics}), training)
            lines = [{"images": 10 * step, **losses} for step in range(30)]
            training.with_name("log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    holdings = Holdings((f"{HOSTILE} on photos-128",))
    gone = {("x", "photos-64"): (f"no data {HOSTILE}",)}
    reported = load_reported_reconstruction()
    write(
        build("tiny", records, reported, lambda *_: (f"why {HOSTILE}",), not_measured=gone, holdings=holdings),
        folder / "table_rfid.md",
    )
    write_samples(root, folder)
    (folder / "reference").mkdir()
    (folder / "reference/h100-2026-11-27").symlink_to(REPOSITORY / "results/reference/h100-2026-11-27")
    return folder


def write_samples(root: Path, folder: Path) -> None:
    about = {"name": "uvit-s", "family": "uvit", "process": "vp", "patch": 1, "tokens": 64, "classes": None}
    denoiser = DenoiserSubject(row="row", **about, parameters=7, gmacs=1.5, weights_sha256="e" * 64)
    found = {}
    for kind, path in (("generation", "generation/row/s1.5.json"), ("diffusion_training", "diffusion/row/record.json")):
        metrics = {"gfd_x": Metric(label=f"gFD {HOSTILE}", value=0.5, better="lower")}
        if kind != "generation":
            metrics = {key: Metric(label=key, value=2.0) for key in ("loss", "flops_per_image", "training_flops")}
        record = make_record(kind=kind, profile="tiny", settings={"guidance": "1.5"} if kind == "generation" else {})
        found[root / path] = kept(record.model_copy(update={"denoiser": denoiser, "metrics": metrics}), root / path)
    (root / "diffusion/row/log.jsonl").write_text('{"images": 1, "loss": 2.0}\n{"images": 9, "loss": 1.0}\n')
    samples = root / "samples/row/s1.5/samples.npy"
    samples.parent.mkdir(parents=True)
    np.save(samples, noise(3, 16, 16, 3))
    table = build_generation("tiny", found, load_reported_generation(), lambda *_: ("no",))
    write_generation(table, folder / "table_diffusion.md")


@pytest.fixture(scope="package")
def page(results) -> Path:
    """The page of these results."""
    output = results / "report.html"
    write_report(results, output)
    return output


H100 = REPOSITORY / "results/reference/h100-2026-11-27-second/records"


def on(device: str, **facts):
    """A record of another machine."""
    record = make_record(profile="tiny", **facts)
    made = record.provenance
    changed = made.model_copy(update={"device": made.device.model_copy(update={"name": device})})
    return record.model_copy(update={"provenance": changed})


def bundled(path: Path, *records) -> Path:
    """A bundle of records without tables."""
    results = path.with_name(f"results-{path.name}")
    for number, record in enumerate(records):
        save(record, results / f"tiny/reconstruction/{number}.json")
    return write_bundle(results, path)


@pytest.fixture(scope="package")
def bundles(tmp_path_factory) -> list[Path]:
    """Bundles of two labs, of a lab with hostile names, and of an H100."""
    root = tmp_path_factory.mktemp("labs")
    timings = root / "measured"
    timings.mkdir()
    for path in H100.glob("paper-v1.uvit-h.*.forward.share4.r1*.json"):
        shutil.copy(path, timings)
    hostile = on(HOSTILE, autoencoder=HOSTILE, psnr=30.0, data_set=HOSTILE * 50, settings={HOSTILE: HOSTILE})
    return [
        bundled(root / "one", on("Same 1"), on("Same 1", family="sd-vae", psnr=25.5, rfd=None, rfid=3.5)),
        bundled(root / "two.zip", on("Same 1", autoencoder="theirs", psnr=27.25), on("Other 2", psnr=28.5)),
        bundled(root / "hostile.zip", hostile),
        write_bundle(timings, root / "h100.zip"),
    ]
