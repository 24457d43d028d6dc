"""Files of weights: their tensors by name, read without running code in a file, and their hash."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import open_regular, sha256_json
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.models.pickles import load_pickle
from dcae_bench.weights.diffusers_folder import INDEX, shards_of

PICKLES = (".pt", ".pth", ".ckpt", ".bin")
HEAD = 64
"""Bytes that tell kinds of files apart."""
NO_WEIGHTS = {
    b"version https://git-lfs": "is a pointer of Git LFS to the weights; get the file itself (git lfs pull)",
    b"<!doctype html": "is a web page; download the file itself",
    b"<html": "is a web page; download the file itself",
}
"""How files begin that are often found in the place of weights, in lower case, and what to do."""


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file; of an index, the hash of the hashes of its files by name.

    A large file is read once for each content. Raises :class:`WeightsError` when a file cannot be read.
    """
    try:
        if path.name.endswith(INDEX):
            return sha256_json({shard.name: known_sha256(shard) for shard in shards_of(path)})
        return known_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); train or fetch them first") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file by name, without running code in the file. Raises :class:`WeightsError`."""
    return tensors_of(read_content(path), path)


def read_part(path: Path, part: str) -> dict[str, Tensor]:
    """Tensors of one part of a weights file, without their prefix. ``part`` is as errors name it, ``.`` for the top.

    Raises :class:`WeightsError` for a part that is not there, with the parts that are.
    """
    parts = parts_of(read_content(path), path)
    name, prefix = (part, "") if part in parts else (part.rpartition("/")[0], part.rpartition("/")[2])
    name, prefix = ("", "") if part == "." else (name, prefix)
    found = parts.get(name, {})
    inner = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    if not inner or (prefix and not prefix.endswith(".")):
        there = ", ".join(f"'{name or '.'}' ({len(state):,} tensors)" for name, state in parts.items())
        raise WeightsError(
            f"--part {part}: {path} holds {there}; a prefix of names follows after a slash, as model/net."
        )
    return inner


def read_content(path: Path) -> object:
    """Read safetensors, the index of several such files, or a pickle, without running code in the file.

    Raises :class:`WeightsError`.
    """
    if path.name.endswith(INDEX):
        return {key: value for shard in shards_of(path) for key, value in _read_shard(shard).items()}
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
        if what := next((what for start, what in NO_WEIGHTS.items() if head.lstrip().lower().startswith(start)), None):
            raise WeightsError(f"{path}: {what}")
        if not head:
            raise WeightsError(f"{path}: is not a whole file of weights (it is empty); get it again")
        if not (head.startswith((b"PK", b"\x80", b"L119")) or path.suffix in PICKLES):
            return load_file(path)
        return load_pickle(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); fetch them first") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: is not a whole safetensors file ({error}); get it again") from error
    except WeightsError:
        raise
    except Exception as error:  # torch's reader raises nearly any error for damaged bytes
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path}: is a program of TorchScript, which is not run; save the tensors of its state_dict()"
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{path}: is not a whole file of `torch.save` ({reason}); get it again, or save its tensors as safetensors"
        ) from error


def _read_shard(path: Path) -> dict[str, Tensor]:
    content = read_content(path)
    return tensors_of(content, path)


def parts_of(content: object, path: Path) -> dict[str, dict[str, Tensor]]:
    """The dicts of tensors in a file's content, by where they lie: on top (an empty name) or up to two levels down.

    Raises :class:`WeightsError` where there is none, and for tensors without plain numbers. ``path`` names the file in
    the error.
    """
    found = dict(_dicts_of_tensors(content, ""))
    if not found and isinstance(content, dict) and all(isinstance(key, str) for key in content):
        # Numbers of a trainer lie beside the tensors.
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        found = {"": tensors} if tensors else {}
    if not found:
        raise WeightsError(
            f"{path}: holds no dict of tensors (it holds {_told(content)}); save the tensors alone, as "
            "torch.save(model.state_dict(), FILE)"
        )
    for state in found.values():
        for key, value in state.items():
            if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
                raise WeightsError(f"{path}: key '{key}' is sparse, quantized or empty; use weights with plain tensors")
    return found


def _told(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    holds = [f"'{key}': {type(value).__name__}" for key, value in content.items()]
    return ", ".join(holds[:3]) + (", ..." if holds[3:] else "") or "nothing"


def _dicts_of_tensors(content: object, name: str, depth: int = 2) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, dict) or not content:
        return
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield name, content
    elif depth:
        for key, value in content.items():
            yield from _dicts_of_tensors(value, f"{name}/{key}".lstrip("/"), depth - 1)


def tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The one dict of tensors in a file's content, at the top level or below.

    Of several, the one under ``state_dict`` is meant. Raises :class:`WeightsError` where the content is no such dict,
    or several. ``path`` names the file in the error.
    """
    parts = parts_of(content, path)
    if len(parts) > 1 and "state_dict" not in parts:
        there = ", ".join(f"'{name}' ({len(state):,} tensors)" for name, state in parts.items())
        raise WeightsError(
            f"{path}: holds {there}; choose one: `dcae-bench weights extract {path} --part NAME "
            "--output FILE.safetensors`"
        )
    return parts["state_dict"] if "state_dict" in parts else next(iter(parts.values()))
