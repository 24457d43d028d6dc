"""The zoo: builds the model of a spec."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.dc_ae import DCAE
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.diffusers_autoencoder import DiffusersAutoencoder
from dcae_bench.models.dit import DiT
from dcae_bench.models.external import CustomAutoencoder, SpaceToChannel
from dcae_bench.models.pca import PCA
from dcae_bench.models.sd_vae import SDVAE
from dcae_bench.models.uvit import UViT
from dcae_bench.specs.autoencoders import (
    AutoencoderSpec,
    CustomSpec,
    DCAESpec,
    DiffusersSpec,
    PCASpec,
    SpaceToChannelSpec,
)
from dcae_bench.specs.denoisers import DenoiserSpec, UViTSpec

Model = TypeVar("Model")


def build(spec: AutoencoderSpec, *, seed: int | None = None, device: torch.device | None = None) -> Autoencoder:
    """Build the autoencoder of a spec. The class's own initialisation is drawn from ``seed``, if one is given.

    ``device`` draws it there, which is fast on a GPU and gives other weights than a processor. No weights are loaded,
    but a class of the user's own may load weights itself. Raises :class:`ConfigError` and :class:`WeightsError` when
    the source of an external autoencoder is missing or does not fit.
    """
    return _seeded(lambda: _build(spec), seed, device)


def build_denoiser(spec: DenoiserSpec, *, seed: int | None = None, device: torch.device | None = None) -> Denoiser:
    """Build the denoiser of a spec. The initialisation of its paper is drawn from ``seed``, if one is given.

    ``device`` draws it there, which is fast on a GPU and gives other weights than a processor.
    """
    return _seeded(lambda: UViT(spec) if isinstance(spec, UViTSpec) else DiT(spec), seed, device)


def _seeded(make: Callable[[], Model], seed: int | None, device: torch.device | None) -> Model:
    """Make a model with a seed on a device. The states of torch's global generators stay as before."""
    place = nullcontext() if device is None else device
    if seed is None:
        with place:
            return make()
    forked = [torch.cuda.current_device()] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked), place:
        torch.manual_seed(seed)
        return make()


def _build(spec: AutoencoderSpec) -> Autoencoder:
    if isinstance(spec, DCAESpec):
        return DCAE(spec)
    if isinstance(spec, DiffusersSpec):
        return DiffusersAutoencoder(spec)
    if isinstance(spec, CustomSpec):
        return CustomAutoencoder(spec)
    if isinstance(spec, SpaceToChannelSpec):
        return SpaceToChannel(spec, _build(spec.base))
    if isinstance(spec, PCASpec):
        return PCA(spec)
    return SDVAE(spec)
