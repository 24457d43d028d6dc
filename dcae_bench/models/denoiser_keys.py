"""Keys of DiT's weights in diffusers' ``DiTTransformer2DModel``, and their conversion to our keys and back.

diffusers cuts qkv in three, gives every block a copy of the embeddings of time and label, and leaves the fixed
positions out of the file. diffusers also spaces the frequencies of the time embedding over 127 intervals, where DiT
spaces them over 128. The weights were trained with DiT's frequencies, so this package uses DiT's; the two models
therefore differ slightly on the same weights.
"""

from pathlib import Path

import torch
from torch import Tensor

from dcae_bench.base.errors import WeightsError
from dcae_bench.models.dit import positions
from dcae_bench.specs.denoisers import DiTSpec

BLOCK = "transformer_blocks."
EMBEDDINGS = {
    "t_embedder.mlp.0.": "timestep_embedder.linear_1.",
    "t_embedder.mlp.2.": "timestep_embedder.linear_2.",
    "y_embedder.": "class_embedder.",
}
NAMES = {
    "x_embedder.proj.": "pos_embed.proj.",
    "final_layer.adaLN_modulation.1.": "proj_out_1.",
    "final_layer.linear.": "proj_out_2.",
}
INNER = {
    "adaLN_modulation.1.": "norm1.linear.",
    "attn.proj.": "attn1.to_out.0.",
    "mlp.fc1.": "ff.net.0.proj.",
    "mlp.fc2.": "ff.net.2.",
}


def is_diffusers(state: dict[str, Tensor]) -> bool:
    """Whether the keys of a state are diffusers'."""
    return any(key.startswith(BLOCK) for key in state)


def to_diffusers(state: dict[str, Tensor], spec: DiTSpec) -> dict[str, Tensor]:
    """Convert a state with our keys to diffusers' keys."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "pos_embed":
            continue
        places = _places(key, spec.depth)
        parts = value.chunk(3) if ".qkv." in key else [value] * len(places)
        out |= zip(places, parts, strict=True)
    return out


def from_diffusers(state: dict[str, Tensor], spec: DiTSpec, path: Path) -> dict[str, Tensor]:
    """Convert a state with diffusers' keys to our keys; an unknown key stays as it is.

    Raises :class:`WeightsError` where copies of an embedding differ, and where a part of qkv is missing.
    """
    out = {"pos_embed": positions(spec.latent.grid, spec.width)}
    left = dict(state)
    for key in _own_keys(spec):
        places = _places(key, spec.depth)
        present = [name for name in places if name in left]
        parts = [left.pop(name) for name in present]
        if not present:
            continue  # the loader reports the tensor as missing, under our key
        if len(parts) < len(places):
            lost = min(set(places) - set(present))
            raise WeightsError(f"{path}: key '{lost}' is missing; these are not whole weights")
        cut = ".qkv." in key
        for name, part in zip(places, parts, strict=True):
            if part.shape != parts[0].shape:
                raise WeightsError(f"{path}: key '{name}' has another shape than '{places[0]}'; use whole weights")
            if not cut and not part.equal(parts[0]):
                raise WeightsError(f"{path}: '{name}' is not a copy of '{places[0]}'; these are not weights of a DiT")
        out[key] = torch.cat(parts) if cut else parts[0]
    return out | left


def _own_keys(spec: DiTSpec) -> list[str]:
    keys = [*EMBEDDINGS, *NAMES]
    keys += [f"blocks.{n}.{part}" for n in range(spec.depth) for part in ("attn.qkv.", *INNER)]
    named = [f"{key}{kind}" for key in keys if key != "y_embedder." for kind in ("weight", "bias")]
    return named + ([] if spec.classes is None else ["y_embedder.embedding_table.weight"])


def _places(key: str, depth: int) -> list[str]:
    """Keys in diffusers of one of our tensors: one key, three keys (one per part), or one key per block (copies)."""
    for ours, theirs in EMBEDDINGS.items():
        if key.startswith(ours):
            return [f"{BLOCK}{n}.norm1.emb.{theirs}{key.removeprefix(ours)}" for n in range(depth)]
    for ours, theirs in NAMES.items():
        if key.startswith(ours):
            return [theirs + key.removeprefix(ours)]
    _, number, rest = key.split(".", 2)  # blocks.<number>.<rest>
    if rest.startswith("attn.qkv."):
        kind = rest.removeprefix("attn.qkv.")
        return [f"{BLOCK}{number}.attn1.to_{part}.{kind}" for part in "qkv"]
    ours = next(ours for ours in INNER if rest.startswith(ours))
    return [f"{BLOCK}{number}.{INNER[ours]}{rest.removeprefix(ours)}"]
