"""Layouts of weights: tables from our keys to the names and shapes in published files.

A layout only renames our keys, with two exceptions. Some layouts hold a 1x1 convolution as a matrix. And diffusers cuts
DC-AE's interleaved qkv weight into three blocks of rows, called to_q, to_k and to_v; despite these names, each block
holds queries, keys and values of a third of the heads.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dcae_bench.specs.autoencoders import (
    AutoencoderSpec,
    DCAESpec,
    DiffusersSpec,
    PCASpec,
    SDVAESpec,
    SpaceToChannelSpec,
)


@dataclass(frozen=True)
class Place:
    """The place of one of our tensors in a layout: one name, or several names that each hold a block of the rows."""

    names: tuple[str, ...]
    shape: Literal["same", "matrix", "conv"] = "same"
    """``matrix``: our 1x1 convolution, stored without the last two axes; ``conv``: our matrix, as a 1x1 convolution."""


Layout = dict[str, Place]
"""The place of each tensor, by our key."""


def layouts(spec: AutoencoderSpec | None, keys: Iterable[str]) -> dict[str, Layout]:
    """Every layout of weights with our ``keys``, by the layout's name; our own layout, ``native``, comes first.

    DC-AE also has ``official`` and ``diffusers``. SD-VAE has ``official`` (LDM), ``diffusers``, and ``diffusers-2022``
    (with the older names of the attention layers). An external autoencoder has the keys of its own class, under
    ``diffusers`` or ``plain``. A class of diffusers with attention has ``diffusers-2022`` too, and ``AutoencoderRAE``
    has ``transformers-4`` (with the names of its encoders in that release).
    """
    keys = list(keys)
    native = {key: Place((key,)) for key in keys}
    if spec is None or isinstance(spec, PCASpec):
        return {"native": native}
    if isinstance(spec, SpaceToChannelSpec):
        inner = layouts(spec.base, [key.removeprefix("base.") for key in keys])
        inner["plain"] = inner.pop("native")
        return {"native": native} | {
            name: {f"base.{key}": place for key, place in layout.items()} for name, layout in inner.items()
        }
    if isinstance(spec, DCAESpec):
        return {"native": native} | (_dc_ae(spec, keys) if _published_graph(spec) else {})
    if isinstance(spec, SDVAESpec):
        return {"native": native} | _sd_vae(spec, keys)
    if isinstance(spec, DiffusersSpec):
        return {"native": native} | _diffusers(spec, keys)
    # A class that is no module has its networks in `parts`.
    return {"native": native, "plain": {key: Place((re.sub(r"^(net|parts)\.", "", key),)) for key in keys}}


def write_layout(state: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Convert a state with our keys to the names and shapes of a layout."""
    out = {}
    for key, value in state.items():
        place = layout[key]
        value = _reshape(value, place.shape)
        for name, block in zip(place.names, value.chunk(len(place.names)) if value.ndim else (value,), strict=True):
            out[name] = block
    return out


def read_layout(state: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Convert a state in a layout to our keys and shapes: the inverse of :func:`write_layout`."""
    out = {}
    for key, place in layout.items():
        blocks = [state[name] for name in place.names]
        value = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        out[key] = _reshape(value, {"matrix": "conv", "conv": "matrix"}.get(place.shape, "same"))
    return out


def _reshape(value: Tensor, shape: str) -> Tensor:
    if shape == "same":
        return value
    return value[:, :, 0, 0] if shape == "matrix" else value[:, :, None, None]


def _published_graph(spec: DCAESpec) -> bool:
    """Whether the authors' released code can build a network of this spec.

    The released code always has shortcuts, and its encoder has trms2d and silu in every residual block. The code cannot
    leave out stage 0 of a coder that resamples by strided convolutions.
    """
    encoder = spec.encoder
    residual = [stage for stage, block in enumerate(encoder.blocks) if block == "res" and encoder.depths[stage]]
    return (
        spec.shortcuts
        and not any(coder.resample == "conv" and coder.depths[0] == 0 for coder in (encoder, spec.decoder))
        and all((encoder.norm(stage), encoder.activation(stage)) == ("trms2d", "silu") for stage in residual)
    )


def _dc_ae(spec: DCAESpec, keys: list[str]) -> dict[str, Layout]:
    official = {key: Place((_apply(key, _edges(spec, "official") + OFFICIAL),)) for key in keys}
    diffusers = {}
    for key in keys:
        name = _apply(key, _edges(spec, "diffusers") + DIFFUSERS_DC)
        if name.endswith(".attn.qkv.weight"):
            stem = name.removesuffix("qkv.weight")
            diffusers[key] = Place(tuple(f"{stem}{part}.weight" for part in ("to_q", "to_k", "to_v")), "matrix")
        else:
            diffusers[key] = Place((name,), "matrix" if name.endswith(".attn.to_out.weight") else "same")
    return {"official": official, "diffusers": diffusers}


Rules = list[tuple[str, str]]
"""Pairs of a regular expression and its replacement. Each pair is applied to the result of the pair before."""

OFFICIAL: Rules = [
    (r"^encoder\.project_out\.conv\.", "encoder.project_out.main.op_list.0.conv."),
    (r"^decoder\.project_in\.conv\.", "decoder.project_in.main.conv."),
    (r"^decoder\.project_out\.norm\.", "decoder.project_out.op_list.0."),
    (r"(\.stages\.\d+)\.", r"\1.op_list."),
    (r"\.(conv1|conv2)\.(weight|bias)$", r".main.\1.conv.\2"),
    (r"(op_list\.\d+)\.norm\.", r"\1.main.conv2.norm."),
    (r"\.context\.aggregate\.", ".context_module.main.aggreg."),
    (r"\.context\.qkv\.", ".context_module.main.qkv.conv."),
    (r"\.context\.project\.", ".context_module.main.proj.conv."),
    (r"\.context\.norm\.", ".context_module.main.proj.norm."),
    (r"\.local\.expand\.", ".local_module.main.inverted_conv.conv."),
    (r"\.local\.depthwise\.", ".local_module.main.depth_conv.conv."),
    (r"\.local\.project\.", ".local_module.main.point_conv.conv."),
    (r"\.local\.norm\.", ".local_module.main.point_conv.norm."),
]
DIFFUSERS_DC: Rules = [
    (r"^encoder\.project_out\.conv\.", "encoder.conv_out."),
    (r"^decoder\.project_in\.conv\.", "decoder.conv_in."),
    (r"^decoder\.project_out\.norm\.", "decoder.norm_out."),
    (r"^encoder\.stages\.", "encoder.down_blocks."),
    (r"^decoder\.stages\.", "decoder.up_blocks."),
    (r"\.context\.aggregate\.(\d+)\.0\.", r".attn.to_qkv_multiscale.\1.proj_in."),
    (r"\.context\.aggregate\.(\d+)\.1\.", r".attn.to_qkv_multiscale.\1.proj_out."),
    (r"\.context\.qkv\.", ".attn.qkv."),
    (r"\.context\.project\.", ".attn.to_out."),
    (r"\.context\.norm\.", ".attn.norm_out."),
    (r"\.local\.expand\.", ".conv_out.conv_inverted."),
    (r"\.local\.depthwise\.", ".conv_out.conv_depth."),
    (r"\.local\.project\.", ".conv_out.conv_point."),
    (r"\.local\.norm\.", ".conv_out.norm."),
]


def _edges(spec: DCAESpec, layout: str) -> Rules:
    """Rules for the convolutions whose names depend on the graph: stem, head and resampling."""
    skipped_in, skipped_out = spec.encoder.depths[0] == 0, spec.decoder.depths[0] == 0
    if layout == "diffusers":
        stem, head = "encoder.conv_in.", "decoder.conv_out."
        return [
            (r"^encoder\.project_in\.conv\.", stem + "conv." * skipped_in),
            (r"^decoder\.project_out\.conv\.", head + "conv." * skipped_out),
        ]
    down = "conv.conv." if spec.encoder.resample == "pixel" else "conv."
    return [
        (r"^encoder\.project_in\.conv\.", "encoder.project_in.conv." + "conv." * skipped_in),
        (r"^decoder\.project_out\.conv\.", "decoder.project_out.op_list.2.conv." + "conv." * skipped_out),
        (r"^(encoder\.stages\.\d+\.\d+)\.conv\.", rf"\1.main.{down}"),
        (r"^(decoder\.stages\.\d+\.\d+)\.conv\.", r"\1.main.conv.conv."),
    ]


def _sd_vae(spec: SDVAESpec, keys: list[str]) -> dict[str, Layout]:
    attention = re.compile(r"\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight$")
    found: dict[str, Layout] = {"official": {}, "diffusers": {}, "diffusers-2022": {}}
    for key in keys:
        name = key.removeprefix("net.")
        ldm = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{len(spec.widths) - 1 - int(m[1])}", name)
        found["official"][key] = Place((_apply(ldm, LDM),), "conv" if attention.search(name) else "same")
        found["diffusers"][key] = Place((name,))
        found["diffusers-2022"][key] = Place((_apply(name, DIFFUSERS_2022),))
    return found


def _diffusers(spec: DiffusersSpec, keys: list[str]) -> dict[str, Layout]:
    plain = {key: key.removeprefix("net.") for key in keys}
    found = {"diffusers": plain}
    if spec.class_name == "AutoencoderRAE":
        found["transformers-4"] = {key: _apply(name, TRANSFORMERS_4) for key, name in plain.items()}
    else:
        older = {key: _apply(name, DIFFUSERS_2022) if ".attentions." in name else name for key, name in plain.items()}
        if older != plain:
            found["diffusers-2022"] = older
    return {layout: {key: Place((name,)) for key, name in names.items()} for layout, names in found.items()}


DIFFUSERS_2022: Rules = [
    (r"\.to_q\.", ".query."),
    (r"\.to_k\.", ".key."),
    (r"\.to_v\.", ".value."),
    (r"\.to_out\.0\.", ".proj_attn."),
]
TRANSFORMERS_4: Rules = [
    (r"^encoder\.layers\.(\d+)\.mlp\.fc1\.", r"encoder.encoder.layer.\1.intermediate.dense."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc2\.", r"encoder.encoder.layer.\1.output.dense."),
    (r"^encoder\.layers\.", "encoder.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
]
LDM: Rules = [
    (r"down_blocks\.", "down."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_(q|k|v)\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
]


def _apply(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
