"""The objective of a phase: the reconstruction loss and, where the phase has a GAN, the losses of its two nets."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.profile.training import GANSpec
from dcae_bench.training.losses import ReconstructionLoss, adaptive_weight, discriminator_loss, generator_loss


class Objective:
    """Losses of one phase: L1 + LPIPS, and a hinge GAN whose discriminator trains together with the autoencoder."""

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
        """Take the nets and settings of a phase; ``gan`` and ``discriminator`` are both None or both given.

        ``model`` computes reconstructions under ``autocast``. It is ``autoencoder`` itself, or distributed training's
        wrapper of it. ``over_processes`` averages a gradient over the processes of the training.
        """
        self.model, self.loss, self.gan, self.discriminator = model, loss, gan, discriminator
        self.autoencoder, self.autocast, self.over_processes = autoencoder, autocast, over_processes

    def __call__(
        self, images: Tensor, *, perceptual: bool = True, adversarial: bool = True
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Forward pass of images (n, 3, R, R), without LPIPS where ``perceptual`` is false.

        ``adversarial`` is false before the discriminator starts. Returns the autoencoder's loss, the discriminator's
        loss (None without it), and their parts by name.
        """
        with self.autocast():
            reconstruction = self.model(images)
        loss, parts = self.loss(reconstruction, images, perceptual=perceptual)
        if self.gan is None or self.discriminator is None or not adversarial:
            return loss, None, parts
        loss, d_loss, gan_parts = self._add_gan(self.gan, self.discriminator, loss, reconstruction, images)
        return loss, d_loss, parts | gan_parts

    def _add_gan(
        self, gan: GANSpec, discriminator: nn.Module, loss: Tensor, reconstruction: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Add the GAN term to ``loss``; return the sum, the discriminator's loss, and both GAN losses by name."""
        discriminator.train()
        # The autoencoder's loss must not leave gradients in the discriminator.
        discriminator.requires_grad_(False)
        g_loss = generator_loss(discriminator(reconstruction.float()))
        discriminator.requires_grad_(True)
        weight: float | Tensor = gan.weight
        if gan.adaptive:
            weight = weight * adaptive_weight(loss, g_loss, self.autoencoder.last_layer, self.over_processes)
        d_loss = discriminator_loss(discriminator(images), discriminator(reconstruction.detach().float()))
        return loss + weight * g_loss, d_loss, {"gan": g_loss.detach(), "disc": d_loss.detach()}
