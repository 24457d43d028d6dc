"""The config of diffusers' class for a spec: its constructor arguments, and the check of a config.json."""

from typing import Any

from dcae_bench.specs.autoencoders import DCAESpec, SDVAESpec

CLASSES = {"dc-ae": "AutoencoderDC", "sd-vae": "AutoencoderKL"}


def diffusers_config(spec: DCAESpec | SDVAESpec) -> dict[str, Any]:
    """Every argument of ``AutoencoderDC`` or ``AutoencoderKL``. No released model has the default arguments."""
    return _autoencoder_dc(spec) if isinstance(spec, DCAESpec) else _autoencoder_kl(spec)


def config_conflict(config: dict[str, Any], spec: DCAESpec | SDVAESpec) -> str | None:
    """One clause that says where a config.json contradicts the spec; None if the two agree.

    The keys and shapes of the weights show most contradictions. This check covers the others: the class, and the
    choices of AutoencoderDC that its weights do not show (resampling, shortcuts, activations of residual blocks).
    """
    wanted = diffusers_config(spec)
    found = config.get("_class_name", CLASSES[spec.family])
    if found != CLASSES[spec.family]:
        return f"_class_name is {found}, this autoencoder is a {CLASSES[spec.family]}"
    if isinstance(spec, SDVAESpec):
        return None
    for name in ("downsample_block_type", "upsample_block_type", "encoder_out_shortcut", "decoder_in_shortcut"):
        if str(config.get(name, wanted[name])).lower() != str(wanted[name]).lower():
            return f"{name} is {config[name]}, expected {wanted[name]}"
    activations = config.get("decoder_act_fns", wanted["decoder_act_fns"])
    for stage, depth in enumerate(spec.decoder.depths):
        activation = activations if isinstance(activations, str) else activations[stage]
        if depth and spec.decoder.blocks[stage] == "res" and activation != wanted["decoder_act_fns"][stage]:
            return f"decoder_act_fns has {activation} in stage {stage}, expected {wanted['decoder_act_fns'][stage]}"
    return None


def _autoencoder_dc(spec: DCAESpec) -> dict[str, Any]:
    stages = range(len(spec.decoder.widths))
    pixel = spec.encoder.resample == "pixel", spec.decoder.resample == "pixel"
    return {
        "latent_channels": spec.latent_channels,
        "downsample_block_type": "pixel_unshuffle" if pixel[0] else "Conv",
        "upsample_block_type": "pixel_shuffle" if pixel[1] else "interpolate",
        "encoder_out_shortcut": True,
        "decoder_in_shortcut": True,
        "decoder_norm_types": ["batch_norm" if spec.decoder.norm(s) == "bn2d" else "rms_norm" for s in stages],
        "decoder_act_fns": [spec.decoder.activation(s) for s in stages],
        **{
            f"{side}_{name}": value
            for side, coder in (("encoder", spec.encoder), ("decoder", spec.decoder))
            for name, value in (
                ("block_types", ["ResBlock" if block == "res" else "EfficientViTBlock" for block in coder.blocks]),
                ("block_out_channels", list(coder.widths)),
                ("layers_per_block", list(coder.depths)),
                ("qkv_multiscales", [[5] if block == "evits5_glu" else [] for block in coder.blocks]),
            )
        },
    }


def _autoencoder_kl(spec: SDVAESpec) -> dict[str, Any]:
    attention = [level in spec.attention_levels for level in range(len(spec.widths))]
    return {
        "down_block_types": ["AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D" for attends in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D" for attends in attention[::-1]],
        "block_out_channels": list(spec.widths),
        "layers_per_block": spec.layers_per_block,
        "latent_channels": spec.latent_channels,
        "norm_num_groups": spec.norm_groups,
        "use_quant_conv": spec.quant_convs,
        "use_post_quant_conv": spec.quant_convs,
    }
