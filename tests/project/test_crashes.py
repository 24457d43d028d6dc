"""A machine that crashes while a command runs: the same command, run again, gives what an unbroken one gives."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dcae_bench.base import leftovers, row_files
from dcae_bench.data import packed, scan
from dcae_bench.data.external import image_folder
from dcae_bench.data.prepare import prepare_files
from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction
from dcae_bench.evaluation.suite import Suite
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.generation.sample import sample_images
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.profile import load_profile
from dcae_bench.records.record import load
from dcae_bench.subjects.choose import choose_autoencoder
from dcae_bench.training.diffusion_run import train_diffusion
from dcae_bench.training.run import train_phase
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion
from tests.crashing_disk import CrashingDisk
from tests.fixtures.evaluation import lpips, suite, tiny  # noqa: F401
from tests.loop_device import LoopDisk, make_image, mounted

QUICK, LONG, REAL = 3, 24, 16
"""Crash points of each stage in a quick run, and the least in a long one, which takes every point in three ways;
and those on a real file system."""
SPEED = {"images_per_s", "waiting"}

Run = Callable[[Path], None]
Result = Callable[[Path], object]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the stages read: packs, an autoencoder, latents and a denoiser."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_diffusion.write_data(folder / "data")
    weights = tiny_diffusion.write_weights(folder / "sd-vae.safetensors")
    profile = tiny_diffusion.profile()
    encode_dataset(profile, "sd-vae@retrained", "two", data=folder / "data", output=folder / "two", weights=weights)
    model = build_denoiser(profile.row("uvit").denoiser, seed=1)
    about = TrainedWeights(kind="denoiser", name="uvit")
    save_weights(model.state_dict(), folder / "uvit.safetensors", trained=about)
    random = np.random.default_rng(0)
    for number in range(20):
        path = folder / "images" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(path)
    return folder


def files_of(folder: Path, *without: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in without}


def metrics_of(path: Path) -> dict[str, object]:
    metrics = load(path).metrics
    return {name: metric.model_dump() for name, metric in metrics.items() if name not in SPEED}


@pytest.fixture
def prepare(inputs) -> tuple[Run, Result]:
    def run(root):
        prepare_files(image_folder("own"), "eval", inputs / "images", root / "out")

    def result(root):
        table = pq.read_table(root / "out" / "eval.parquet").to_pydict()
        return table, files_of(root / "out", "eval.parquet")

    return run, result


@pytest.fixture
def pack(inputs, monkeypatch) -> tuple[Run, Result]:
    class Manifest:
        name, sha256 = "two", "0" * 64

        def split(self, split):
            return [type("Photo", (), {"name": path.name, "path": path}) for path in sorted(inputs.glob("images/*"))]

    monkeypatch.setattr(packed, "read_photo", lambda photo: np.asarray(Image.open(photo.path)))

    def run(root):
        packed.pack(Manifest(), "eval", 40, root / "two" / "eval.npy")
        packed.PackedPhotos.open(root / "two" / "eval.npy")

    return run, lambda root: files_of(root / "two")


@pytest.fixture
def encode(inputs) -> tuple[Run, Result]:
    def run(root):
        encode_dataset(
            tiny_diffusion.profile(),
            "sd-vae@retrained",
            "two",
            data=inputs / "data",
            output=root / "latents",
            weights=inputs / "sd-vae.safetensors",
        )

    def result(root):
        manifest = json.loads((root / "latents" / "manifest.json").read_text())
        return files_of(root / "latents", "manifest.json"), {**manifest, "seconds": 0, "content_sha256": None}

    return run, result


@pytest.fixture
def sample(inputs) -> tuple[Run, Result]:
    def run(root):
        sample_images(
            tiny_diffusion.profile({("diffusion", "samples"): 7}),
            "uvit",
            output=root / "samples",
            weights=inputs / "uvit.safetensors",
            latents=inputs / "two",
            autoencoder=inputs / "sd-vae.safetensors",
        )

    def result(root):
        manifest = json.loads((root / "samples" / "samples.json").read_text())
        return files_of(root / "samples", "samples.json"), {**manifest, "seconds": 0, "content_sha256": None}

    return run, result


@pytest.fixture
def train(inputs) -> tuple[Run, Result]:
    def run(root):
        train_phase(
            tiny_diffusion.profile({("training", "phases", 1, "images"): 24}),
            "sd-vae",
            1,
            data=inputs / "data",
            initial=None,
            output=root / "phase1" / "model.safetensors",
            run_dir=root / "runs",
        )

    def result(root):
        return files_of(root / "phase1", "record.json"), metrics_of(root / "phase1" / "record.json")

    return run, result


@pytest.fixture
def train_denoiser(inputs) -> tuple[Run, Result]:
    def run(root):
        train_diffusion(
            tiny_diffusion.profile(),
            "uvit",
            latents=inputs / "two",
            output=root / "uvit" / "model.safetensors",
            run_dir=root / "runs",
            autoencoder=inputs / "sd-vae.safetensors",
        )

    def result(root):
        return files_of(root / "uvit", "record.json"), metrics_of(root / "uvit" / "record.json")

    return run, result


@pytest.fixture
def evaluate(tiny, suite, monkeypatch) -> tuple[Run, Result]:  # noqa: F811
    monkeypatch.setattr(Suite, "load", lambda *_: suite)
    profile = load_profile(tiny.folder / "tiny.yaml")
    chosen = choose_autoencoder(profile, "sd-vae-f2c4", tiny.folder / "model.safetensors")

    def run(root):
        evaluate_reconstruction(profile, chosen, data=tiny.folder / "data", output=root / "evaluation")

    def result(root):
        (record,) = (root / "evaluation").glob("*.json")
        (table,) = (root / "evaluation").glob("*.parquet")
        (samples,) = (root / "evaluation").glob("*.npy")
        kept = {path.name: path.read_bytes() for path in (root / "cache" / "reference").glob("*.raw")}
        return metrics_of(record), pq.read_table(table).to_pydict(), samples.read_bytes(), kept

    return run, result


def fresh(root: Path, monkeypatch) -> Path:
    """The root for a command that runs as in a process of its own."""
    leftovers._swept.clear()
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(root / "cache"))
    return root


def commit_always(monkeypatch) -> None:
    monkeypatch.setattr(row_files, "COMMIT_S", 0.0)
    monkeypatch.setattr(scan, "WRITE_S", 0.0)


def leftovers_in(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if not path.is_relative_to(root / "cache")]


def crash_everywhere(run: Run, result: Result, folder: Path, monkeypatch, points: int | None) -> int:
    """Run once to count the crash points, once to copy the disk at ``points`` of them, and again on every copy.

    None takes every point, and three copies at each. Returns the number of copies.
    """
    commit_always(monkeypatch)
    counting = CrashingDisk(folder / "whole", folder / "none", every=1 << 30, first=1 << 30)
    with counting.watch():
        run(fresh(folder / "whole", monkeypatch))
    whole = result(folder / "whole")
    every = counting.points // points if points else 1
    modes = 1 if points else 3
    disk = CrashingDisk(folder / "watched", folder / "copies", every=every, first=every // 2, modes=modes)
    with disk.watch():
        run(fresh(folder / "watched", monkeypatch))
    disk.clean()
    print(f"{counting.points} crash points, {len(disk.made)} copies")
    for copy in disk.made:
        run(fresh(copy, monkeypatch))
        assert result(copy) == whole, copy.name
        assert not (left := leftovers_in(copy)), f"{copy.name}: leftovers {left}"
    return len(disk.made)


STAGES = ["prepare", "pack", "encode", "sample", "train", "train_denoiser", "evaluate"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("stage", STAGES)
def test_a_crash_of_the_machine_changes_no_number(stage, request, tmp_path, monkeypatch):
    run, result = request.getfixturevalue(stage)
    assert crash_everywhere(run, result, tmp_path, monkeypatch, QUICK) >= QUICK


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_crashes_at_many_points_change_no_number(stage, request, tmp_path, monkeypatch):
    run, result = request.getfixturevalue(stage)
    assert crash_everywhere(run, result, tmp_path, monkeypatch, None) >= LONG


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_crash_of_a_real_file_system_changes_no_number(stage, request, tmp_path, monkeypatch):
    """An image on a loop device, copied while the command runs, and mounted again for the same command."""
    run, result = request.getfixturevalue(stage)
    commit_always(monkeypatch)
    counting = CrashingDisk(tmp_path / "whole", tmp_path / "none", every=1 << 30, first=1 << 30)
    with counting.watch():
        run(fresh(tmp_path / "whole", monkeypatch))
    whole = result(tmp_path / "whole")
    try:
        with mounted(make_image(tmp_path / "disk.img")):
            pass
    except RuntimeError as error:
        pytest.skip(f"this machine mounts no loop device ({error})")
    disk = LoopDisk(tmp_path / "disk.img", tmp_path / "copies", every=max(1, counting.points // REAL))
    with mounted(disk.image) as root, disk.watch():
        run(fresh(root / "results", monkeypatch))
    assert len(disk.made) >= REAL // 2
    for copy in disk.made:
        with mounted(copy) as root:
            run(fresh(root / "results", monkeypatch))
            assert result(root / "results") == whole, copy.name
            assert not (left := leftovers_in(root / "results")), f"{copy.name}: leftovers {left}"
        copy.unlink()
    print(f"{stage}: {len(disk.made)} copies of a real file system")
