"""The whole evaluation compared with the usual tools: the same crops, the same weights, one run.

The usual way is to write originals and reconstructions as PNG files, and then to run torch-fidelity's command,
clean-fid twice and torchmetrics on the folders, one after another. ``DCAE_BENCH_IMAGES`` sets the number of 256 px
crops (1,000 by default, about an hour on two cores). Inception has random weights, because its file may be absent and
the time does not depend on the values.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import cleanfid.fid
import cleanfid.inception_pytorch
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from dcae_bench.base.files import REPOSITORY
from dcae_bench.data.crops import eval_crops
from dcae_bench.data.packed import Photos
from dcae_bench.data.photos import DATASETS, load_manifest, read_photo
from dcae_bench.evaluation.protocols import PAPER_V1
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
from dcae_bench.evaluation.sanity import jpeg
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.summary import summarise
from dcae_bench.extractors.lpips import LPIPS

pytestmark = pytest.mark.long
IMAGES = int(os.environ.get("DCAE_BENCH_IMAGES", "1000"))
SIDE, BATCH, WORKERS = 256, 16, os.cpu_count() or 1
SUBSET = min(1000, IMAGES)


class Crops:
    """Crops of the embedded photographs in memory."""

    name, split, resolution = "photos", "eval", SIDE

    def __init__(self):
        photos = [photo for name in DATASETS for photo in load_manifest(name).photos]
        each = -(-IMAGES // len(photos))
        arrays = Photos([read_photo(photo) for photo in photos], [photo.name for photo in photos])
        self.images = eval_crops(arrays, each, 0, SIDE)[:IMAGES]
        self.sha256 = self.manifest_sha256 = f"{SIDE} px, {IMAGES} images"

    def __len__(self):
        return len(self.images)

    def key(self, index):
        return str(index)

    def __getitem__(self, index):
        return self.images[index]


@pytest.fixture(scope="module")
def crops():
    return Crops()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random Inception weights in the tools' format; the features differ between images."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save({}, folder / "empty.pth")
    with mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        net = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth"))
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    path = folder / "inception.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture
def all_cores():
    torch.set_num_threads(WORKERS)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))


def codec(quality):
    """JPEG in place of an autoencoder. JPEG is cheap, so that the measured time is the evaluation's own."""
    return jpeg(quality)


def test_evaluation(benchmark, crops, weights, all_cores, own_cache, tmp_path):
    """Time our evaluation of a first and of a second autoencoder, then the usual tools. extra_info holds all times."""
    suite = paper_suite(weights)
    evaluator = ReconstructionEvaluator(suite, batch_size=BATCH, threads=WORKERS)
    seconds, found = {}, {}
    for name, quality in (("first", 25), ("further", 50)):
        with timed(seconds, name):
            measured = evaluator.measure(codec(quality), crops, tmp_path / name)
            found[name] = {k: m.value for k, m in summarise(measured, suite, crops, resamples=0, seed=0).items()}
            evaluator.forget(tmp_path / name)
    parts = {}
    with timed(seconds, "usual tools"):
        theirs = usual_tools(crops, codec(25), weights, tmp_path / "png", parts)
    # Metrics of random weights have keys of their own, so that nobody takes these numbers for FIDs.
    ours = {key.replace("rfd_inception", "rfid").replace("kd_inception", "kid"): x for key, x in found["first"].items()}
    apart = {key: abs(ours[key] / value - 1) for key, value in theirs.items()}
    benchmark.extra_info.update(
        seconds=seconds,
        parts=parts,
        images=IMAGES,
        side=SIDE,
        threads=WORKERS,
        relative_difference=apart,
        first=seconds["usual tools"] / seconds["first"],
        further=seconds["usual tools"] / seconds["further"],
    )
    print(json.dumps(benchmark.extra_info, indent=1))
    benchmark.pedantic(lambda: None, rounds=1)
    assert all(x < 1e-3 for x in apart.values()), apart


def paper_suite(weights):
    from dcae_bench.extractors.by_name import load

    names = dict.fromkeys([*PAPER_V1.distances, *PAPER_V1.kernel_distances])
    networks = {name: load(name, weights, any_hash=True) for name in names}
    return Suite(PAPER_V1, networks, {net: LPIPS.load(net) for net in PAPER_V1.lpips}, torch.device("cpu"))


def usual_tools(crops, reconstruct, weights, folder, parts):
    folders = [folder / side for side in ("real", "fake")]
    with timed(parts, "write PNG"):
        for path in folders:
            path.mkdir(parents=True)
        for start in range(0, IMAGES, BATCH):
            real = crops.images[start : start + BATCH]
            for path, images in zip(folders, (real, reconstruct(real, range(start, start + len(real)))), strict=True):
                for number, image in enumerate(images, start):
                    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path / f"{number:06}.png")
    with timed(parts, "torch-fidelity"):
        scores = torch_fidelity(*folders, weights)
    for mode in ("legacy_pytorch", "clean"):
        with timed(parts, f"clean-fid {mode}"):
            scores |= clean_fid(*folders, weights, mode)
    with timed(parts, "torchmetrics"):
        scores |= torchmetrics_scores(*folders)
    return scores


def torch_fidelity(real, fake, weights):
    command = [
        *(
            str(Path(sys.executable).with_name("fidelity")),
            "--fid",
            "--kid",
            "--cpu",
            "--json",
            "--silent",
            "--no-cache",
        ),
        *("--batch-size", str(BATCH), "--kid-subset-size", str(SUBSET)),
        *("--feature-extractor-weights-path", str(weights), "--input1", str(fake), "--input2", str(real)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    return {
        "rfid_torch_fidelity": found["frechet_inception_distance"],
        "kid_torch_fidelity": found["kernel_inception_distance_mean"],
    }


def clean_fid(real, fake, weights, mode):
    """clean-fid with its own network; ``weights`` replaces the file that clean-fid would download."""
    with mock.patch.object(cleanfid.inception_pytorch, "load_state_dict_from_url", lambda *a, **k: torch.load(weights)):
        net = cleanfid.inception_pytorch.InceptionV3(
            output_blocks=[3], resize_input=False, normalize_input=False
        ).eval()
    scale = (lambda x: 2 * (x / 255) - 1) if mode == "legacy_pytorch" else (lambda x: (x - 128) / 128)
    found = cleanfid.fid.compute_fid(
        str(fake),
        str(real),
        mode=mode,
        num_workers=WORKERS,
        batch_size=BATCH,
        device=torch.device("cpu"),
        custom_feat_extractor=lambda x: net(scale(x))[0].flatten(1),
        verbose=False,
    )
    return {"rfid_pytorch_fid" if mode == "legacy_pytorch" else "rfid_clean_fid": found}


def torchmetrics_scores(real, fake):
    nets = {"alex": _LPIPS(net="alex", pnet_rand=True), "vgg": _LPIPS(net="vgg", pnet_rand=True)}
    for name, net in nets.items():
        ours = [layer for stage in LPIPS.load(name).stages for layer in stage if isinstance(layer, nn.Conv2d)]
        convs = (layer for layer in net.net.modules() if isinstance(layer, nn.Conv2d))
        for mine, theirs in zip(ours, convs, strict=True):
            theirs.load_state_dict(mine.state_dict())
    psnr = PeakSignalNoiseRatio(data_range=255.0, reduction="elementwise_mean", dim=(1, 2, 3))
    ssim = StructuralSimilarityIndexMeasure(data_range=255.0)
    sums = dict.fromkeys(nets, 0.0)
    names = sorted(path.name for path in real.iterdir())
    with torch.inference_mode():
        for start in range(0, len(names), BATCH):
            a, b = (
                torch.stack([read_png(side / name) for name in names[start : start + BATCH]]) for side in (real, fake)
            )
            psnr.update(b, a)
            ssim.update(b, a)
            for name, net in nets.items():
                sums[name] += net(b / 127.5 - 1, a / 127.5 - 1).sum().item()
    return {
        "psnr": psnr.compute().item(),
        "ssim_torchmetrics": ssim.compute().item(),
        **{f"lpips_{name}_u8": total / len(names) for name, total in sums.items()},
    }


def read_png(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@contextlib.contextmanager
def timed(into, name):
    start = time.perf_counter()
    yield
    into[name] = round(time.perf_counter() - start, 2)


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from dcae_bench.evaluation.protocols import PAPER_V1
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
from dcae_bench.evaluation.summary import summarise
from dcae_bench.evaluation.suite import Suite
from dcae_bench.extractors.lpips import LPIPS

class Crops:
    name, split, resolution = "noise", "eval", 64
    def __init__(self, count):
        self.count, self.sha256 = count, f"noise {count}"
    def __len__(self):
        return self.count
    def key(self, index):
        return str(index)
    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)

class Projection:
    dim, weights_sha256 = 2048, "0" * 64
    def __init__(self, name):
        self.name, self.key, self.distance = name, "fd_" + name, "FD (" + name + ")"
        self.matrix = torch.randn(3 * 64 * 64, 2048, generator=torch.Generator().manual_seed(0)) / 100
    def __call__(self, images):
        return (images.flatten(1).float() / 255) @ self.matrix

torch.set_num_threads(2)
names = dict.fromkeys([*PAPER_V1.distances, *PAPER_V1.kernel_distances])
lpips = {net: LPIPS.load(net) for net in PAPER_V1.lpips}
suite = Suite(PAPER_V1, {name: Projection(name) for name in names}, lpips, torch.device("cpu"))
crops, folder = Crops(int(sys.argv[1])), Path(sys.argv[2])
evaluator = ReconstructionEvaluator(suite, batch_size=16, threads=2)
measured = evaluator.measure(lambda images, indices: images // 2 + 30, crops, folder)
summarise(measured, suite, crops, resamples=0, seed=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_from_1000_to_10000_images(benchmark, own_cache, tmp_path):
    """Peak memory must not grow with the number of images. A matrix product replaces the networks, to save time."""
    peaks = {}
    for images in (1_000, 10_000):
        command = [sys.executable, "-c", MEMORY, str(images), str(tmp_path / str(images))]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[images] = round(float(done.stdout))
    benchmark.extra_info.update(peak_mib=peaks)
    print(json.dumps(peaks))
    benchmark.pedantic(lambda: None, rounds=1)
    assert peaks[10_000] <= 1.1 * peaks[1_000]
