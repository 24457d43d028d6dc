"""Weights files of denoisers, read in our layout and in the published layouts."""

from pathlib import Path

from torch import Tensor

from dcae_bench.base.errors import WeightsError
from dcae_bench.models.checkpoints import check_state
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.denoiser_keys import from_diffusers, is_diffusers
from dcae_bench.models.weight_files import read_content, tensors_of, weights_sha256
from dcae_bench.specs.denoisers import DiTSpec

PIPELINE = "diffusion_model."
"""What precedes the denoiser's keys in a released DC-AE pipeline."""
AUTOENCODER = "autoencoder."
"""What precedes the autoencoder's keys in a released DC-AE pipeline."""
RENAMED = {"label_emb.weight": "label_emb.embedding_table.weight"}
"""Keys of U-ViT's own repository that differ from ours: its label embedding is not inside a module."""


def load_denoiser(model: Denoiser, path: Path, *, sha256: str | None = None, ema: float | None = None) -> str:
    """Load weights of any layout into ``model``, and return the SHA-256 of the file.

    ``path`` is a safetensors file or a pickle of tensors. It may hold our own weights, a released DC-AE pipeline (whose
    autoencoder is ignored), a checkpoint of the authors' trainer, DiT's or U-ViT's own weights, or diffusers'
    ``DiTTransformer2DModel``. A trainer's checkpoint holds moving averages; ``ema`` is the decay of the average to
    load, and may be None if there is only one. Raises :class:`WeightsError` for a missing or damaged file, for code
    inside a pickle, for another hash than ``sha256`` (if given), for a missing moving average, for a missing, extra or
    misshapen key, and for values that are not finite.
    """
    path = Path(path)
    found = weights_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path}: has SHA-256 {found}, expected {sha256}; get the file again")
    model.load_state_dict(read_fitting_denoiser(model, path, ema))
    return found


def read_fitting_denoiser(model: Denoiser, path: Path, ema: float | None = None) -> dict[str, Tensor]:
    """Read a weights file of any layout under the names of ``model``, whose own values are not read.

    Raises :class:`WeightsError` as :func:`load_denoiser` does for a file that does not fit.
    """
    own = model.state_dict()
    family = model.spec.family
    state = _own_names(_select(read_content(path), path, ema), family)
    if isinstance(model.spec, DiTSpec) and is_diffusers(state):
        state = from_diffusers(state, model.spec, path)
    if not own.keys() & state.keys():
        first = min(state, default="nothing")
        raise WeightsError(f"{path}: no key is a {family}'s (the first is '{first}'); these are not weights of it")
    check_state(own, state, path, f"this {family} (width {model.spec.width}, depth {model.spec.depth})")
    return state


def _select(content: object, path: Path, ema: float | None) -> dict[str, Tensor]:
    """The tensors of a file; for a training checkpoint, the moving average of decay ``ema``."""
    if not isinstance(content, dict) or not isinstance(averages := content.get("ema"), dict):
        if ema is not None:
            raise WeightsError(f"{path}: holds no moving averages, so none of decay {ema}; leave the decay out")
        return tensors_of(content, path)
    try:
        known = {float(decay): state for decay, state in averages.items()}
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: 'ema' has the key {next(iter(averages))!r}, which is no decay") from error
    if ema is None and len(known) == 1:
        ema = next(iter(known))
    if ema not in known:
        decays = ", ".join(map(str, known)) or "none"
        raise WeightsError(f"{path}: moving average of decay {ema} is not there; choose one of {decays}")
    return tensors_of(known[ema], path)


def _own_names(state: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """The denoiser's state under our names: without a pipeline's autoencoder, and without the trainers' prefixes."""
    if any(key.startswith(PIPELINE) for key in state):
        state = {key: value for key, value in state.items() if not key.startswith(AUTOENCODER)}
    for prefix in (PIPELINE, f"{family}."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {RENAMED.get(key, key) if family == "uvit" else key: value for key, value in state.items()}
