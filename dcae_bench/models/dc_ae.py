"""DC-AE: the Deep Compression Autoencoder (paper, section 3.2), with the graph of the released models."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.efficientvit import EfficientViTBlock, GLUMBConv, LiteMLA
from dcae_bench.models.layers import Conv3x3, space_to_channel
from dcae_bench.models.residual import Downsample, LatentIn, LatentOut, ResBlock, Upsample, make_activation, make_norm
from dcae_bench.specs.autoencoders import Activation, CoderSpec, DCAESpec

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "res": lambda width, norm, activation: ResBlock(width, norm=norm, activation=activation),
    "evit_glu": lambda width, norm, activation: EfficientViTBlock(width),
    "evits5_glu": lambda width, norm, activation: EfficientViTBlock(width, scales=(5,)),
}


class DCAE(Autoencoder):
    """Deep Compression Autoencoder of one spec; deterministic, without a KL term.

    Half precision means weights and inputs in bf16 or fp16, or autocast. Convolutions then run in the half type. Every
    RMS norm computes its statistics in fp32, because the square of a value above 255 exceeds fp16's range. Attention
    is exempt from autocast: fp16 inputs are computed in fp32, because sums over all positions overflow; bf16, which has
    fp32's range, keeps bf16 products and divides in fp32. Each layer returns its result in the type of its input.

    Weights and maps are in channels-last memory. Inputs may have any strides; outputs are contiguous.
    """

    family = "dc-ae"

    def __init__(self, spec: DCAESpec):
        super().__init__()
        self.spec = spec
        self.compression = spec.compression
        self.latent_channels = spec.latent_channels
        self.encoder = Encoder(spec.encoder, spec.latent_channels, shortcuts=spec.shortcuts)
        self.decoder = Decoder(
            spec.decoder, spec.latent_channels, shortcuts=spec.shortcuts, head_activation=spec.head_activation
        )

    def _encode(self, x: Tensor) -> Tensor:
        return self.encoder(x.contiguous(memory_format=torch.channels_last)).contiguous()

    def _decode(self, z: Tensor) -> Tensor:
        return self.decoder(z.contiguous(memory_format=torch.channels_last)).contiguous()

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Heads and inputs are the projections next to the latent and the image (our reading of section 3.3)."""
        return {
            "all": [self],
            "encoder_head": [self.encoder.project_out],
            "decoder_input": [self.decoder.project_in],
            "decoder_head": [self.decoder.project_out],
            "encoder_last_stage": [self.encoder.stages[-1]],
            "decoder_first_stage": [self.decoder.stages[-1]],
        }

    def residual_ends(self) -> list[Tensor]:
        """Weights of the norms that end the branches."""
        branches = [module for module in self.modules() if isinstance(module, ResBlock | LiteMLA | GLUMBConv)]
        return [branch.norm.get_parameter("weight") for branch in branches]

    @property
    def last_layer(self) -> Tensor:
        """Weight of the convolution that outputs the image."""
        return self.decoder.project_out.conv.weight


class Encoder(nn.Module):
    """Stem, stages from fine to coarse (each ends with its downsampling), projection to the latent."""

    def __init__(self, spec: CoderSpec, latent_channels: int, *, shortcuts: bool):
        super().__init__()
        self.project_in = Stem(spec)
        last = len(spec.widths) - 1
        self.stages = nn.ModuleList()
        for stage in range(last + 1):
            layers = _blocks(spec, stage)
            if layers and stage < last:
                layers.append(
                    Downsample(spec.widths[stage], spec.widths[stage + 1], resample=spec.resample, shortcut=shortcuts)
                )
            self.stages.append(nn.Sequential(*layers))
        self.project_out = LatentOut(spec.widths[-1], latent_channels, shortcut=shortcuts)

    def forward(self, x: Tensor) -> Tensor:
        """Image (n, 3, H, W) to latent (n, c, H/f, W/f)."""
        x = self.project_in(x)
        for stage in self.stages:
            x = stage(x)
        return self.project_out(x)


class Decoder(nn.Module):
    """Projection of the latent, stages from coarse to fine (each begins with its upsampling), head."""

    def __init__(self, spec: CoderSpec, latent_channels: int, *, shortcuts: bool, head_activation: Activation):
        super().__init__()
        self.project_in = LatentIn(latent_channels, spec.widths[-1], shortcut=shortcuts)
        last = len(spec.widths) - 1
        self.stages = nn.ModuleList()
        for stage in range(last + 1):
            layers = _blocks(spec, stage)
            if layers and stage < last:
                layers.insert(
                    0,
                    Upsample(spec.widths[stage + 1], spec.widths[stage], resample=spec.resample, shortcut=shortcuts),
                )
            self.stages.append(nn.Sequential(*layers))
        self.project_out = Head(spec, head_activation)

    def forward(self, z: Tensor) -> Tensor:
        """Latent (n, c, h, w) to image (n, 3, f*h, f*w)."""
        x = self.project_in(z)
        for stage in reversed(self.stages):
            x = stage(x)
        return self.project_out(x)


class Stem(nn.Module):
    """The encoder's first convolution, without a shortcut. If stage 0 is left out, 2x2 pixels move into channels."""

    def __init__(self, spec: CoderSpec):
        super().__init__()
        self.halves = spec.depths[0] == 0
        self.conv = Conv3x3(3, spec.widths[1] // 4 if self.halves else spec.widths[0])

    def forward(self, x: Tensor) -> Tensor:
        """Image (n, 3, H, W) to the input of the first stage."""
        x = self.conv(x)
        return space_to_channel(x) if self.halves else x


class Head(nn.Module):
    """The decoder's output: norm, activation, convolution; without shortcut or clamp."""

    def __init__(self, spec: CoderSpec, activation: Activation):
        super().__init__()
        self.doubles = spec.depths[0] == 0
        width = spec.widths[1] if self.doubles else spec.widths[0]
        self.norm = make_norm("trms2d", width)
        self.activation = make_activation(activation)
        self.conv = Conv3x3(width, 12 if self.doubles else 3)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the finest stage to the image (n, 3, H, W)."""
        x = self.conv(self.activation(self.norm(x)))
        return F.pixel_shuffle(x, 2) if self.doubles else x


def _blocks(spec: CoderSpec, stage: int) -> list[nn.Module]:
    make = BLOCKS[spec.blocks[stage]]
    return [make(spec.widths[stage], spec.norm(stage), spec.activation(stage)) for _ in range(spec.depths[stage])]
