"""Weights files of autoencoders: written and read in our layout and in the published layouts."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file, write_bytes, write_text, write_with
from dcae_bench.base.reading import read_json
from dcae_bench.models.diffusers_config import CLASSES, config_conflict, diffusers_config
from dcae_bench.models.keys import Layout, layouts, read_layout, write_layout
from dcae_bench.models.weight_files import PICKLES, parts_of, read_content, weights_sha256
from dcae_bench.specs.autoencoders import AutoencoderSpec, DCAESpec, SDVAESpec, unfolded
from dcae_bench.weights.diffusers_folder import CONFIG, FOLDER_FILES, find_weights
from dcae_bench.weights.trained import METADATA, TrainedWeights

WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Names of what `torch.compile`, FSDP and activation checkpointing put around modules."""
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


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> str:
    """Load weights of any layout into ``model``, and return their SHA-256, see :func:`weights_sha256`.

    ``path`` is a safetensors file, the index of several, a pickle of tensors (no code in it is run) or a folder of
    diffusers. The layout is recognised by the names in the file. Raises :class:`WeightsError` for a missing or damaged
    file, for another hash than ``sha256`` (if given), for a config.json of another architecture, for a missing, extra
    or misshapen key, for values that are not finite, and for a file that holds weights of the model twice.
    """
    path = Path(path)
    if path.is_dir():
        path = _weights_in_folder(path, getattr(model, "spec", None))
    found = weights_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path}: has SHA-256 {found}, expected {sha256}; get the file again")
    model.load_state_dict(read_fitting(model, path))
    return found


def read_fitting(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read a weights file of any layout under the names of ``model``, whose own values are not read.

    The weights may lie one level down (``state_dict``, ``model``, ``ema``) and under a prefix that all their names
    share. Raises :class:`WeightsError` as :func:`load_weights` does for a file that does not fit.
    """
    own = model.state_dict()
    known = layouts(getattr(model, "spec", None), own)
    ignored = re.compile("|".join(getattr(model, "ignored_keys", ())) or "(?!)")
    parts = {
        part: _without_wrappers({key: value for key, value in state.items() if not ignored.search(key)} or state, own)
        for part, state in parts_of(read_content(path), path).items()
    }
    found = [candidate for name, state in parts.items() for candidate in _candidates(name, state, known)]
    if not found:
        holds = "; ".join(
            f"{len(state):,} tensors{f' under {name}' if name else ''}, the first '{min(state)}'"
            for name, state in parts.items()
        )
        wanted = " or ".join(dict.fromkeys(f"'{min(_names(layout))}'" for layout in known.values()))
        raise WeightsError(
            f"{path}: no key is this autoencoder's: the file holds {holds}, this autoencoder's first key is {wanted}"
        )
    # Two layouts may find the same tensors, one with a prefix that is part of the other's names.
    same = {frozenset(map(id, candidate.state.values())): candidate for candidate in found if candidate.is_whole}
    whole = list(same.values())
    if len(whole) > 1:
        choices = " and ".join(f"'{candidate.part or '.'}'" for candidate in whole)
        raise WeightsError(
            f"{path}: holds weights of this autoencoder under {choices}; choose one: `dcae-bench weights extract "
            f"{path} --part {whole[0].part or '.'} --output FILE.safetensors`"
        )
    best = max(whole or found, key=lambda candidate: candidate.shared)
    check_state(write_layout(own, best.layout), best.state, path, "this autoencoder")
    return read_layout(best.state, best.layout)


@dataclass(frozen=True)
class _Candidate:
    """Tensors in a file that may be a model's weights."""

    part: str
    """Where they lie, e.g. ``ema`` or ``state_dict/model.``; a prefix of names ends with a dot."""
    state: dict[str, Tensor]
    layout: Layout

    @property
    def shared(self) -> int:
        """Number of names that the model has."""
        return len(self.state.keys() & _names(self.layout))

    @property
    def is_whole(self) -> bool:
        """Whether every name is the model's, and no name is missing."""
        return self.state.keys() == _names(self.layout)


def _candidates(part: str, state: dict[str, Tensor], known: dict[str, Layout]) -> list[_Candidate]:
    """The layouts that share names with a part of a file, with and without a prefix that comes before the names."""
    found: dict[str, _Candidate] = {}
    for layout in known.values():
        names = _names(layout)
        probes = sorted(names, key=len)[-3:]  # few names suffice to find the prefixes, and files have hundreds
        prefixes = {key.removesuffix(probe) for key in state for probe in probes if key.endswith(f".{probe}")}
        for prefix in ["", *sorted(prefixes)]:
            # Trainers keep discriminators and LPIPS beside the autoencoder, under `loss`.
            inner = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix) and not key.removeprefix(prefix).startswith("loss.")
            }
            candidate = _Candidate(f"{part}/{prefix}".strip("/"), inner, layout)
            if candidate.shared and candidate.shared > (found[prefix].shared if prefix in found else 0):
                found[prefix] = candidate
    return list(found.values())


def _without_wrappers(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what torch adds to names, also in their middle, unless the model ``own`` has it or two become one."""
    if any(WRAPPERS.search(key) for key in own):
        return state
    bare = {WRAPPERS.sub("", key): value for key, value in state.items()}
    return bare if len(bare) == len(state) else state


def _names(layout: Layout) -> set[str]:
    return {name for place in layout.values() for name in place.names}


def _weights_in_folder(folder: Path, spec: AutoencoderSpec | None) -> Path:
    """The weights file of a folder, after a check of the folder's config.json against the spec."""
    try:
        config = read_json(folder / CONFIG)
    except OSError:
        config = None
    except ValueError as error:
        raise WeightsError(f"{folder / CONFIG}: is not valid JSON ({error}); fetch the folder again") from error
    own = unfolded(spec)
    other = next((path for path in (folder / "config.yaml", folder / "config.yml") if path.exists()), None)
    if config is None and other is not None and isinstance(own, DCAESpec | SDVAESpec):
        raise WeightsError(
            f"{other}: may ask for another graph, and is not read, as only {CONFIG} is; name the weights file itself"
        )
    if config is not None and isinstance(own, DCAESpec | SDVAESpec):
        if not isinstance(config, dict):
            raise WeightsError(f"{folder / CONFIG}: is not a JSON object; fetch the folder again")
        if clause := config_conflict(config, own):
            raise WeightsError(f"{folder / CONFIG}: {clause}; these are weights of another autoencoder")
    if (found := find_weights(folder)) is not None:
        return found
    raise WeightsError(f"{folder}: holds none of {', '.join(FOLDER_FILES)}; put one there or name the file itself")


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
    if other := sorted(_misshapen(wanted, found)):
        shapes = [tuple(state[other[0]].shape) for state in (found, wanted)]
        refuse(other, f"has another shape than the model's: {shapes[0]}, not {shapes[1]}")
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
