"""From a spec to a model."""

import torch

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.dc_ae import DCAE
from dcae_bench.models.external import CustomAutoencoder, DiffusersAutoencoder, SpaceToChannel
from dcae_bench.models.sd_vae import SDVAE
from dcae_bench.specs import AutoencoderSpec, CustomSpec, DCAESpec, DiffusersSpec, SpaceToChannelSpec


def build(spec: AutoencoderSpec, *, seed: int | None = None) -> Autoencoder:
    """Build the autoencoder of a spec, with the initialisation of its own class drawn from ``seed`` if one is given.

    Weights are not loaded, but a class of your own may load them itself. Raises :class:`ConfigError` and
    :class:`WeightsError` for a source that cannot be had.
    """
    if seed is None:
        return _build(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(spec)


def _build(spec: AutoencoderSpec) -> Autoencoder:
    if isinstance(spec, DCAESpec):
        return DCAE(spec)
    if isinstance(spec, DiffusersSpec):
        return DiffusersAutoencoder(spec)
    if isinstance(spec, CustomSpec):
        return CustomAutoencoder(spec)
    if isinstance(spec, SpaceToChannelSpec):
        return SpaceToChannel(spec, _build(spec.base))
    return SDVAE(spec)
