"""Weights on disk: our layout and the published ones in and out, with every mismatch named."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dcae_bench.diffusers_source import CONFIG, FOLDER_FILES, weights_in
from dcae_bench.errors import WeightsError
from dcae_bench.files import sha256_file, write_bytes, write_text, write_with
from dcae_bench.models.diffusers_config import CLASSES, conflict, diffusers_config
from dcae_bench.models.keys import Layout, layouts, read_layout, write_layout
from dcae_bench.specs import AutoencoderSpec, DCAESpec, SDVAESpec, core

PICKLES = (".pt", ".pth", ".ckpt", ".bin")


def save_weights(
    state: dict[str, Tensor], path: Path, *, layout: str = "native", spec: AutoencoderSpec | None = None
) -> str:
    """Write a state dict, atomically; returns the SHA-256 of the weights file.

    ``state`` has our keys; ``layout`` is ``native``, ``official``, ``diffusers`` or another of
    :func:`dcae_bench.models.keys.layouts` and needs the ``spec``. The suffix decides the format: ``.pt`` (a dict under
    ``state_dict``) or safetensors. A path without suffix is a folder that also gets diffusers' config.json.
    Raises :class:`WeightsError` for a layout the autoencoder does not have, :class:`ResultsError` for a failed write.
    """
    known = layouts(spec, state)
    if layout not in known:
        raise WeightsError(f"{path}: layout '{layout}' cannot hold this autoencoder; choose one of {', '.join(known)}")
    out = {k: v.detach().cpu().contiguous().clone() for k, v in write_layout(state, known[layout]).items()}
    path = Path(path)
    if not path.suffix:
        if layout == "diffusers" and isinstance(spec, DCAESpec | SDVAESpec):
            config = {"_class_name": CLASSES[spec.family], **diffusers_config(spec)}
            write_text(path / CONFIG, json.dumps(config, indent=2) + "\n")
        path = path / FOLDER_FILES[0]
    if path.suffix in PICKLES:
        write_with(path, lambda file: torch.save({"state_dict": out}, file))
    else:
        write_bytes(path, save(out))
    return sha256_file(path)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file. Raises :class:`WeightsError` when it cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); train or fetch them first") from error


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> str:
    """Load weights of any layout into ``model``, key by key; returns the file's SHA-256.

    ``path`` is a safetensors file, a pickle of tensors (read with ``weights_only=True``) or a folder in diffusers'
    form. The layout is the one whose names the file has most of. Raises :class:`WeightsError` for a missing or damaged
    file, code inside a pickle, another hash than ``sha256`` (if given), a config.json of another architecture, a
    missing, extra or misshapen key, and for values that are not finite.
    """
    path = Path(path)
    spec = getattr(model, "spec", None)
    if path.is_dir():
        path = _inside(path, spec)
    found = weights_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path}: has SHA-256 {found}, expected {sha256}; delete the file and make it again")
    state = read_state(path)
    if isinstance(core(spec), SDVAESpec):  # LDM keeps its discriminator and LPIPS beside the autoencoder
        state = {key: value for key, value in state.items() if not key.startswith("loss.")}
    own = model.state_dict()
    layout = _detect(layouts(spec, own), state, path)
    check_state(write_layout(own, layout), state, path, "this autoencoder")
    model.load_state_dict(read_layout(state, layout))
    return found


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file by name, without running code. Raises :class:`WeightsError`."""
    return tensors_of(read_content(path), path)


def read_content(path: Path) -> Any:
    """What a safetensors file or a pickle holds, without running code. Raises :class:`WeightsError`."""
    try:
        with open(path, "rb") as file:
            head = file.read(2)
        if head not in (b"PK", b"\x80\x02"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); fetch them first") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: is not a whole safetensors file ({error}); delete it and make it again") from error
    except Exception as error:  # damaged bytes make torch's reader raise nearly anything
        if code := re.search(r"(?:GLOBAL |global )'?([\w.]+)", str(error)):
            raise WeightsError(
                f"{path}: is a pickle that wants to run code ({code[1]}); only tensors are loaded, use safetensors"
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: is not a whole weights file ({reason}); delete it and make it again") from error


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Tensors of a file's content, on top or under ``state_dict``. Raises :class:`WeightsError` where none are."""
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path}: holds no dict of tensors, neither on top nor under 'state_dict'; use other weights"
        )
    return content


def _inside(folder: Path, spec: AutoencoderSpec | None) -> Path:
    """The weights file of a folder, its config.json checked against the spec."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except OSError:
        config = {}
    except ValueError as error:
        raise WeightsError(f"{folder / CONFIG}: is not valid JSON ({error}); fetch the folder again") from error
    own = core(spec)
    if isinstance(own, DCAESpec | SDVAESpec) and (clause := conflict(config, own)):
        raise WeightsError(f"{folder / CONFIG}: {clause}; these are weights of another autoencoder")
    if (found := weights_in(folder)) is not None:
        return found
    raise WeightsError(f"{folder}: holds none of {', '.join(FOLDER_FILES)}; put one there or name the file itself")


def _detect(known: dict[str, Layout], state: dict[str, Tensor], path: Path) -> Layout:
    shared = {
        name: sum(part in state for place in layout.values() for part in place.names) for name, layout in known.items()
    }
    best = max(shared, key=shared.__getitem__)
    if not shared[best]:
        first = min(state, default="nothing")
        raise WeightsError(
            f"{path}: no key is this autoencoder's (the first is '{first}'); these are not weights of this autoencoder"
        )
    return known[best]


def check_state(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path, model: str) -> None:
    """Compare a file's tensors with those wanted; ``model`` says what of, ``this autoencoder``.

    Raises :class:`WeightsError` for a missing, extra or misshapen key, and for values that are not finite.
    """
    problems = [
        ("key '{}' is missing", sorted(wanted.keys() - found.keys())),
        ("key '{}' is unknown to the model", sorted(found.keys() - wanted.keys())),
        ("key '{}' has another shape than the model's", sorted(_misshapen(wanted, found))),
        ("key '{}' holds values that are not finite", sorted(_not_finite(found))),
    ]
    for text, keys in problems:
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise WeightsError(f"{path}: {text.format(keys[0])}{more}; these are not weights of {model}")


def _misshapen(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    return [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]


def _not_finite(found: dict[str, Tensor]) -> list[str]:
    return [key for key, value in found.items() if value.is_floating_point() and not torch.isfinite(value).all()]
