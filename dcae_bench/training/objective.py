"""What a phase minimises: the reconstruction loss and, where the phase has a GAN, the terms of both its nets."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.training.losses import ReconstructionLoss, adaptive_weight, discriminator_loss, generator_loss
from dcae_bench.training_spec import GANSpec


class Objective:
    """Losses of one phase: L1 + LPIPS, and the hinge GAN with a discriminator that learns beside the autoencoder."""

    def __init__(
        self,
        model: nn.Module,
        loss: ReconstructionLoss,
        *,
        gan: GANSpec | None,
        discriminator: nn.Module | None,
        autoencoder: Autoencoder,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        over_processes: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ):
        """``model`` reconstructs, under ``autocast``: ``autoencoder``, or what distributed training wraps around it.

        ``over_processes`` gives the mean of the gradients that the processes of a training have.
        """
        self.model, self.loss, self.gan, self.discriminator = model, loss, gan, discriminator
        self.autoencoder, self.autocast, self.over_processes = autoencoder, autocast, over_processes

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Forward pass of images (n, 3, R, R): (autoencoder's loss, discriminator's if there is one, their parts)."""
        with self.autocast():
            reconstruction = self.model(images)
        loss, parts = self.loss(reconstruction, images)
        if self.gan is None:
            return loss, None, parts
        loss, d_loss, gan_parts = self.adversarial(loss, reconstruction, images)
        return loss, d_loss, parts | gan_parts

    def adversarial(
        self, loss: Tensor, reconstruction: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Add the GAN term to the loss and compute the discriminator's own: (loss, discriminator loss, their parts)."""
        gan, discriminator = self.gan, self.discriminator
        discriminator.train()
        # The autoencoder's loss must not leave gradients in the discriminator.
        discriminator.requires_grad_(False)
        g_loss = generator_loss(discriminator(reconstruction.float()))
        discriminator.requires_grad_(True)
        weight = gan.weight
        if gan.adaptive:
            weight = weight * adaptive_weight(loss, g_loss, self.autoencoder.last_layer, self.over_processes)
        d_loss = discriminator_loss(discriminator(images), discriminator(reconstruction.detach().float()))
        return loss + weight * g_loss, d_loss, {"gan": g_loss.detach(), "disc": d_loss.detach()}
