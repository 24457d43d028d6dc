import importlib.resources

import lpips as official
import pytest
import torch
import torchvision
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors import lpips as module
from dcae_bench.extractors.lpips import LPIPS, pairs_at_once


@pytest.fixture(scope="module", params=["alex", "vgg"])
def model(request):
    return LPIPS.load(request.param)


def images(rng, n=2, side=64):
    return torch.rand(n, 3, side, side, generator=rng) * 2 - 1


def test_vgg_value_printed_by_torchmetrics():
    # The example in torchmetrics 0.11's docstring, whose generator first made the layers of its (replaced) networks.
    torch.manual_seed(123)
    torchvision.models.vgg16(init_weights=False)
    for width in (64, 128, 256, 512, 512):
        nn.Conv2d(width, 1, 1, bias=False)
    x, y = torch.rand(10, 3, 100, 100) * 2 - 1, torch.rand(10, 3, 100, 100) * 2 - 1
    with torch.no_grad():
        assert LPIPS.load("vgg")(x, y).mean().item() == pytest.approx(0.3493, abs=5e-5)


@pytest.mark.parametrize("folder", ["torchmetrics/functional/image/lpips_models", "lpips/weights/v0.1"])
def test_heads_are_the_published_ones(model, folder):
    package, _, rest = folder.partition("/")
    path = importlib.resources.files(package) / rest / f"{model.net}.pth"
    published = torch.load(path, weights_only=True, map_location="cpu")
    for number, head in enumerate(model.heads):
        assert torch.equal(head.weight, published[f"lin{number}.model.1.weight"])


@pytest.mark.filterwarnings(
    "ignore:.*pretrained.*:UserWarning", "ignore:Arguments other than a weight enum:UserWarning"
)
def test_agrees_with_the_official_code(model, rng):
    theirs = official.LPIPS(net=model.net, pnet_rand=True, verbose=False).eval()
    ours = [layer for stage in model.stages for layer in stage if isinstance(layer, nn.Conv2d)]
    for mine, other in zip(ours, (m for m in theirs.net.modules() if isinstance(m, nn.Conv2d)), strict=True):
        other.load_state_dict(mine.state_dict())
    x, y = images(rng), images(rng)
    x.requires_grad_()
    expected = theirs(x, y).flatten()
    found = model(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    # As a whole: small numbers of the gradient are sums of large ones, which each processor rounds otherwise.
    assert (gradient - expected_gradient).norm() <= 2e-5 * expected_gradient.norm()


@pytest.mark.filterwarnings("ignore:.*pretrained.*:UserWarning", "ignore:Arguments other than:UserWarning")
def test_agrees_with_torchmetrics_on_8_bits(model, photo_pairs):
    theirs = _LPIPS(net=model.net, pnet_rand=True)
    ours = [layer for stage in model.stages for layer in stage if isinstance(layer, nn.Conv2d)]
    for mine, other in zip(ours, (m for m in theirs.net.modules() if isinstance(m, nn.Conv2d)), strict=True):
        other.load_state_dict(mine.state_dict())
    with torch.no_grad():
        expected = theirs(*(side[:2].float() / 255 for side in photo_pairs), normalize=True).flatten()
    torch.testing.assert_close(model.of_uint8(*(side[:2] for side in photo_pairs)), expected, rtol=1e-5, atol=1e-6)


def test_8_bit_pairs_one_at_a_time(model, photo_pairs):
    a, b = (side[:3, :, :64, :64] for side in photo_pairs)
    with torch.no_grad():
        together = model(a.float() / 127.5 - 1, b.float() / 127.5 - 1)
    torch.testing.assert_close(model.of_uint8(a, b), together, rtol=1e-5, atol=1e-6)
    for wrong in (b.float(), b[:, :1], b[:1]):
        with pytest.raises(ValueError):
            model.of_uint8(a, wrong)


@pytest.mark.parametrize(("side", "pairs"), [(256, 64), (512, 16), (1024, 4), (2048, 1), (4096, 1)])
def test_a_gpu_is_given_a_few_pairs(side, pairs):
    assert pairs_at_once("cuda", side) == pairs and pairs_at_once("cpu", side) == 1


@pytest.mark.parametrize("at_once", [2, 5])
def test_parts_are_the_whole(model, photo_pairs, monkeypatch, at_once):
    a, b = (side[:3, :, :64, :64] for side in photo_pairs)
    expected, sizes = model.of_uint8(a, b), []
    monkeypatch.setattr("dcae_bench.extractors.lpips.pairs_at_once", lambda device, side: {64: at_once}[side])
    with model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0]))):
        torch.testing.assert_close(model.of_uint8(a, b), expected, rtol=1e-5, atol=1e-6)
    assert sum(sizes) == 3 and max(sizes) == min(at_once, 3)


def test_is_a_distance_of_pairs(model, rng):
    x, y = images(rng, 3), images(rng, 3)
    with torch.no_grad():
        together = model(x, y)
        assert together.shape == (3,)
        assert (together > 0.01).all()
        assert torch.equal(model(x, x), torch.zeros(3))
        torch.testing.assert_close(model(y, x), together)
        torch.testing.assert_close(torch.cat([model(x[i : i + 1], y[i : i + 1]) for i in range(3)]), together)


def test_target_features_can_be_kept(model, rng):
    x, y = images(rng), images(rng)
    with torch.no_grad():
        kept = model.features(y)
        torch.testing.assert_close(model.distance(model.features(x), kept), model(x, y))


def test_weights_never_train(rng):
    model = nn.Sequential(LPIPS.load("alex"))
    model.train()
    assert not model[0].training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_gradient_is_finite_where_features_vanish():
    model = LPIPS("alex")
    with torch.no_grad():
        for parameter in model.stages.parameters():
            parameter.zero_()
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    model(x, torch.ones(1, 3, 64, 64)).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_weights_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(module, "load_embedded", lambda name: {"convs.0.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="LPIPS alex"):
        LPIPS.load("alex")
