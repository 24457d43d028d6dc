"""From a spec to a model."""

import torch

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.dc_ae import DCAE
from dcae_bench.models.sd_vae import SDVAE
from dcae_bench.specs import AutoencoderSpec, DCAESpec


def build(spec: AutoencoderSpec, *, seed: int | None = None) -> Autoencoder:
    """Build the autoencoder of a spec, with torch's default initialisation drawn from ``seed`` if one is given."""
    if seed is None:
        return _build(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(spec)


def _build(spec: AutoencoderSpec) -> Autoencoder:
    return DCAE(spec) if isinstance(spec, DCAESpec) else SDVAE(spec)
