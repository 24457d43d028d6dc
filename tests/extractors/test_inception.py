"""Inception features and distances beside the tools' own entry points: same PNG files, same weights file."""

import io

import cleanfid.fid
import cleanfid.inception_pytorch
import numpy as np
import pytest
import torch
import torch_fidelity
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors.inception import DEFINITIONS, LAYERS, Inception, InceptionExtractor
from dcae_bench.metrics import inception_score as inception_score_module
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.metrics.inception_score import inception_score, unbiased_logits
from dcae_bench.metrics.kernel import kernel_distance
from dcae_bench.metrics.precision_recall import precision_recall

KEPT = 512  # of the features, for clean-fid's matrix square root: with all 2048 it needs most of a minute


@pytest.fixture(scope="module")
def model(inception_file):
    return Inception.load(inception_file, any_hash=True)


@pytest.fixture(scope="module")
def found(model, photo_pairs):
    """Our features of both sides by each definition."""
    return {name: [InceptionExtractor(model, name)(images) for images in photo_pairs] for name in DEFINITIONS}


@pytest.fixture(scope="module")
def folders(photo_pairs, tmp_path_factory):
    paths = [tmp_path_factory.mktemp(name) for name in ("real", "fake")]
    for path, images in zip(paths, photo_pairs, strict=True):
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path / f"{index}.png")
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def unfolded(inception_file):
    return FeatureExtractorInceptionV3("reference", ["2048"], str(inception_file))


def agree(features, expected):
    expected = torch.as_tensor(expected)
    assert features.dtype == torch.float32 and features.shape == expected.shape
    assert (features - expected).norm() < 1e-5 * expected.norm()


def compare_with_clean_fid(ours, extract, folders, mode):
    """Compare features, and what clean-fid's entry point prints for those that vary most."""
    seen = []
    kept = ours[0].std(dim=0).topk(KEPT).indices

    def spy(batch):
        seen.append(extract(batch))
        return seen[-1][:, kept]

    options = {"num_workers": 0, "batch_size": 8, "device": torch.device("cpu"), "verbose": False}
    value = cleanfid.fid.compute_fid(*folders, mode=mode, custom_feat_extractor=spy, **options)
    for features, theirs in zip(ours, seen, strict=True):
        agree(features, theirs)
    assert frechet_distance(*(features[:, kept] for features in ours)).value == pytest.approx(value, rel=1e-3)


def test_features_tell_images_apart(found):
    for real, _ in found.values():
        assert real.std(dim=0).mean() > 0.02 * real.mean()


def test_definitions_differ(found):
    values = [frechet_distance(*sides).value for sides in found.values()]
    assert min(values) > 0
    assert all(abs(a / b - 1) > 1e-3 for a, b in ((values[0], values[1]), (values[0], values[2]), values[1:]))


@pytest.mark.filterwarnings("ignore:.*pretrained.*:UserWarning", "ignore:Arguments other than:UserWarning")
def test_pytorch_fids_definition(found, folders, inception_state, monkeypatch):
    monkeypatch.setattr(cleanfid.inception_pytorch, "load_state_dict_from_url", lambda *_, **__: inception_state)
    network = cleanfid.inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).eval()
    compare_with_clean_fid(found["pytorch-fid"], lambda x: network(x / 255)[0].flatten(1), folders, "legacy_pytorch")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_clean_fids_definition(found, folders, unfolded, tmp_path):
    class Published(nn.Module):
        """What clean-fid's TorchScript file offers."""

        def __init__(self):
            super().__init__()
            layers = nn.Sequential(*(getattr(unfolded, name) for name in LAYERS)).eval()
            self.layers = torch.jit.trace(layers, torch.zeros(1, 3, 299, 299), check_trace=False)

        def forward(self, x):
            return self.layers(x)

    torch.jit.script(Published().eval()).save(str(tmp_path / "inception-2015-12-05.pt"))
    network = InceptionV3W(str(tmp_path), download=False, resize_inside=False)
    compare_with_clean_fid(found["clean-fid"], network, folders, "clean")


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_torch_fidelitys_definition(model, found, folders, unfolded, photo_pairs, inception_file, monkeypatch):
    real, fake = found["torch-fidelity"]
    agree(real[:2], unfolded(photo_pairs[0][:2])[0])
    theirs = torch_fidelity.calculate_metrics(
        input1=folders[1],
        input2=folders[0],
        fid=True,
        kid=True,
        kid_subset_size=len(real),
        isc=True,
        isc_splits=2,
        prc=True,
        feature_extractor="inception-v3-compat",  # else torch-fidelity takes VGG16 for precision and recall
        cuda=False,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(inception_file),
    )
    assert frechet_distance(real, fake).value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert kernel_distance(real, fake).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    monkeypatch.setattr(inception_score_module, "SPLITS", 2)
    score = inception_score(unbiased_logits(fake.numpy(), model.classifier))
    assert score.value - 1 == pytest.approx(theirs["inception_score_mean"] - 1, rel=2e-3)
    assert score.spread == pytest.approx(theirs["inception_score_std"], rel=2e-3)
    shares = precision_recall(real, fake)
    assert (shares.precision, shares.recall) == (theirs["precision"], theirs["recall"])


def test_folding_changes_only_rounding(model, unfolded):
    x = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(1)) * 2 - 1
    layers = nn.Sequential(*(getattr(unfolded, name) for name in LAYERS)).double()
    with torch.inference_mode():
        exact = layers(x.double()).flatten(1)
    unfolded.float()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert (model(x).double() - exact).norm() < 2e-6 * exact.norm()


def test_one_network_serves_all_definitions(model, inception_file):
    assert Inception.load(inception_file, any_hash=True) is model


def test_names_say_fid_only_with_fids_weights(model, monkeypatch):
    other = InceptionExtractor(model, "pytorch-fid")
    assert other.distance == "FD (Inception, pytorch-fid, other weights)" and other.key == "fd_inception_pytorch_fid"
    monkeypatch.setattr(model, "official", True)
    labels = {InceptionExtractor(model, name).distance for name in DEFINITIONS}
    assert labels == {"FID (pytorch-fid)", "FID (torch-fidelity)", "FID (clean-fid clean)"}
    assert InceptionExtractor(model, "clean-fid").key == "fid_clean_fid"
    assert other.weights_sha256 == model.weights_sha256


def test_only_8_bit_colour_images(model):
    for wrong in (torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            InceptionExtractor(model, "pytorch-fid")(wrong)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.bias": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="do not fit the network"):
        Inception.load(path, any_hash=True)


def test_resizing_in_threads_keeps_the_order(photo_pairs):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = DEFINITIONS["clean-fid"].preprocess(photo_pairs[0])
    finally:
        torch.set_num_threads(before)
    alone = [DEFINITIONS["clean-fid"].preprocess(image[None]) for image in photo_pairs[0]]
    assert torch.equal(together, torch.cat(alone))
    assert np.ptp(together.numpy()) > 1


def test_copy_of_the_weights_is_ours(inception_state, tmp_path):
    """torch-fidelity unpickles anything, so a file with code in it must be stopped before."""

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "code.pth"
    buffer = io.BytesIO()
    torch.save({**inception_state, "extra": Code()}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="is not a file of tensors"):
        Inception.load(path, any_hash=True)
    assert not (tmp_path / "ran").exists()
