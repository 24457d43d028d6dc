"""Networks rewritten for speed compute the same function, and the network that was given stays as it was."""

import copy

import pytest
import torch
from torch import nn

from dcae_bench.execution.agreement import LIMITS, relative_rms
from dcae_bench.execution.fast import fast_inference, keep_stream_in, searched_convolutions, split_merges
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.specs.autoencoders import DCAESpec, SDVAESpec
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace, UViTSpec

CODER = {"widths": [16, 32, 64], "depths": [0, 2, 2], "blocks": ["res", "res", "evit_glu"]}
SANA = {"widths": [16, 32, 64], "depths": [1, 1, 2], "blocks": ["res", "res", "evits5_glu"], "resample": "conv"}
NORMS = {"norms": ["bn2d", "bn2d", "trms2d"], "activations": ["relu", "relu", "silu"]}
AUTOENCODERS = {
    "paper": DCAESpec(family="dc-ae", latent_channels=4, encoder=CODER, decoder={**CODER, **NORMS}),
    "sana": DCAESpec(family="dc-ae", latent_channels=4, encoder=SANA, decoder=SANA),
    "sd-vae": SDVAESpec(family="sd-vae", latent_channels=4, widths=[32, 32], layers_per_block=1),
}
LATENT = LatentSpace(channels=4, side=4, patch=1)
DENOISERS = {
    "uvit": UViTSpec(family="uvit", latent=LATENT, classes=10, width=32, depth=4, heads=2),
    "dit": DiTSpec(family="dit", latent=LATENT, classes=10, width=32, depth=2, heads=2),
}


def randomised(model: nn.Module) -> nn.Module:
    """The model with values in every tensor that no default hides: biases, norms and BatchNorm's statistics."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and (value.ndim <= 1 or not value.any()):
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(1 + 0.3 * noise.tanh() if key.endswith(("running_var", "weight")) else 0.1 * noise)
    return model.eval()


def autoencoder(name: str) -> nn.Module:
    return randomised(build(AUTOENCODERS[name], seed=0))


def denoiser(name: str) -> nn.Module:
    return randomised(build_denoiser(DENOISERS[name], seed=0))


def batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, 4, 4, generator=generator)
    return x, torch.tensor([1.0, 400.5, 1000.0][:count]), torch.tensor([0, 9, 10][:count])


def images(side: int = 32) -> torch.Tensor:
    return 2 * torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) - 1


@pytest.mark.parametrize("name", AUTOENCODERS)
@torch.no_grad()
def test_a_fast_autoencoder_is_the_plain_one_up_to_rounding(name):
    plain, x = autoencoder(name), images()
    z = plain.encode(x)
    wanted = plain.decode(z)
    fast = fast_inference(plain)
    torch.testing.assert_close(fast.encode(x), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.decode(z), wanted, rtol=1e-4, atol=1e-5)
    half = fast_inference(plain).bfloat16()
    found = half.decode(z.bfloat16())
    assert found.dtype == torch.bfloat16 and 0 < relative_rms(found, wanted) < LIMITS["bf16"]
    # Rounded once: no worse than the plain network in the same precision.
    assert relative_rms(found, wanted) < 1.1 * relative_rms(
        copy.deepcopy(plain).bfloat16().decode(z.bfloat16()), wanted
    )


@pytest.mark.parametrize("name", DENOISERS)
@torch.no_grad()
def test_a_fast_denoiser_is_the_plain_one_up_to_rounding(name):
    plain = denoiser(name)
    x, t, y = batch()
    wanted = plain(x, t, y)
    torch.testing.assert_close(fast_inference(plain)(x, t, y), wanted, rtol=1e-4, atol=1e-5)
    found = fast_inference(plain).bfloat16()(x.bfloat16(), t, y)
    assert 0 < relative_rms(found, wanted) < LIMITS["bf16"]


@pytest.mark.parametrize("name", [*AUTOENCODERS, *DENOISERS])
def test_the_given_network_stays_as_it_was(name):
    plain = (autoencoder if name in AUTOENCODERS else denoiser)(name).train()
    inputs = (images(),) if name in AUTOENCODERS else batch()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    places = {key: (value.data_ptr(), value.stride(), value.dtype) for key, value in plain.state_dict().items()}
    learns = [parameter.requires_grad for parameter in plain.parameters()]
    with torch.no_grad():
        wanted = copy.deepcopy(plain)(*inputs)
        fast = fast_inference(plain)
        assert not fast.training and not any(parameter.requires_grad for parameter in fast.parameters())
        fast(*inputs)
        fast.to(torch.bfloat16)
    assert plain.training and [parameter.requires_grad for parameter in plain.parameters()] == learns
    assert {key: (v.data_ptr(), v.stride(), v.dtype) for key, v in plain.state_dict().items()} == places
    assert all(value.equal(before[key]) for key, value in plain.state_dict().items())
    with torch.no_grad():
        assert plain(*inputs).equal(wanted)


def test_a_fast_copy_shares_the_weights_that_it_does_not_change():
    """A copy of a network of billions of weights would need as much memory again."""
    plain = autoencoder("paper")
    owned = {p.data_ptr() for p in plain.parameters()}
    new = [key for key, p in fast_inference(plain).named_parameters() if p.data_ptr() not in owned]
    folded = [key for key, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(folded) == 2 and len(new) == 4
    assert all(key.endswith(("conv2.weight", "conv2.bias")) for key in new)


def test_no_batch_norm_is_left_for_inference():
    fast = fast_inference(autoencoder("paper"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


@pytest.mark.parametrize("name", DENOISERS)
def test_a_half_stream_halves_what_the_blocks_pass_on_and_keeps_losses_and_gradients_near(name):
    plain, fast = denoiser(name).train(), denoiser(name).train()
    keep_stream_in(fast, torch.bfloat16)
    x, t, y = batch()
    kinds, losses, gradients = {}, {}, {}
    for which, model in {"plain": plain, "fast": fast}.items():
        seen = []
        for block in model.transformer_blocks():
            block.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x, t, y)
        losses[which] = (out.float() - 1).square().mean()
        losses[which].backward()
        gradients[which] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        kinds[which] = set(seen)
    assert torch.float32 in kinds["plain"] and kinds["fast"] == {torch.bfloat16}
    assert losses["fast"].item() == pytest.approx(losses["plain"].item(), rel=0.01)
    assert relative_rms(gradients["fast"], gradients["plain"]) < LIMITS["bf16"]
    assert list(plain.state_dict()) == list(fast.state_dict())


def test_a_half_stream_leaves_other_precisions_alone():
    """Without autocast the weights have one type, and so has everything else."""
    plain, fast = denoiser("uvit"), denoiser("uvit")
    keep_stream_in(fast, torch.float32)
    assert fast(*batch()).equal(plain(*batch()))


def test_a_split_merge_has_the_gradients_of_the_product_of_concatenated_tokens():
    plain, fast = denoiser("uvit").double().train(), denoiser("uvit").double().train()
    split_merges(fast)
    x, t, y = batch()
    for model in (plain, fast):
        model(x.double(), t, y).square().mean().backward()
    for (key, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-9, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_convolutions_are_searched_unless_torch_must_be_deterministic(monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", False)
    with searched_convolutions():
        assert cudnn.benchmark
    assert not cudnn.benchmark
    monkeypatch.setattr(cudnn, "deterministic", True)
    monkeypatch.setattr(cudnn, "benchmark", True)
    with searched_convolutions():
        assert not cudnn.benchmark
    assert cudnn.benchmark
