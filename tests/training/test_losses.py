import pytest
import torch
from torch import tensor

from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.profile.training import ReconstructionLossSpec
from dcae_bench.training.losses import ReconstructionLoss, adaptive_weight, discriminator_loss, generator_loss


def images(seed: int) -> torch.Tensor:
    return 2 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) - 1


def test_hinge_losses_have_their_closed_forms():
    real, fake = tensor([[2.0, 0.5], [-1.0, 1.0]]), tensor([[-2.0, -0.5], [1.0, 3.0]])
    # relu(1 - real) = 0, 0.5, 2, 0; relu(1 + fake) = 0, 0.5, 2, 4
    assert discriminator_loss(real, fake).item() == 0.5 * (2.5 / 4 + 6.5 / 4)
    assert generator_loss(fake).item() == -1.5 / 4


def test_a_discriminator_that_is_sure_has_no_loss_and_no_gradient():
    real, fake = tensor([1.5], requires_grad=True), tensor([-1.5], requires_grad=True)
    loss = discriminator_loss(real, fake)
    loss.backward()
    assert loss.item() == 0 and real.grad.item() == 0 and fake.grad.item() == 0
    undecided = discriminator_loss(tensor([0.0]), tensor([0.0]))
    assert undecided.item() == 1


def test_half_precision_logits_are_averaged_in_fp32():
    logits = torch.full((70_000,), 1.0, dtype=torch.float16)  # their sum overflows fp16
    assert generator_loss(logits).item() == -1
    assert discriminator_loss(-logits, logits).item() == 2


@pytest.mark.parametrize(
    ("reconstruction", "gan", "wanted"),
    [
        ([3.0, 4.0], [0.6, 0.8], 5 / (1 + 1e-4)),
        ([0.0, 0.0], [0.6, 0.8], 0),
        ([3.0, 4.0], [0.0, 0.0], 1e4),  # 5 / 1e-4, clamped
        ([0.03, 0.04], [0.0, 0.0], 500),
    ],
)
def test_adaptive_weight_is_the_ratio_of_gradient_norms(reconstruction, gan, wanted):
    layer = torch.ones(2, requires_grad=True)
    losses = [(tensor(gradient) * layer).sum() for gradient in (reconstruction, gan)]
    weight = adaptive_weight(*losses, layer)
    assert weight.item() == pytest.approx(wanted) and not weight.requires_grad
    sum(losses).backward()  # the graph is still there, and holds no gradient yet
    torch.testing.assert_close(layer.grad, tensor(reconstruction) + tensor(gan))


def test_without_lpips_the_loss_is_weighted_l1_and_loads_no_network(monkeypatch):
    monkeypatch.setattr(LPIPS, "load", lambda net: pytest.fail("loaded"))
    loss = ReconstructionLoss(ReconstructionLossSpec(l1=0.25, lpips=0, lpips_net="vgg"))
    value, parts = loss(images(0) * 0 + 0.5, images(0) * 0 - 1)
    assert value.item() == 0.25 * 1.5 and {k: v.item() for k, v in parts.items()} == {"l1": 1.5}


def test_loss_is_the_weighted_sum_of_batch_means(monkeypatch):
    torch.manual_seed(0)
    network = LPIPS("alex")
    for head in network.heads:
        head.weight.data.abs_()
    nets = []
    monkeypatch.setattr(LPIPS, "load", lambda net: nets.append(net) or network)
    loss = ReconstructionLoss(ReconstructionLossSpec(l1=2.0, lpips=0.5, lpips_net="alex"))
    x, y = images(0).requires_grad_(), images(1).requires_grad_()
    value, parts = loss(x, y)
    assert nets == ["alex"]
    l1, lpips = (x - y).abs().mean(), network(x, y).mean()
    torch.testing.assert_close(value, 2 * l1 + 0.5 * lpips)
    torch.testing.assert_close(parts, {"l1": l1.detach(), "lpips": lpips.detach()})
    assert lpips > 0 and not any(part.requires_grad for part in parts.values())
    value.backward()
    (wanted,) = torch.autograd.grad(2 * (x - y.detach()).abs().mean() + 0.5 * network(x, y.detach()).mean(), x)
    torch.testing.assert_close(x.grad, wanted)
    assert all(p.grad is None for p in loss.parameters())


def test_half_precision_reconstructions_are_compared_in_fp32():
    loss = ReconstructionLoss(ReconstructionLossSpec(lpips=0, lpips_net="alex"))
    value, _ = loss(images(0).bfloat16(), images(0))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, (images(0).bfloat16().float() - images(0)).abs().mean())


@pytest.mark.parametrize("every", [1, 3])
def test_rare_lpips_has_the_weight_of_the_batches_between(every):
    """Over ``every`` batches the sum of losses, and so the mean gradient, is that of LPIPS on every batch."""
    spec = ReconstructionLossSpec(l1=0.5, lpips=0.25, lpips_net="alex", lpips_every=every)
    loss, x, y = ReconstructionLoss(spec), images(0), images(1)
    (whole, parts), (plain, left) = loss(x, y), loss(x, y, perceptual=False)
    assert plain.item() == pytest.approx(0.5 * parts["l1"].item()) and left.keys() == {"l1"}
    total = whole + (every - 1) * plain
    assert total.item() == pytest.approx(every * (0.5 * parts["l1"] + 0.25 * parts["lpips"]).item(), rel=1e-5)
