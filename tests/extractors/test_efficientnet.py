import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors import efficientnet as module
from dcae_bench.extractors.efficientnet import EfficientNetLite0, SameConv2d, efficientnet_lite0_extractor
from dcae_bench.extractors.embedded import embedded_sha256


@pytest.fixture(scope="module")
def extractor():
    return efficientnet_lite0_extractor()


def central(photo):
    """The part of a photograph that ImageNet classifiers are shown: the middle square, 7/8 wide."""
    height, width, _ = photo.shape
    side = min(height, width) * 7 // 8
    top, left = (height - side) // 2, (width - side) // 2
    return torch.from_numpy(np.ascontiguousarray(photo[top : top + side, left : left + side])).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("photo", "label"), [("chelsea", 282), ("coffee", 967)], ids=["tiger cat", "espresso"])
def test_names_what_photographs_show(extractor, photo, label):
    images = central(getattr(skimage.data, photo)())
    with torch.no_grad():
        scores = extractor.model(extractor.model.preprocess(images))
    assert scores.argmax().item() == label


def test_published_size():
    # 4.65 M parameters: table of the EfficientNet-Lite release.
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == pytest.approx(4.65e6, rel=2e-3)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 7), (1, 2)])
def test_padding_is_tensorflows(kernel, stride, size, rng):
    conv = SameConv2d(2, 3, kernel, stride=stride)
    x = torch.randn(1, 2, *size, generator=rng)
    # Definition: out = ceil(in / stride), total = (out - 1) stride + kernel - in, the smaller half in front.
    pads = []
    for length in reversed(size):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pads += [total // 2, total - total // 2]
    expected = F.conv2d(F.pad(x, pads), conv.weight, conv.bias, stride=stride)
    found = conv(x)
    assert found.shape[2:] == tuple(-(-length // stride) for length in size)
    torch.testing.assert_close(found, expected)


def test_preprocessing_values(extractor):
    constant = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 50, 40)
    x = extractor.model.preprocess(constant)
    assert x.shape == (1, 3, 224, 224)
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.tensor([-127 / 128, 0.0, 1.0]), atol=1e-5, rtol=0)


def test_features_do_not_depend_on_the_batch(extractor, rng):
    images = torch.randint(0, 256, (4, 3, 64, 64), generator=rng, dtype=torch.uint8)
    together = extractor(images)
    assert together.shape == (4, extractor.dim) == (4, 1280)
    assert together.dtype == torch.float32
    assert together.std(dim=0).mean() > 0.01  # images are told apart
    torch.testing.assert_close(
        torch.cat([extractor(images[:1]), extractor(images[1:])]), together, rtol=1e-4, atol=1e-5
    )


def test_identity_for_records(extractor):
    assert extractor.name == "EfficientNet-Lite0"
    assert extractor.weights_sha256 == embedded_sha256("efficientnet-lite0")


def test_floats_are_refused(extractor):
    with pytest.raises(ValueError, match="uint8"):
        extractor(torch.zeros(1, 3, 8, 8))


def test_incomplete_weights_are_refused(monkeypatch):
    complete = module.load_embedded("efficientnet-lite0")
    for change in ({"extra": torch.zeros(1)}, {"_fc.bias": torch.zeros(3)}):
        monkeypatch.setattr(module, "load_embedded", lambda name, change=change: {**complete, **change})
        with pytest.raises(WeightsError, match="do not fit"):
            EfficientNetLite0.load()
    monkeypatch.setattr(module, "load_embedded", lambda name: {k: v for k, v in complete.items() if k != "_fc.bias"})
    with pytest.raises(WeightsError, match="do not fit"):
        EfficientNetLite0.load()
