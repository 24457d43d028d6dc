"""SD-VAE: LDM's KL autoencoders, built with diffusers, and the f8 network with more stages (paper, section 3.1)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.diffusers_config import diffusers_config
from dcae_bench.specs.autoencoders import SDVAESpec


class SDVAE(Autoencoder):
    """The baseline autoencoder. The mean of the posterior is the latent, in training too: no sampling, no KL term.

    The paper reports that autoencoders and VAEs perform alike, and trains DC-AE deterministically. The baseline has the
    same objective, so that only the architectures differ.
    """

    family = "sd-vae"
    spec: SDVAESpec
    has_posterior = True

    def __init__(self, spec: SDVAESpec):
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # slow import

        self.spec = spec
        self.compression = spec.compression
        self.latent_channels = spec.latent_channels
        self.net = AutoencoderKL(**diffusers_config(spec))

    def _encode(self, x: Tensor) -> Tensor:
        return self.net.encode(x).latent_dist.mode()

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        posterior = self.net.encode(x).latent_dist
        return posterior.mean + posterior.std * noise(posterior.mean.shape[1:])

    def _decode(self, z: Tensor) -> Tensor:
        return self.net.decode(z).sample

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Heads and inputs are the convolutions next to the latent and the image, with their norms."""
        encoder, decoder = self.net.encoder, self.net.decoder
        quant = [self.net.quant_conv] if self.spec.quant_convs else []
        post_quant = [self.net.post_quant_conv] if self.spec.quant_convs else []
        return {
            "all": [self],
            "encoder_head": [encoder.conv_norm_out, encoder.conv_out, *quant],
            "decoder_input": [*post_quant, decoder.conv_in],
            "decoder_head": [decoder.conv_norm_out, decoder.conv_out],
            "encoder_last_stage": [encoder.down_blocks[-1], encoder.mid_block],
            "decoder_first_stage": [decoder.mid_block, decoder.up_blocks[0]],
        }

    def residual_ends(self) -> list[Tensor]:
        """Second convolutions of the residual blocks, and output projections of the attention."""
        from diffusers.models.attention_processor import Attention
        from diffusers.models.resnet import ResnetBlock2D

        ends: list[nn.Module] = [module.conv2 for module in self.modules() if isinstance(module, ResnetBlock2D)]
        ends += [module.to_out[0] for module in self.modules() if isinstance(module, Attention)]
        return [weights for layer in ends for weights in layer.parameters()]

    @property
    def last_layer(self) -> Tensor:
        """Weight of the convolution that outputs the image."""
        return self.net.decoder.conv_out.weight
