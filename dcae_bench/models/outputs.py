"""What classes of others return: the latent in the result of an ``encode``, the image in that of a ``decode``."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LATENTS = ("latent_dist", "posterior", "latent", "latents", "z", "quantized", "quant", "embedding")
IMAGES = ("sample", "image", "images", "reconstruction", "recon", "x")
DEPTH = 4
"""How deep a tensor may lie in tuples and objects."""
ENCODE_RETURNS = (
    "return a tensor (n, c, H/f, W/f), a posterior with mode() or sample(), or either of them in a tuple or as one of "
    + ", ".join(LATENTS)
)
DECODE_RETURNS = "return a tensor (n, 3, H, W), or one in a tuple or as one of " + ", ".join(IMAGES)


def latent_of(output: Any) -> Tensor | None:
    """The latent in the result of an ``encode``; None where there is none.

    Of a posterior it is the mode, else the mean, and only without both a sample. Of a tuple it is the first latent.
    """
    return _find(output, LATENTS, DEPTH)


def image_of(output: Any) -> Tensor | None:
    """The image in the result of a ``decode``; None where there is none."""
    return _find(output, IMAGES, DEPTH)


def describe_output(output: Any) -> str:
    """The kind of a result, with the names or kinds of what is in it."""
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with {', '.join(map(str, output)) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {', '.join(type(item).__name__ for item in output) or 'nothing'}"
    names = [one.name for one in fields(output)] if is_dataclass(output) else [*getattr(output, "__dict__", ())]
    return f"a {kind} with {', '.join(names)}" if names else f"a {kind}"


def _find(output: Any, names: tuple[str, ...], depth: int) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, np.ndarray):
        return torch.from_numpy(output)
    if output is None or isinstance(output, str | int | float) or not depth:
        return None
    if (found := _of_posterior(output, names)) is not None:
        return found
    if (inner := _named(output, names)) is not None:
        return next((one for item in inner if (one := _find(item, names, depth - 1)) is not None), None)
    if isinstance(output, tuple | list):
        each = (_find(item, names, depth - 1) for item in output)
        return next((one for one in each if one is not None and one.ndim), None)  # one without axes is a loss
    return _only_tensor(output)


def _named(output: Any, names: tuple[str, ...]) -> list[Any] | None:
    """Values of the usual names that the result has, in the order of the names; None where it has none."""
    if isinstance(output, Mapping):
        found = [output[name] for name in names if name in output]
    else:
        found = [getattr(output, name) for name in names if hasattr(output, name)]
    found = [value for value in found if value is not None and not callable(value)]
    return found or None


def _of_posterior(output: Any, names: tuple[str, ...]) -> Tensor | None:
    """Latent of a posterior: its mode, else its mean, else a sample. ``decode`` returns no posterior."""
    if names is not LATENTS or isinstance(output, Mapping | tuple | list):
        return None
    for name in ("mode", "mean", "sample"):
        value = getattr(output, name, None)
        if callable(value) and not isinstance(value, Tensor):
            if name == "sample" or hasattr(output, "sample"):
                value = value()
            else:
                continue
        if isinstance(value, Tensor):
            return value
    return None


def _only_tensor(output: Any) -> Tensor | None:
    """The tensor of an object or a mapping that has exactly one."""
    values = output.values() if isinstance(output, Mapping) else getattr(output, "__dict__", {}).values()
    tensors = [value for value in values if isinstance(value, Tensor)]
    return tensors[0] if len(tensors) == 1 else None
