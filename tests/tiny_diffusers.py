"""Every class of diffusers that is taken, at a reduced size: arguments, and the f and c that follow from them."""

from dataclasses import dataclass
from typing import Any

from dcae_bench.specs.autoencoders import DiffusersSpec

KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "norm_num_groups": 4,
    "latent_channels": 3,
}
DC = {
    "latent_channels": 4,
    **{f"{side}_block_types": "ResBlock" for side in ("encoder", "decoder")},
    **{f"{side}_block_out_channels": [8, 8, 16] for side in ("encoder", "decoder")},
    **{f"{side}_layers_per_block": [1, 1, 1] for side in ("encoder", "decoder")},
    **{f"{side}_qkv_multiscales": [[], [], []] for side in ("encoder", "decoder")},
}
STATISTICS = {"latents_mean": [0.5, -0.25, 0.0, 1.0], "latents_std": [2.0, 0.5, 1.0, 4.0]}
WAN = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1], "num_res_blocks": 1, "temperal_downsample": [True], **STATISTICS}
LTX = {
    "latent_channels": 8,
    "block_out_channels": [8, 8],
    "down_block_types": ["LTXVideoDownBlock3D"] * 2,
    "decoder_block_out_channels": [8, 8],
    "layers_per_block": [1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1],
    "spatio_temporal_scaling": [True, False],
    "decoder_spatio_temporal_scaling": [True, False],
    "decoder_inject_noise": [False] * 3,
    "upsample_residual": [False] * 2,
    "upsample_factor": [1, 1],
    "downsample_type": ["conv", "conv"],
    "patch_size": 2,
}
VIDTOK = {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1}


@dataclass(frozen=True)
class Tiny:
    """A class with few parameters."""

    class_name: str
    config: dict[str, Any]
    f: int
    c: int
    what: str = ""
    """What this config is tried for, beside the class."""

    def spec(self, source: str = "some/where", *, f: int | None = None, c: int | None = None) -> DiffusersSpec:
        return DiffusersSpec(
            family="diffusers",
            source=source,
            class_name=self.class_name,
            config=self.config,
            compression=f or self.f,
            latent_channels=c or self.c,
        )


ALL = (
    Tiny(
        "AsymmetricAutoencoderKL",
        {
            **{k: v for k, v in KL.items() if k != "block_out_channels"},
            "down_block_out_channels": [8, 8],
            "up_block_out_channels": [8, 16],
        },
        2,
        3,
    ),
    Tiny("AutoencoderDC", DC, 4, 4),
    Tiny("AutoencoderKL", KL, 2, 3),
    Tiny(
        "AutoencoderKLCogVideoX",
        {
            "latent_channels": 4,
            "down_block_types": ["CogVideoXDownBlock3D"] * 3,
            "up_block_types": ["CogVideoXUpBlock3D"] * 3,
            "block_out_channels": [8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        4,
        4,
    ),
    Tiny(
        "AutoencoderKLCosmos",
        {
            "latent_channels": 4,
            "encoder_block_out_channels": [8, 8],
            "decode_block_out_channels": [8, 8],
            "attention_resolutions": [8],
            "resolution": 32,
            "num_layers": 1,
            "patch_size": 2,
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 2,
        },
        2,
        4,
    ),
    Tiny("AutoencoderKLFlux2", KL, 2, 3),
    Tiny(
        "AutoencoderKLHunyuanImage",
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": [32, 64],
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "sample_size": 32,
        },
        2,
        4,
    ),
    Tiny(
        "AutoencoderKLHunyuanImageRefiner",
        {
            "latent_channels": 4,
            "block_out_channels": [32, 64],
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "temporal_compression_ratio": 2,
        },
        2,
        4,
    ),
    Tiny(
        "AutoencoderKLHunyuanVideo",
        {
            "latent_channels": 4,
            "down_block_types": ["HunyuanVideoDownBlock3D"] * 4,
            "up_block_types": ["HunyuanVideoUpBlock3D"] * 4,
            "block_out_channels": [8] * 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        8,
        4,
    ),
    Tiny(
        "AutoencoderKLHunyuanVideo15",
        {
            "latent_channels": 4,
            "block_out_channels": [16] * 3,
            "layers_per_block": 1,
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 2,
        },
        4,
        4,
    ),
    Tiny(
        "AutoencoderKLKVAE",
        {"channels": 32, "ch_mult": [1, 1], "num_enc_blocks": 1, "num_dec_blocks": 1, "z_channels": 4},
        2,
        4,
    ),
    Tiny("AutoencoderKLKVAEVideo", {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "z_channels": 4}, 4, 4),
    Tiny(
        "AutoencoderKLLTX2Video",
        {
            "latent_channels": 8,
            "block_out_channels": [8] * 3,
            "down_block_types": ["LTX2VideoDownBlock3D"] * 3,
            "decoder_block_out_channels": [8] * 3,
            "layers_per_block": [1] * 4,
            "decoder_layers_per_block": [1] * 4,
            "spatio_temporal_scaling": [True] * 3,
            "decoder_spatio_temporal_scaling": [True] * 3,
            "decoder_inject_noise": [False] * 4,
            "upsample_residual": [True] * 3,
            "upsample_factor": [1] * 3,
            "downsample_type": ["spatial", "temporal", "spatiotemporal"],
            "upsample_type": ["spatiotemporal", "temporal", "spatial"],
            "patch_size": 2,
            "spatial_compression_ratio": 8,
        },
        8,
        8,
    ),
    Tiny("AutoencoderKLLTXVideo", LTX, 4, 8),
    Tiny(
        "AutoencoderKLLTXVideo",
        {**LTX, "timestep_conditioning": True, "decoder_inject_noise": [True, True, True]},
        4,
        8,
        "with noise and a time step",
    ),
    Tiny(
        "AutoencoderKLMagvit",
        {
            "latent_channels": 4,
            "block_out_channels": [8, 8],
            "down_block_types": ["SpatialDownBlock3D", "SpatialTemporalDownBlock3D"],
            "up_block_types": ["SpatialUpBlock3D", "SpatialTemporalUpBlock3D"],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        2,
        4,
    ),
    Tiny(
        "AutoencoderKLMochi",
        {
            "latent_channels": 4,
            "encoder_block_out_channels": [32] * 4,
            "decoder_block_out_channels": [32] * 4,
            "layers_per_block": [1] * 5,
            **STATISTICS,
        },
        8,
        4,
    ),
    Tiny("AutoencoderKLQwenImage", WAN, 2, 4),
    Tiny("AutoencoderKLQwenImage", {**WAN, "input_channels": 4}, 2, 4, "with alpha"),
    Tiny("AutoencoderKLQwenImage21", {**WAN, "decoder_base_dim": 8, "scale_factor_spatial": 2}, 2, 4, "with alpha"),
    Tiny(
        "AutoencoderKLTemporalDecoder",
        {"block_out_channels": [32, 32], "down_block_types": ["DownEncoderBlock2D"] * 2},
        2,
        4,
    ),
    Tiny("AutoencoderKLWan", {**WAN, "scale_factor_spatial": 2}, 2, 4),
    Tiny(
        "AutoencoderKLWan",
        {**WAN, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 4},
        4,
        4,
        "of patches, as Wan 2.2",
    ),
    Tiny(
        "AutoencoderRAE",
        {
            "encoder_hidden_size": 64,
            "encoder_num_hidden_layers": 1,
            "decoder_hidden_size": 32,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
            "patch_size": 4,
            "encoder_input_size": 112,
        },
        4,
        64,
        "DINOv2",
    ),
    Tiny(
        "AutoencoderRAE",
        {
            "encoder_type": "mae",
            "encoder_hidden_size": 64,
            "encoder_num_hidden_layers": 1,
            "encoder_patch_size": 16,
            "decoder_hidden_size": 32,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
            "patch_size": 4,
            "encoder_input_size": 128,
        },
        4,
        64,
        "MAE",
    ),
    Tiny(
        "AutoencoderTiny",
        {
            "encoder_block_out_channels": [8] * 3,
            "decoder_block_out_channels": [8] * 3,
            "num_encoder_blocks": [1] * 3,
            "num_decoder_blocks": [1] * 3,
        },
        4,
        4,
    ),
    Tiny("AutoencoderVidTok", VIDTOK, 4, 4, "KL"),
    Tiny("AutoencoderVidTok", {**VIDTOK, "regularizer": "fsq", "codebook_size": 8**4, "double_z": False}, 4, 4, "FSQ"),
    Tiny(
        "ConsistencyDecoderVAE",
        {
            "encoder_block_out_channels": [8, 8],
            "encoder_down_block_types": ["DownEncoderBlock2D"] * 2,
            "encoder_norm_num_groups": 4,
            "encoder_layers_per_block": 1,
            "decoder_block_out_channels": [8, 8],
            "decoder_down_block_types": ["ResnetDownsampleBlock2D"] * 2,
            "decoder_up_block_types": ["ResnetUpsampleBlock2D"] * 2,
            "decoder_norm_num_groups": 4,
            "decoder_layers_per_block": 1,
        },
        2,
        4,
    ),
    Tiny(
        "Kandinsky6SRVAE",
        {
            "latent_channels": 4,
            "encoder_block_out_channels": [4, 8, 8],
            "decoder_block_out_channels": [4, 8, 8],
            "layers_per_block": 1,
        },
        4,
        4,
    ),
    Tiny("VQModel", {**KL, "num_vq_embeddings": 16}, 2, 3),
)


def tiny(class_name: str, what: str = "") -> Tiny:
    """The first config of a class, or the one that is tried for ``what``."""
    return next(one for one in ALL if one.class_name == class_name and what in one.what)
