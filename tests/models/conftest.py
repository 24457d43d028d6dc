import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dcae_bench.specs.autoencoders import DCAESpec

# Our names to those of diffusers' AutoencoderDC; the first pattern that matches applies.
RENAMES = [
    (r"encoder\.project_out\.conv\.", "encoder.conv_out."),
    (r"decoder\.project_in\.conv\.", "decoder.conv_in."),
    (r"decoder\.project_out\.norm\.", "decoder.norm_out."),
    (r"encoder\.stages\.", "encoder.down_blocks."),
    (r"decoder\.stages\.", "decoder.up_blocks."),
]
INNER = [
    (r"\.context\.aggregate\.0\.0\.", ".attn.to_qkv_multiscale.0.proj_in."),
    (r"\.context\.aggregate\.0\.1\.", ".attn.to_qkv_multiscale.0.proj_out."),
    (r"\.context\.project\.", ".attn.to_out."),
    (r"\.context\.norm\.", ".attn.norm_out."),
    (r"\.local\.expand\.", ".conv_out.conv_inverted."),
    (r"\.local\.depthwise\.", ".conv_out.conv_depth."),
    (r"\.local\.project\.", ".conv_out.conv_point."),
    (r"\.local\.norm\.", ".conv_out.norm."),
]


def convert(state: dict[str, Tensor], spec: DCAESpec) -> dict[str, Tensor]:
    """A DCAE's state under the names and shapes of diffusers' AutoencoderDC."""
    found = {}
    for key, value in state.items():
        if ".context.qkv." in key:
            stem = _rename(key.split(".context.")[0] + ".", spec)
            for name, rows in zip(("to_q", "to_k", "to_v"), value[:, :, 0, 0].chunk(3), strict=True):
                found[f"{stem}attn.{name}.weight"] = rows
        else:
            found[_rename(key, spec)] = value[:, :, 0, 0] if ".context.project." in key else value
    return found


def _rename(key: str, spec: DCAESpec) -> str:
    # Where stage 0 is left out, diffusers' stem and head are a down- and an upsampling block around the convolution.
    stem = "encoder.conv_in.conv." if spec.encoder.depths[0] == 0 else "encoder.conv_in."
    head = "decoder.conv_out.conv." if spec.decoder.depths[0] == 0 else "decoder.conv_out."
    edges = [(r"encoder\.project_in\.conv\.", stem), (r"decoder\.project_out\.conv\.", head)]
    for pattern, name in [*edges, *RENAMES]:
        key, count = re.subn(f"^{pattern}", name, key)
        if count:
            break
    for pattern, name in INNER:
        key = re.sub(pattern, name, key)
    return key


@pytest.fixture
def to_diffusers() -> Callable[[dict[str, Tensor], DCAESpec], dict[str, Tensor]]:
    return convert


@pytest.fixture
def randomise() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Give every tensor of a model, norms and BatchNorm statistics included, values that no default hides."""

    def fill(model: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(3)
        for key, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if key.endswith("running_var"):
                value.copy_(1 + 0.3 * noise.tanh())
            elif value.ndim > 1:
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                value.copy_((1 if "norm" in key and key.endswith("weight") else 0) + 0.1 * noise)
        return model.eval()

    return fill
