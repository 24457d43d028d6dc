"""Metrics of generated images beside torch-fidelity's entry point, and the pass that feeds them."""

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_file
from dcae_bench.data.samples import ArrayImages, Samples
from dcae_bench.evaluation.features import FeaturePass
from dcae_bench.evaluation.gaussian import load_reference_batch, read_gaussian
from dcae_bench.evaluation.protocols import GenerationProtocol
from dcae_bench.evaluation.samples import generation_metrics, require_enough, statistics_metrics
from dcae_bench.running.processes import Worker

CPU = torch.device("cpu")
PROTOCOL = GenerationProtocol("generation/test", ("pooled",), "pooled", inception_score=True, images=40)
CLASSIFIER = torch.from_numpy(np.random.default_rng(3).normal(0, 0.05, (7, 12))).float()


class Pooled:
    """Mean colours of a 2x2 grid under the names of FID's network, with a classifier for the Inception Score."""

    name, dim, weights_sha256 = "Inception, torch-fidelity", 12, "0" * 64
    distance, key = "FID (torch-fidelity)", "fid_torch_fidelity"

    class model:
        classifier = CLASSIFIER

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


class Theirs(FeatureExtractorBase):
    """The same network as torch-fidelity wants its extractors."""

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)

    def forward(self, x):
        features = torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1)
        found = {"pooled": features, "logits": features @ CLASSIFIER.T}
        return tuple(found[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list():
        return "pooled", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "pooled"

    @staticmethod
    def can_be_compiled():
        return False


def pictures(count, seed, low=0):
    """Smooth images uint8 (n, 16, 16, 3) that differ more than noise does."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, 256, (count, 2, 2, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))


def arrays(images, name="images"):
    return ArrayImages(images, name=name, sha256=f"{images.sum():064d}")


@pytest.fixture
def extractor():
    return Pooled()


@pytest.fixture
def features(extractor):
    return FeaturePass({"pooled": extractor}, CPU, batch_size=7)


@pytest.fixture(scope="module")
def sides():
    return pictures(60, 0), pictures(40, 1, low=60)


@pytest.fixture
def measured(features, extractor, sides, tmp_path):
    real, fake = (features.extract(arrays(side), tmp_path / str(n)) for n, side in enumerate(sides))
    return generation_metrics(PROTOCOL, {"pooled": extractor}, real, fake)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_agrees_with_torch_fidelity(measured, sides, tmp_path):
    for name, images in zip(("real", "fake"), sides, strict=True):
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{index:03}.png")
    torch_fidelity.register_feature_extractor("pooled-test", Theirs)
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        feature_extractor="pooled-test",
        **dict.fromkeys(("fid", "kid", "isc", "prc"), True),
        **dict.fromkeys(("cuda", "cache", "verbose"), False),
        kid_subset_size=40,
    )
    ours = {key: metric.value for key, metric in measured.items()}
    assert ours == {
        "gfid_torch_fidelity": pytest.approx(theirs["frechet_inception_distance"], rel=1e-3),
        "kid_torch_fidelity": pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3),
        "precision_torch_fidelity": theirs["precision"],
        "recall_torch_fidelity": theirs["recall"],
        "inception_score": pytest.approx(theirs["inception_score_mean"], rel=1e-3),
    }
    assert ours["precision_torch_fidelity"] > 0 and ours["inception_score"] > 1.05


def test_intervals_and_names(measured):
    labels = {key: metric.label for key, metric in measured.items()}
    assert labels["gfid_torch_fidelity"] == "gFID (torch-fidelity)" and labels["inception_score"] == "IS"
    assert labels["precision_torch_fidelity"] == "precision"
    for key in measured.keys() - {"kid_torch_fidelity"}:
        interval = measured[key].interval
        assert interval.low <= measured[key].value <= interval.high
    assert "60 reference images and 40 samples" in measured["recall_torch_fidelity"].notes[0]


def test_embedded_networks_are_named(features, extractor, sides, tmp_path):
    extractor.name, extractor.distance = "EfficientNet-Lite0", "FD (EfficientNet-Lite0)"
    extractor.key = "fd_efficientnet_lite0"
    real, fake = (features.extract(arrays(side), tmp_path / str(n)) for n, side in enumerate(sides))
    protocol = GenerationProtocol("generation/photos", ("pooled",), "pooled")
    found = generation_metrics(protocol, {"pooled": extractor}, real, fake)
    assert {key: metric.label for key, metric in found.items()} == {
        "gfd_efficientnet_lite0": "gFD (EfficientNet-Lite0)",
        "kd_efficientnet_lite0": "KD (EfficientNet-Lite0)",
        "precision_efficientnet_lite0": "precision (EfficientNet-Lite0)",
        "recall_efficientnet_lite0": "recall (EfficientNet-Lite0)",
    }


def test_equal_images_have_distance_zero(features, extractor, sides, tmp_path):
    real = features.extract(arrays(sides[0]), tmp_path / "real")
    found = generation_metrics(PROTOCOL, {"pooled": extractor}, real, real)
    # Squares of 255 in float64 leave about this much.
    assert found["gfid_torch_fidelity"].value < 1e-6
    assert found["precision_torch_fidelity"].value == found["recall_torch_fidelity"].value == 1


@pytest.mark.parametrize("content", ["statistics", "images"])
def test_reference_batch(features, extractor, sides, tmp_path, content):
    real = features.extract(arrays(sides[0]), tmp_path / "real")
    fake = features.extract(arrays(sides[1]), tmp_path / "fake")
    own = real["pooled"]
    saved = {"arr_0": sides[0]} if content == "images" else {"mu": own.mean(0), "sigma": np.cov(own, rowvar=False)}
    np.savez(tmp_path / "batch.npz", **saved)
    batch = load_reference_batch(tmp_path / "batch.npz", features, "pooled", tmp_path / "batch")
    found = generation_metrics(PROTOCOL, {"pooled": extractor}, real, fake, batch)
    adm, own = found["gfid_torch_fidelity_adm"], found["gfid_torch_fidelity"]
    assert adm.value == pytest.approx(own.value, rel=1e-5)
    assert adm.label == "FID (torch-fidelity), ADM batch" and "batch.npz" in adm.notes[0]


def test_a_reference_of_statistics_alone_leaves_out_what_needs_images(features, extractor, sides, measured, tmp_path):
    real, fake = (features.extract(arrays(side), tmp_path / str(n)) for n, side in enumerate(sides))
    own = real["pooled"]
    np.savez(tmp_path / "s.npz", mu=own.mean(0), sigma=np.cov(own, rowvar=False))
    reference = read_gaussian(tmp_path / "s.npz", "pooled", 12)
    alone = statistics_metrics(PROTOCOL, {"pooled": extractor}, reference, None, fake)
    assert alone.keys() == {"gfid_torch_fidelity", "inception_score"}
    assert alone["gfid_torch_fidelity"].value == pytest.approx(measured["gfid_torch_fidelity"].value, rel=1e-5)
    assert alone["gfid_torch_fidelity"].label == "gFID (torch-fidelity)"
    both = statistics_metrics(PROTOCOL, {"pooled": extractor}, reference, real, fake)
    assert both.keys() == measured.keys() and both["kid_torch_fidelity"] == measured["kid_torch_fidelity"]


def test_other_files_are_no_reference_batch(features, tmp_path):
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    np.savez(tmp_path / "small.npz", mu=np.zeros(3), sigma=np.eye(3))
    for name, message in (("other", "neither mu and sigma"), ("small", "not of 12"), ("absent", "cannot be read")):
        with pytest.raises(DataError, match=f"{name}.npz.*{message}"):
            load_reference_batch(tmp_path / f"{name}.npz", features, "pooled", tmp_path / "batch")


@pytest.mark.parametrize("damage", ["cut", "flipped", "array", "nan"])
def test_a_damaged_reference_batch_is_named(features, tmp_path, damage):
    path = tmp_path / "batch.npz"
    sigma = np.eye(12)
    sigma[3, 3] = np.nan if damage == "nan" else 1
    np.savez_compressed(path, mu=np.zeros(12), sigma=sigma)
    content = bytearray(path.read_bytes())
    if damage == "cut":  # a download that broke off
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[60:80] = bytes(20)
        path.write_bytes(content)
    elif damage == "array":
        np.save(tmp_path / "array.npy", np.zeros((4, 8, 8, 3), np.uint8))
        (tmp_path / "array.npy").rename(path)
    with pytest.raises(DataError, match=r"batch\.npz: .*get ADM's reference batch"):
        load_reference_batch(path, features, "pooled", tmp_path / "batch")


def test_an_interrupted_reference_batch_is_not_gone_on_with_by_another(features, sides, tmp_path, another_cache):
    for name, images in (("wrong", sides[0]), ("right", sides[0][::-1])):
        np.savez(tmp_path / f"{name}.npz", arr_0=images)
    whole = load_reference_batch(tmp_path / "right.npz", features, "pooled", tmp_path / "alone")
    another_cache()

    def stopped(done, total):
        if done > 30:
            raise KeyboardInterrupt

    features.progress = stopped
    with pytest.raises(KeyboardInterrupt):
        load_reference_batch(tmp_path / "wrong.npz", features, "pooled", tmp_path / "batch")
    features.progress = lambda done, total: None
    found = load_reference_batch(tmp_path / "right.npz", features, "pooled", tmp_path / "batch")
    assert np.array_equal(found.mean, whole.mean) and np.array_equal(found.covariance, whole.covariance)


def test_a_pass_goes_on_where_it_stopped(features, extractor, sides, tmp_path):
    class Broken(ArrayImages):
        def __getitem__(self, index):
            if index == 30:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    whole = np.array(features.extract(arrays(sides[0]), tmp_path / "whole")["pooled"])
    with pytest.raises(KeyboardInterrupt):
        features.extract(Broken(sides[0], name="n", sha256="0"), tmp_path / "state")
    extractor.seen = 0
    assert np.array_equal(features.extract(arrays(sides[0]), tmp_path / "state")["pooled"], whole)
    assert extractor.seen == 60 - 28


def test_reference_features_are_kept(features, extractor, sides, tmp_path):
    first = np.array(features.extract_reference(arrays(sides[0]), tmp_path / "state")["pooled"])
    features.forget(tmp_path / "state")
    extractor.seen = 0
    assert np.array_equal(features.extract_reference(arrays(sides[0]), tmp_path / "state")["pooled"], first)
    assert extractor.seen == 0


def test_kept_features_that_not_every_process_has_are_computed_again(features, extractor, sides, tmp_path):
    first = np.array(features.extract_reference(arrays(sides[0]), tmp_path / "first")["pooled"])
    extractor.seen = 0
    features.process = Worker()
    object.__setattr__(features.process, "names_everywhere", lambda names: [])
    assert np.array_equal(features.extract_reference(arrays(sides[0]), tmp_path / "second")["pooled"], first)
    assert extractor.seen == 60


def test_processes_share_the_work(extractor, sides, tmp_path):
    whole = FeaturePass({"pooled": extractor}, CPU, batch_size=7).extract(arrays(sides[0]), tmp_path / "whole")[
        "pooled"
    ]
    shares = [Worker(rank, 2) for rank in (0, 1)]
    for share in shares:
        object.__setattr__(share, "wait", lambda: None)
    features = FeaturePass({"pooled": extractor}, CPU, batch_size=7, process=shares[0])
    with pytest.raises(Exception, match="28 of 60 images were not measured"):
        features.extract(arrays(sides[0]), tmp_path / "shared")
    features.process = shares[1]
    assert np.array_equal(features.extract(arrays(sides[0]), tmp_path / "shared")["pooled"], whole)


def test_too_few_and_broken_images(features, extractor, sides, tmp_path):
    with pytest.raises(DataError, match=r"9 samples cannot be evaluated.*at least 10"):
        require_enough(PROTOCOL, 9, 60)
    with pytest.raises(DataError, match="9 reference images cannot be evaluated"):
        require_enough(PROTOCOL, 60, 9)
    require_enough(PROTOCOL, 10, None)
    with pytest.raises(DataError, match="at least 2"):
        features.extract(arrays(sides[1][:1]), tmp_path / "one")
    features.extractors = {
        "pooled": type("NaN", (Pooled,), {"__call__": lambda self, x: torch.full((len(x), 12), torch.nan)})()
    }
    with pytest.raises(DataError, match="images#0: its features by pooled are not finite"):
        features.extract(arrays(sides[1]), tmp_path / "nan")


def write_samples(folder, images, labels=None):
    folder.mkdir(exist_ok=True)
    np.save(folder / "samples.npy", images)
    np.save(folder / "labels.npy", np.zeros(len(images), np.int64) if labels is None else labels)
    return folder


def test_samples_of_a_folder(sides, tmp_path):
    folder = write_samples(tmp_path / "s", sides[1])
    sha256, labels_sha256 = (sha256_file(folder / name) for name in ("samples.npy", "labels.npy"))
    samples = Samples(folder, sha256=sha256, labels_sha256=labels_sha256)
    assert (len(samples), samples.resolution, samples.sha256) == (40, 16, sha256)
    assert np.array_equal(samples[3].permute(1, 2, 0).numpy(), sides[1][3]) and samples.key(3).endswith("#3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((3, 8, 8, 3), np.float32)}, "samples.npy: holds float32"),
        ({"images": np.zeros((3, 8, 4, 3), np.uint8)}, r"holds uint8 \(3, 8, 4, 3\)"),
        ({"labels": np.zeros(2, np.int64)}, "labels.npy: holds int64"),
        ({}, r"samples.npy: sha256 is \w{64}, samples.json says 0{64}; delete .* and sample again"),
    ],
)
def test_damaged_samples(tmp_path, change, message):
    write_samples(tmp_path / "s", **{"images": np.zeros((3, 8, 8, 3), np.uint8), **change})
    with pytest.raises(DataError, match=message):
        Samples(tmp_path / "s", sha256="0" * 64, labels_sha256="0" * 64)


def test_absent_samples(tmp_path):
    with pytest.raises(DataError, match=r"samples.npy: cannot be read.*dcae-bench sample"):
        Samples(tmp_path, sha256="0" * 64, labels_sha256="0" * 64)
