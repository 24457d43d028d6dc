"""SD-VAE: LDM's KL autoencoder through diffusers, with stages stacked on its f8 network (paper, section 3.1)."""

from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.specs import SDVAESpec


class SDVAE(Autoencoder):
    """The baseline family. Its posterior's mean is the latent, in training too: no sampling and no KL term.

    The paper reports that autoencoder and VAE perform alike and trains DC-AE deterministically; the same objective on
    both sides keeps the comparison about the architecture.
    """

    family = "sd-vae"

    def __init__(self, spec: SDVAESpec):
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # slow import, wanted only here

        levels = len(spec.widths)
        self.compression = spec.compression
        self.latent_channels = spec.latent_channels
        self.net = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=spec.widths,
            layers_per_block=spec.layers_per_block,
            latent_channels=spec.latent_channels,
            norm_num_groups=spec.norm_groups,
        )

    def encode(self, x: Tensor) -> Tensor:
        """Image (n, 3, H, W) to the posterior's mean (n, c, H/f, W/f)."""
        return self.net.encode(x).latent_dist.mode()

    def decode(self, z: Tensor) -> Tensor:
        """Latent (n, c, h, w) to image (n, 3, f*h, f*w)."""
        return self.net.decode(z).sample

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Heads and inputs are the convolutions beside the latent and the image, with their norms."""
        encoder, decoder = self.net.encoder, self.net.decoder
        return {
            "all": [self],
            "encoder_head": [encoder.conv_norm_out, encoder.conv_out, self.net.quant_conv],
            "decoder_input": [self.net.post_quant_conv, decoder.conv_in],
            "decoder_head": [decoder.conv_norm_out, decoder.conv_out],
            "encoder_last_stage": [encoder.down_blocks[-1], encoder.mid_block],
            "decoder_first_stage": [decoder.mid_block, decoder.up_blocks[0]],
        }

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that writes the image."""
        return self.net.decoder.conv_out.weight
