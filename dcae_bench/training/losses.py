"""Losses of the three phases: L1 + LPIPS, and the hinge GAN of phase 3 (paper, section 3.3; authors' issue #143)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.profile.training import ReconstructionLossSpec

# LDM's values: they keep the adaptive GAN weight finite and bounded.
ADAPTIVE_EPS, ADAPTIVE_MAX = 1e-4, 1e4


class ReconstructionLoss(nn.Module):
    """Weighted sum of mean absolute error (L1) and LPIPS, each averaged over the batch."""

    def __init__(self, spec: ReconstructionLossSpec):
        """Load LPIPS' network if LPIPS has a weight above 0. Raises :class:`WeightsError`."""
        super().__init__()
        self.spec = spec
        self.lpips = LPIPS.load(spec.lpips_net) if spec.lpips > 0 else None

    def forward(
        self, reconstruction: Tensor, image: Tensor, *, perceptual: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of reconstructions of images (n, 3, h, w) in [-1, 1], and the loss's unweighted parts by name.

        LPIPS counts ``lpips_every`` times its weight, and nothing where ``perceptual`` is false.
        """
        reconstruction = reconstruction.float()
        l1 = F.l1_loss(reconstruction, image)
        loss, parts = self.spec.l1 * l1, {"l1": l1.detach()}
        if self.lpips is not None and perceptual:
            with torch.no_grad():
                target = self.lpips.features(image)
            lpips = self.lpips.distance(self.lpips.features(reconstruction), target).mean()
            loss = loss + self.spec.lpips * self.spec.lpips_every * lpips
            parts["lpips"] = lpips.detach()
        return loss, parts


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Hinge GAN loss of the autoencoder: minus the mean logit of its reconstructions."""
    return -fake_logits.float().mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss of the discriminator, halved as in LDM."""
    real, fake = real_logits.float(), fake_logits.float()
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(
    reconstruction_loss: Tensor,
    gan_loss: Tensor,
    last_layer: Tensor,
    over_processes: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Tensor:
    """Ratio of the two losses' gradient norms at the last layer (LDM), which keeps the two losses in balance.

    ``over_processes`` averages a gradient over the processes of the training.
    """
    (reconstruction,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (gan,) = torch.autograd.grad(gan_loss, last_layer, retain_graph=True)
    reconstruction, gan = over_processes(reconstruction).norm(), over_processes(gan).norm()
    return (reconstruction / (gan + ADAPTIVE_EPS)).clamp(0, ADAPTIVE_MAX).detach()
