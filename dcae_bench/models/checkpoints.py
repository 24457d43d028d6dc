"""Weights files of autoencoders: written and read in our layout and in the published layouts."""

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import open_regular, sha256_file, write_bytes, write_text, write_with
from dcae_bench.base.reading import read_json
from dcae_bench.models.diffusers_config import CLASSES, config_conflict, diffusers_config
from dcae_bench.models.keys import Layout, layouts, read_layout, write_layout
from dcae_bench.specs.autoencoders import AutoencoderSpec, DCAESpec, SDVAESpec, unfolded
from dcae_bench.weights.diffusers_folder import CONFIG, FOLDER_FILES, find_weights
from dcae_bench.weights.trained import METADATA, TrainedWeights

PICKLES = (".pt", ".pth", ".ckpt", ".bin")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of the numbers that a model's weights may have in a file."""


def save_weights(
    state: dict[str, Tensor],
    path: Path,
    *,
    layout: str = "native",
    spec: AutoencoderSpec | None = None,
    trained: TrainedWeights | None = None,
) -> str:
    """Write a state dict atomically, and return the SHA-256 of the weights file.

    ``state`` has our keys. ``layout`` is a name from :func:`dcae_bench.models.keys.layouts`, such as ``native``,
    ``official`` or ``diffusers``; all but ``native`` need the ``spec``. The suffix decides the format: ``.pt`` (a dict
    under ``state_dict``) or safetensors. A path without suffix is a folder, which also gets diffusers' config.json.
    ``trained`` says what the weights are; it goes into the metadata of a safetensors file.
    Raises :class:`WeightsError` for a layout that the autoencoder does not have, and :class:`ResultsError` when the
    file cannot be written.
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
        write_bytes(path, save(out, {METADATA: trained.model_dump_json()} if trained else None))
    return sha256_file(path)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file. Raises :class:`WeightsError` when the file cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); train or fetch them first") from error


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> str:
    """Load weights of any layout into ``model``, and return the SHA-256 of the file.

    ``path`` is a safetensors file, a pickle of tensors (read with ``weights_only=True``) or a folder of diffusers. The
    layout is recognised by the names in the file. Raises :class:`WeightsError` for a missing or damaged file, for code
    inside a pickle, for another hash than ``sha256`` (if given), for a config.json of another architecture, for a
    missing, extra or misshapen key, and for values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = _weights_in_folder(path, getattr(model, "spec", None))
    found = weights_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path}: has SHA-256 {found}, expected {sha256}; delete the file and make it again")
    model.load_state_dict(read_fitting(model, path))
    return found


def read_fitting(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read a weights file of any layout under the names of ``model``, whose own values are not read.

    Raises :class:`WeightsError` as :func:`load_weights` does for a file that does not fit.
    """
    spec = getattr(model, "spec", None)
    state = read_state(path)
    if isinstance(unfolded(spec), SDVAESpec):  # LDM keeps its discriminator and LPIPS beside the autoencoder
        state = {key: value for key, value in state.items() if not key.startswith("loss.")}
    own = model.state_dict()
    layout = _recognise_layout(layouts(spec, own), state, path)
    check_state(write_layout(own, layout), state, path, "this autoencoder")
    return read_layout(state, layout)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file by name, without running code in the file. Raises :class:`WeightsError`."""
    return tensors_of(read_content(path), path)


def read_content(path: Path) -> object:
    """Read a safetensors file or a pickle, without running code in the file. Raises :class:`WeightsError`."""
    try:
        with open_regular(path) as file:
            head = file.read(2)
        if head not in (b"PK", b"\x80\x02"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); fetch them first") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: is not a whole safetensors file ({error}); delete it and make it again") from error
    except Exception as error:  # torch's reader raises nearly any error for damaged bytes
        if code := re.search(r"(?:GLOBAL |global )'?([\w.]+)", str(error)):
            raise WeightsError(
                f"{path}: is a pickle that wants to run code ({code[1]}); only tensors are loaded, use safetensors"
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: is not a whole weights file ({reason}); delete it and make it again") from error


def tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """Tensors in a file's content, at the top level or under ``state_dict``.

    Raises :class:`WeightsError` where the content is not a dict of tensors. ``path`` names the file in the error.
    """
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{path}: holds no dict of tensors, neither on top nor under 'state_dict'; use other weights"
        )
    for key, value in content.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            raise WeightsError(f"{path}: key '{key}' is sparse, quantized or empty; use weights with plain tensors")
    return content


def _weights_in_folder(folder: Path, spec: AutoencoderSpec | None) -> Path:
    """The weights file of a folder, after a check of the folder's config.json against the spec."""
    try:
        config = read_json(folder / CONFIG)
    except OSError:
        config = None
    except ValueError as error:
        raise WeightsError(f"{folder / CONFIG}: is not valid JSON ({error}); fetch the folder again") from error
    own = unfolded(spec)
    if config is not None and isinstance(own, DCAESpec | SDVAESpec):
        if not isinstance(config, dict):
            raise WeightsError(f"{folder / CONFIG}: is not a JSON object; fetch the folder again")
        if clause := config_conflict(config, own):
            raise WeightsError(f"{folder / CONFIG}: {clause}; these are weights of another autoencoder")
    if (found := find_weights(folder)) is not None:
        return found
    raise WeightsError(f"{folder}: holds none of {', '.join(FOLDER_FILES)}; put one there or name the file itself")


def _recognise_layout(known: dict[str, Layout], state: dict[str, Tensor], path: Path) -> Layout:
    """The layout that shares the most names with the file."""
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
    """Compare the tensors ``found`` in a file with the tensors ``wanted`` by a model.

    ``model`` names the model in the error, e.g. ``this autoencoder``. Raises :class:`WeightsError` for a missing, extra
    or misshapen key, for a type that the model's tensor cannot take, and for values that are not finite.
    """

    def refuse(keys: list[str], text: str) -> None:
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise WeightsError(f"{path}: key '{keys[0]}' {text}{more}; these are not weights of {model}")

    refuse(sorted(wanted.keys() - found.keys()), "is missing")
    refuse(sorted(found.keys() - wanted.keys()), "is unknown to the model")
    refuse(sorted(_misshapen(wanted, found)), "has another shape than the model's")
    if other := sorted(key for key in wanted if not _takes(wanted[key], found[key])):
        refuse(other, f"holds {_describe(found[other[0]])}, not {_describe(wanted[other[0]])}")
    refuse(sorted(_not_finite(found)), "holds values that are not finite")


def _misshapen(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    return [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]


def _takes(wanted: Tensor, found: Tensor) -> bool:
    """Whether a model's tensor may take a file's numbers: no integers for floats, and nothing sparse."""
    if found.layout != torch.strided or found.is_quantized or found.device.type == "meta":
        return False
    return found.dtype in FLOATS if wanted.is_floating_point() else found.dtype == wanted.dtype


def _describe(values: Tensor) -> str:
    """Kind of a tensor's numbers, e.g. ``int8 numbers`` or ``sparse_coo float32 numbers``."""
    layout = "" if values.layout == torch.strided else f"{values.layout} "
    return f"{layout}{values.dtype} numbers".replace("torch.", "")


def _not_finite(found: dict[str, Tensor]) -> list[str]:
    return [key for key, value in found.items() if value.is_floating_point() and not torch.isfinite(value).all()]
