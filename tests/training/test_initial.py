import copy

import pytest
import torch
from torch import nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import parse_profile
from dcae_bench.specs.autoencoders import CustomSpec
from dcae_bench.training.initial import initialise


def model(tiny, autoencoder: str):
    return build(parse_profile(tiny(), "tiny").autoencoders[autoencoder].model, seed=0)


@pytest.mark.parametrize("autoencoder", ["dc-ae", "sd-vae"])
def test_blocks_start_as_the_identity(tiny, autoencoder):
    """With zeros at the ends of their branches, the model computes the same without the rest of the branches."""
    net = model(tiny, autoencoder).eval()
    plain = copy.deepcopy(net)
    initialise(net, "identity", seed=0)
    zeroed = {id(weights) for weights in net.residual_ends()}
    assert len(zeroed) > 3 and all(not weights.any() for weights in net.residual_ends())
    for (name, one), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        assert id(one) in zeroed or torch.equal(one, other), name
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        before = net(x)
        assert not torch.allclose(before, plain(x))
        for name, weights in net.named_parameters():
            if name.endswith(("conv1.weight", "qkv.weight", "expand.weight", "depthwise.weight")):
                weights.add_(1)  # inside the branches
        assert torch.equal(net(x), before)


@pytest.mark.parametrize("autoencoder", ["dc-ae", "sd-vae"])
def test_a_balanced_start_keeps_the_variance_and_has_no_biases(tiny, autoencoder):
    net, again = model(tiny, autoencoder), model(tiny, autoencoder)
    for one in (net, again):
        initialise(one, "balanced", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    wide = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 500]
    assert wide and not any(layer.bias.any() for layer in wide if layer.bias is not None)
    for layer in wide:
        assert layer.weight.var().item() * layer.weight[0].numel() == pytest.approx(1, rel=0.35)
    plain = model(tiny, autoencoder)
    before = [weights.clone() for weights in plain.parameters()]
    initialise(plain, "torch", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(before, plain.parameters(), strict=True))


def test_a_start_is_part_of_phase_1_alone(tiny):
    changed = parse_profile(tiny({("autoencoders", "dc-ae", "init"): "identity"}), "x")
    plain = parse_profile(tiny(), "x")
    assert changed.recipe("dc-ae", 1) == {**plain.recipe("dc-ae", 1), "init": "identity"}
    assert changed.recipe("dc-ae", 2) == plain.recipe("dc-ae", 2)
    control = {"family": "pca", "compression": 4, "latent_channels": 8}
    for wrong in ({"weights": "own", "file": "x.pt"}, {"model": control}):
        entry = {**tiny()["autoencoders"]["dc-ae"], "init": "identity", **wrong}
        with pytest.raises(ConfigError, match=r"'init' ha(s|ve) no effect"):
            parse_profile(tiny({("autoencoders", "dc-ae"): entry}), "x")


def test_an_autoencoder_without_known_branches_cannot_start_as_the_identity(tmp_path, monkeypatch):
    (tmp_path / "branchless.py").write_text(
        "import torch\nclass AE(torch.nn.Conv2d):\n    def __init__(self): super().__init__(3, 3, 1)\n"
        "    def encode(self, x): return self(x)\n    def decode(self, z): return z\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = CustomSpec(family="custom", class_name="branchless:AE", compression=1, latent_channels=3)
    with pytest.raises(ConfigError, match="init 'identity': an autoencoder of family custom has no known residual"):
        initialise(build(spec), "identity", seed=0)
