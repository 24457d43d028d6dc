"""Half precision: what is cast, what comes back, and what is refused."""

import pytest
import torch
from torch import nn

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.evaluation.reconstruction import reconstructor
from dcae_bench.execution.half import in_precision
from dcae_bench.models.external import CustomAutoencoder
from dcae_bench.models.zoo import build
from dcae_bench.running.precision import DTYPES
from dcae_bench.specs.autoencoders import CustomSpec, SDVAESpec

SPEC = SDVAESpec(family="sd-vae", latent_channels=4, widths=(8, 8), layers_per_block=1, norm_groups=4)
IMAGES = torch.randint(0, 256, (3, 3, 32, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def noise(indices, shape):
    return torch.randn((len(indices), *shape), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("draws", [False, True])
def test_weights_and_activations_are_half_and_the_result_is_near_that_of_fp32(precision, draws):
    wanted = reconstructor(build(SPEC, seed=0).eval(), noise if draws else None)(IMAGES, range(3))
    half = in_precision(build(SPEC, seed=0).eval(), precision)
    assert {p.dtype for p in half.parameters()} == {DTYPES[precision]}
    seen = []
    for layer in half.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    found = reconstructor(half, noise if draws else None, precision)(IMAGES, range(3))
    assert set(seen) == {DTYPES[precision]} and half.note is None
    difference = (found.int() - wanted.int()).abs()
    assert 0 < difference.max() <= 16 and difference.float().mean() < 2
    x = torch.zeros(1, 3, 32, 32)
    assert half.encode(x).dtype == half.decode(half.encode(x)).dtype == torch.float32


def test_fp32_is_the_autoencoder_itself():
    model = build(SPEC, seed=0)
    assert in_precision(model, "fp32") is model


def test_numbers_too_large_for_fp16_are_an_error_that_names_it_and_bf16_has_room_for_them():
    def loud(precision):
        model = build(SPEC, seed=0).eval()
        with torch.no_grad():
            model.net.decoder.conv_out.weight.mul_(1e7)
        return reconstructor(in_precision(model, precision), None, precision)(IMAGES, range(5, 8))

    with pytest.raises(WeightsError, match=r"image 5: its reconstruction in fp16 holds values .* in bf16 or fp32"):
        loud("fp16")
    assert loud("bf16").shape == IMAGES.shape


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes an autoencoder of a class that keeps a network in a list and computes as ``body`` says."""

    def make(body):
        name = f"half{abs(hash(body)) % 10**8}"
        (tmp_path / f"{name}.py").write_text(
            "import torch, torch.nn.functional as F\n\n\nclass AE:\n    def __init__(self):\n"
            "        torch.manual_seed(0)\n        self.nets = [torch.nn.Conv2d(3, 3, 1)]\n"
            f"    def encode(self, x):\n        {body}\n"
            "    def decode(self, z): return F.interpolate(z, scale_factor=2)\n"
        )
        spec = CustomSpec(family="custom", class_name=f"{name}:AE", compression=2, latent_channels=3)
        return in_precision(CustomAutoencoder(spec).eval(), "bf16")

    monkeypatch.chdir(tmp_path)
    return make


def test_a_network_of_the_users_is_cast_wherever_it_hangs(own):
    model = own("return F.avg_pool2d(self.nets[0](x), 2)")
    assert model.inner.net.nets[0].weight.dtype == torch.bfloat16
    assert model.decode(model.encode(torch.zeros(1, 3, 8, 8))).shape == (1, 3, 8, 8) and model.note is None


def test_a_class_that_computes_in_another_type_is_told(own):
    model = own("return F.avg_pool2d(x.float(), 2)")
    model.decode(model.encode(torch.zeros(1, 3, 8, 8)))
    assert model.note == "in bf16 encode returned float32: parts of it compute in another precision"


def test_a_class_that_cannot_compute_in_it_is_refused_in_one_line(own):
    for body in (
        "return F.avg_pool2d(self.nets[0](x.float()), 2)",
        "return torch.from_numpy(x.numpy())[:, :, ::2, ::2]",
    ):
        with pytest.raises(ConfigError, match="precision bf16: encode of this autoencoder of family custom") as caught:
            own(body).encode(torch.zeros(1, 3, 8, 8))
        assert "\n" not in str(caught.value) and "measure it in fp32" in str(caught.value)
