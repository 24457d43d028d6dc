"""Speed of each metric compared with the library that people use for it, on the same inputs."""

import cleanfid.inception_pytorch
import numpy as np
import pytest
import scipy.linalg
import torch
import torchvision
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torchmetrics.functional.image import structural_similarity_index_measure

from dcae_bench.extractors.efficientnet import efficientnet_lite0_extractor
from dcae_bench.extractors.inception import DEFINITIONS, LAYERS, Inception, InceptionExtractor
from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.metrics.image import ssim_both
from dcae_bench.metrics.intervals import frechet_interval
from dcae_bench.metrics.kernel import kernel_distance


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (8, 3, 128, 128), generator=generator, dtype=torch.uint8)
    fake = torch.randint(0, 256, (8, 3, 128, 128), generator=generator, dtype=torch.uint8)
    return real, fake


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return random.normal(size=(3000, 1280)), random.normal(0.1, 1.1, size=(3000, 1280))


@pytest.mark.benchmark(group="frechet 3000x1280")
def test_frechet_ours(benchmark, features):
    assert benchmark.pedantic(frechet_distance, args=features, rounds=3).value > 0


@pytest.mark.benchmark(group="frechet 3000x1280")
def test_frechet_sqrtm_as_in_clean_fid(benchmark, features):
    def distance(real, fake):
        a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
        root = scipy.linalg.sqrtm(a @ b).real
        return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root)

    ours = frechet_distance(*features).value
    assert benchmark.pedantic(distance, args=features, rounds=1) == pytest.approx(ours, rel=1e-6)


@pytest.mark.benchmark(group="frechet interval 3000x1280")
def test_interval_by_the_jackknife(benchmark, features):
    assert benchmark.pedantic(frechet_interval, args=features, kwargs={"value": 1.0}, rounds=1).high > 1


@pytest.mark.benchmark(group="frechet interval 3000x1280")
def test_interval_by_two_resamples(benchmark, features):
    # A hundred resamples are usual; two show the time of one.
    options = {"value": 1.0, "resamples": 2}
    assert benchmark.pedantic(frechet_interval, args=features, kwargs=options, rounds=1).high > 1


@pytest.fixture(scope="module")
def kid_features():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1000, 2048, generator=generator), torch.rand(1000, 2048, generator=generator) * 1.1


@pytest.mark.benchmark(group="kid 1000x2048")
def test_kid_ours(benchmark, kid_features):
    assert benchmark.pedantic(kernel_distance, args=kid_features, rounds=1).value > 0


@pytest.mark.benchmark(group="kid 1000x2048")
def test_kid_torch_fidelity(benchmark, kid_features):
    real, fake = kid_features
    found = benchmark.pedantic(kid_features_to_metric, args=(fake, real), kwargs={"verbose": False}, rounds=1)
    assert found[KEY_METRIC_KID_MEAN] == pytest.approx(kernel_distance(real, fake).value, rel=1e-4)


@pytest.fixture(scope="module", params=[256, 512])
def large_pairs(request):
    generator = torch.Generator().manual_seed(0)
    shape = (4, 3, request.param, request.param)
    return [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(2)]


@pytest.mark.benchmark(group="ssim of 4")
def test_ssim_both_borders_ours(benchmark, large_pairs):
    benchmark.pedantic(ssim_both, args=large_pairs, rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="ssim of 4")
def test_ssim_one_border_torchmetrics(benchmark, large_pairs):
    pair = [images.float() for images in large_pairs]
    run = structural_similarity_index_measure
    benchmark.pedantic(run, args=pair, kwargs={"data_range": 255.0}, rounds=2, warmup_rounds=1)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file of random weights: the time does not depend on the values."""
    model = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(model.state_dict(), path)
    return path


def theirs(definition, file, folder, monkeypatch):
    """The features of the tool that uses ``definition``, by the tool's own resizer and network."""
    if definition == "torch-fidelity":
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(file))
        return lambda images: network(images)[0]
    if definition == "pytorch-fid":
        state = torch.load(file, weights_only=True)
        monkeypatch.setattr(cleanfid.inception_pytorch, "load_state_dict_from_url", lambda *_, **__: state)
        network = cleanfid.inception_pytorch.InceptionV3([3], resize_input=False).eval()
        resize, run = build_resizer("legacy_pytorch"), lambda x: network(x / 255)[0].flatten(1)
    else:
        unfolded = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(file))
        published = nn.Module()
        layers = nn.Sequential(*(getattr(unfolded, name) for name in LAYERS)).eval()
        published.layers = torch.jit.trace(layers, torch.zeros(1, 3, 299, 299), check_trace=False)
        torch.jit.script(published.eval()).save(str(folder / "inception-2015-12-05.pt"))
        resize, run = build_resizer("clean"), InceptionV3W(str(folder), download=False)

    def features(images):
        resized = [resize(image.permute(1, 2, 0).numpy()) for image in images]
        return run(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous())

    return features


@pytest.mark.benchmark(group="inception 8x3x256x256")
@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_inception(benchmark, definition, whose, inception_file, tmp_path, monkeypatch):
    images = torch.randint(0, 256, (8, 3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ours = InceptionExtractor(Inception.load(inception_file, any_hash=True), definition)
    other = theirs(definition, inception_file, tmp_path, monkeypatch)
    with torch.inference_mode():
        expected, found = other(images), ours(images)
        assert (found - expected).norm() < 1e-4 * expected.norm()
        benchmark.pedantic(ours if whose == "ours" else other, args=(images,), rounds=3)


@pytest.mark.benchmark(group="lpips-vgg 2x3x256x256")
@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_vgg(benchmark, whose):
    import lpips

    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 256, (2, 3, 256, 256), generator=generator, dtype=torch.uint8) for _ in range(2))
    if whose == "ours":
        benchmark.pedantic(LPIPS.load("vgg").of_uint8, args=(fake, real), rounds=2, warmup_rounds=1)
    else:
        model = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
        floats = [images.float() / 127.5 - 1 for images in (fake, real)]
        with torch.inference_mode():
            benchmark.pedantic(model, args=floats, rounds=2, warmup_rounds=1)


@pytest.mark.benchmark(group="lpips-alex 8x3x128x128")
def test_lpips_ours(benchmark, pairs):
    model = LPIPS.load("alex")
    real, fake = (images.float() / 127.5 - 1 for images in pairs)
    with torch.inference_mode():
        benchmark(model, fake, real)


@pytest.mark.benchmark(group="lpips-alex 8x3x128x128")
def test_lpips_official_package(benchmark, pairs):
    import lpips

    # Random weights, because the package would download its backbone. The time does not depend on the values.
    model = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    real, fake = (images.float() / 127.5 - 1 for images in pairs)
    with torch.inference_mode():
        benchmark(model, fake, real)


def test_efficientnet_lite0_features_of_8(benchmark, pairs):
    extractor = efficientnet_lite0_extractor()
    with torch.inference_mode():
        assert benchmark(extractor, pairs[0]).shape == (8, 1280)
