"""The paper's protocol from files on disk to a record's metrics, with Inception's weights replaced by random ones."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from dcae_bench.base.errors import DataError
from dcae_bench.data.adm import dm_crop
from dcae_bench.data.external import image_folder
from dcae_bench.data.images import FileCrops
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.prepare import prepare_files
from dcae_bench.evaluation.protocols import PAPER_V1
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
from dcae_bench.evaluation.sanity import jpeg
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.summary import summarise
from dcae_bench.extractors import by_name as extractors
from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.metrics.image import psnr, ssim_both
from dcae_bench.metrics.kernel import kernel_distance
from tests.data.image_files import write_images

SIDE = 64
PATHS = ["a/1.png", "a/2.jpg", "b/1.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three files larger than the crop, and their manifest."""
    root = tmp_path_factory.mktemp("files")
    write_images(root / "images", PATHS, size=(170, 90))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCAE_BENCH_CACHE", str(root / "cache"))
        prepare_files(image_folder("own"), "eval", root / "images", root / "data")
    return root


@pytest.fixture(scope="module")
def networks(inception_file):
    names = dict.fromkeys([*PAPER_V1.distances, *PAPER_V1.kernel_distances])
    return {name: extractors.load(name, inception_file, any_hash=True) for name in names}


def test_files_become_every_metric_of_the_protocol(folder, networks, tmp_path):
    crops = FileCrops(FileManifest(folder / "data" / "eval.parquet"), SIDE)
    protocol = dataclasses.replace(PAPER_V1, images={"own": 4})
    suite = Suite(protocol, networks, {net: LPIPS.load(net) for net in PAPER_V1.lpips}, torch.device("cpu"))
    measured = ReconstructionEvaluator(suite, batch_size=2, threads=2).measure(jpeg(30), crops, tmp_path / "state")
    metrics = summarise(measured, suite, crops, resamples=0, seed=0)

    pictures = [dm_crop(Image.open(folder / "images" / path).convert("RGB"), SIDE) for path in PATHS]
    real = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    fake = jpeg(30)(real, range(3))
    expected = {
        "psnr": psnr(real, fake),
        "ssim": ssim_both(real, fake)[0],
        "ssim_torchmetrics": ssim_both(real, fake)[1],
        **{f"lpips_{net}_u8": suite.lpips[net].of_uint8(fake, real) for net in ("alex", "vgg")},
    }
    for key, values in expected.items():
        assert metrics[key].value == pytest.approx(values.double().mean().item(), rel=1e-6), key
        assert metrics[key].interval.low <= metrics[key].value <= metrics[key].interval.high
    for name, extractor in networks.items():
        found = metrics[f"r{extractor.key}"]
        features = extractor(real), extractor(fake)
        assert found.value == pytest.approx(frechet_distance(*(x.double().numpy() for x in features)).value, rel=1e-5)
        assert found.notes == (
            "3 images for 2048 features: the covariances are rank-deficient, the distance is computed exactly from "
            "singular values, and it is biased upwards; compare it only at equal image counts",
            "3 images instead of the protocol's 4: a Fréchet distance grows as images fall",
        )
        if name in PAPER_V1.kernel_distances:
            kernel = metrics[extractor.key.replace("fd", "kd", 1)]
            assert kernel.value == pytest.approx(kernel_distance(*features).value, rel=1e-4)
            assert any("subsets of 3 instead of 1000" in note for note in kernel.notes)
    assert len(metrics) == 3 + 1 + 5
    # The weights are not FID's, and no name claims they are.
    assert not any("FID" in metric.label or "KID" in metric.label for metric in metrics.values())


def test_a_file_that_changed_after_it_was_prepared_is_named(folder, networks, tmp_path):
    images = tmp_path / "images"
    write_images(images, PATHS, size=(170, 90))
    prepare_files(image_folder("own"), "eval", images, tmp_path / "data")
    crops = FileCrops(FileManifest(tmp_path / "data" / "eval.parquet"), SIDE)
    write_images(images, [*PATHS[:2], "x.png", "b/1.png"], size=(170, 90))
    suite = Suite(PAPER_V1, networks, {"alex": LPIPS.load("alex")}, torch.device("cpu"))
    evaluator = ReconstructionEvaluator(suite, batch_size=3)
    with pytest.raises(DataError, match=r"images/b/1\.png: .*sha256"):
        evaluator.measure(jpeg(30), crops, tmp_path / "state")


def test_names_of_the_papers_metrics_are_those_that_verdicts_look_for(networks):
    from dcae_bench.tables.reconstruction.judge import RECORD_KEYS

    official = {f"rfid_{name.removeprefix('inception-').replace('-', '_')}" for name in PAPER_V1.distances}
    suite = Suite(PAPER_V1, networks, {net: LPIPS("alex") for net in PAPER_V1.lpips}, torch.device("cpu"))
    assert set(RECORD_KEYS.values()) <= official | set(suite.value_names)
