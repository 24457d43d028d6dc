"""Configs of published folders: the arguments of diffusers' class for a spec, and the check of a config.json."""

import inspect
from typing import Any

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.specs.autoencoders import ATTENTION_HEAD_DIM, DCAESpec, SDVAESpec

CLASSES = {"dc-ae": "AutoencoderDC", "sd-vae": "AutoencoderKL"}
IRRELEVANT = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "sample_size", "force_upcast")
"""Arguments without effect on encoding and decoding: the scale of a denoiser's input, tiles, and a pipeline's type."""
MODEL_NAME = "model_name"
EVIT = ("evit_glu", "evits5_glu")


def diffusers_config(spec: DCAESpec | SDVAESpec) -> dict[str, Any]:
    """Every argument of ``AutoencoderDC`` or ``AutoencoderKL`` but ``IRRELEVANT``. No model has the defaults."""
    return _autoencoder_dc(spec) if isinstance(spec, DCAESpec) else _autoencoder_kl(spec)


def config_conflict(config: dict[str, Any], spec: DCAESpec | SDVAESpec) -> str | None:
    """One clause that says where the config.json of a published folder contradicts the spec; None if the two agree.

    The authors' own folders only name a model. In a folder of diffusers, each key of the config is followed by our
    graph, or it has no effect on it (``IRRELEVANT``), or it is refused by name. A key that is not there has the default
    of diffusers' class.
    """
    if names_model(config):
        return _other_model(config, spec)
    found = config.get("_class_name", CLASSES[spec.family])
    if found != CLASSES[spec.family]:
        return f"_class_name is {found}, this autoencoder is a {CLASSES[spec.family]}"
    wanted = diffusers_config(spec)
    for name in sorted(config):
        if name not in wanted and name not in IRRELEVANT and not name.startswith("_"):
            return f"{name} is {config[name]}, which this {CLASSES[spec.family]} does not follow"
    defaults = {} if wanted.keys() <= config.keys() else constructor_defaults(CLASSES[spec.family])
    for name, value in wanted.items():
        given = config[name] if name in config else defaults.get(name)
        note = "" if name in config else " (the default, as the key is missing)"
        if not isinstance(value, list):
            if _spelt(name, given) != _spelt(name, value):
                return f"{name} is {given}{note}, expected {value}"
            continue
        stages = given if isinstance(given, list | tuple) else [given] * len(value) if isinstance(given, str) else []
        if len(stages) != len(value):
            return f"{name} is {given}{note}, expected {value}"
        for stage in _stages_with(name, spec, len(value)):
            if _spelt(name, stages[stage]) != _spelt(name, value[stage]):
                return f"{name} has {stages[stage]} in stage {stage}{note}, expected {value[stage]}"
    return None


def names_model(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of the authors' own folders, which name a model in place of its graph."""
    return MODEL_NAME in config and "_class_name" not in config


def _other_model(config: dict[str, Any], spec: DCAESpec | SDVAESpec) -> str | None:
    name, others = config[MODEL_NAME], sorted(config.keys() - {MODEL_NAME})
    if others:
        return f"{others[0]} is {config[others[0]]}, which nothing follows beside {MODEL_NAME}"
    if not isinstance(name, str) or name not in catalogue().autoencoders:
        return f"{MODEL_NAME} is {name}, which the catalogue of autoencoders does not have"
    return None if catalogue().spec(name) == spec else f"{MODEL_NAME} is {name}, whose graph is another"


def constructor_defaults(class_name: str) -> dict[str, Any]:
    """Default of every argument of a class of diffusers, by the argument's name."""
    import diffusers  # slow import

    arguments = inspect.signature(getattr(diffusers, class_name).__init__).parameters.values()
    return {argument.name: argument.default for argument in arguments if argument.name != "self"}


def _spelt(name: str, value: Any) -> Any:
    """A value in one spelling, where diffusers understands several."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str) and name.endswith(("act_fn", "act_fns")):
        return "silu" if value.lower() == "swish" else value.lower()
    return "Conv" if (name, value) == ("downsample_block_type", "conv") else value


def _stages_with(name: str, spec: DCAESpec | SDVAESpec, count: int) -> list[int]:
    """Stages in which an entry of a list has an effect: a stage without blocks has none, and not each block has all."""
    if isinstance(spec, SDVAESpec):
        return [*range(count)]
    coder = spec.encoder if name.startswith("encoder") else spec.decoder
    kinds = {"decoder_act_fns": ("res",), "encoder_qkv_multiscales": EVIT, "decoder_qkv_multiscales": EVIT}
    blocks = kinds.get(name, ("res", *EVIT))
    always = name.endswith("layers_per_block")
    return [stage for stage in range(count) if always or (coder.depths[stage] and coder.blocks[stage] in blocks)]


def _autoencoder_dc(spec: DCAESpec) -> dict[str, Any]:
    stages = range(len(spec.decoder.widths))
    pixel = spec.encoder.resample == "pixel", spec.decoder.resample == "pixel"
    decoder = [(block, spec.decoder.norm(stage)) for stage, block in enumerate(spec.decoder.blocks)]
    return {
        "in_channels": 3,
        "latent_channels": spec.latent_channels,
        "attention_head_dim": ATTENTION_HEAD_DIM,
        "downsample_block_type": "pixel_unshuffle" if pixel[0] else "Conv",
        "upsample_block_type": "pixel_shuffle" if pixel[1] else "interpolate",
        "encoder_out_shortcut": True,
        "decoder_in_shortcut": True,
        "decoder_norm_types": ["batch_norm" if norm == ("res", "bn2d") else "rms_norm" for norm in decoder],
        "decoder_act_fns": [spec.decoder.activation(s) for s in stages],
        "decoder_conv_act_fn": spec.head_activation,
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
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "mid_block_add_attention": True,
        "down_block_types": ["AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D" for attends in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D" for attends in attention[::-1]],
        "block_out_channels": list(spec.widths),
        "layers_per_block": spec.layers_per_block,
        "latent_channels": spec.latent_channels,
        "norm_num_groups": spec.norm_groups,
        "use_quant_conv": spec.quant_convs,
        "use_post_quant_conv": spec.quant_convs,
    }
