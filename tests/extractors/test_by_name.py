from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.extractors import by_name as extractors
from dcae_bench.extractors.dinov2_files import CHECKPOINT
from dcae_bench.extractors.embedded import embedded_sha256, load_embedded

HUBCONF = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 1024)

    def forward(self, x):
        return self.head(x.mean(dim=(2, 3)))

def dinov2_vitl14(pretrained=True):
    assert not pretrained
    return Net()
"""


def images(rng, n=3, side=40):
    return torch.randint(0, 256, (n, 3, side, side), generator=rng, dtype=torch.uint8)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder with a small network where DINOv2's code would be."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert Path(torch.hub.get_dir()) == tmp_path / "hub"
    code = tmp_path / "hub" / "facebookresearch_dinov2_main"
    code.mkdir(parents=True)
    (code / "hubconf.py").write_text(HUBCONF)
    return tmp_path / "hub"


def test_every_name_loads(inception_file, hub, tmp_path, rng):
    torch.save(nn.ModuleDict({"head": nn.Linear(3, 1024)}).state_dict(), tmp_path / "dino.pth")
    files = {"dinov2": tmp_path / "dino.pth"}
    batch, keys, labels = images(rng, 2), set(), set()
    for name in extractors.NAMES:
        weights = None if name in extractors.EMBEDDED else files.get(name, inception_file)
        extractor = extractors.load(name, weights, any_hash=True)
        features = extractor(batch)
        assert features.shape == (2, extractor.dim) and features.dtype == torch.float32
        assert not torch.equal(features[0], features[1])
        assert len(extractor.weights_sha256) == 64
        keys.add(extractor.key)
        labels.add(extractor.distance)
    assert len(keys) == len(labels) == len(extractors.NAMES) == 6
    assert not any("FID" in label for label in labels), "none of these has FID's weights"


def test_unknown_names_and_files_nobody_reads(inception_file):
    with pytest.raises(ConfigError, match="extractor 'resnet': does not exist; choose one of efficientnet-lite0"):
        extractors.load("resnet")
    with pytest.raises(WeightsError, match="vgg16 has embedded weights and takes no file"):
        extractors.load("vgg16", inception_file)
    with pytest.raises(WeightsError, match="expected 6726825d"):
        extractors.load("inception-clean-fid", inception_file)


def test_vgg16_is_torchvisions(rng):
    extractor, batch = extractors.load("vgg16"), images(rng)
    weights, theirs = load_embedded("vgg16"), torchvision.models.vgg16(weights=None, init_weights=False).features[:30]
    for index, conv in enumerate(layer for layer in theirs if isinstance(layer, nn.Conv2d)):
        conv.load_state_dict({part: weights[f"convs.{index}.{part}"] for part in ("weight", "bias")})
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs(normalise(batch.float() / 255)).mean(dim=(2, 3))
    # LPIPS rounds the same constants after moving them to [-1, 1].
    torch.testing.assert_close(extractor(batch), expected, rtol=1e-3, atol=1e-4)
    assert extractor.weights_sha256 == embedded_sha256("vgg16")


def test_dinov2_takes_files_that_are_there(hub, rng):
    (hub / "checkpoints").mkdir()
    head = nn.Linear(3, 1024)
    torch.save({"head.weight": head.weight, "head.bias": head.bias}, hub / "checkpoints" / CHECKPOINT)
    extractor, batch = extractors.load("dinov2"), images(rng)
    x = interpolate_bilinear_2d_like_tensorflow1x(batch.float(), size=(224, 224), align_corners=False) / 255
    x = torchvision.transforms.functional.normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(extractor(batch), head(x.mean(dim=(2, 3))).detach(), rtol=1e-4, atol=1e-5)
    assert extractor.weights_sha256 == sha256_file(hub / "checkpoints" / CHECKPOINT)


def test_dinov2_says_what_is_missing(hub, tmp_path):
    with pytest.raises(WeightsError, match=rf"its weights are not at .*{CHECKPOINT}; get {CHECKPOINT} from https://"):
        extractors.load("dinov2")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit the network"):
        extractors.load("dinov2", tmp_path / "other.pth")
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").unlink()
    with pytest.raises(WeightsError, match=r"its code is not in .*clone facebookresearch/dinov2"):
        extractors.load("dinov2", tmp_path / "other.pth")
