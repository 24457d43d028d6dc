import pytest
import torch

from dcae_bench.profile.training import DiscriminatorSpec
from dcae_bench.training.discriminator import PatchDiscriminator


@pytest.mark.parametrize(("layers", "parameters"), [(2, 663_361), (3, 2_765_633), (4, 6_960_961)])
def test_patchgan_has_the_known_parameter_counts(layers, parameters):
    with torch.device("meta"):
        model = PatchDiscriminator(DiscriminatorSpec(channels=64, layers=layers))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("resolution", "patches"), [(256, 30), (512, 62)])
def test_patchgan_has_the_known_map(resolution, patches):
    with torch.device("meta"):
        model = PatchDiscriminator(DiscriminatorSpec())
        logits = model(torch.zeros(2, 3, resolution, resolution))
    assert logits.shape == (2, 1, patches, patches)


def test_a_logit_sees_70_pixels():
    """The receptive field that gives the 70x70 PatchGAN its name."""
    model = PatchDiscriminator(DiscriminatorSpec(channels=4)).eval()
    x = torch.zeros(1, 3, 256, 256, requires_grad=True)
    model(x)[0, 0, 15, 15].backward()
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70


def test_initialisation_is_pix2pixs():
    torch.manual_seed(0)
    model = PatchDiscriminator(DiscriminatorSpec())
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 10_000:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert layer.bias is None or not layer.bias.any()
        elif isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.3)
            assert not layer.bias.any()
