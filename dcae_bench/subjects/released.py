"""Check of released weights: a file is opened, and must fit the model of its name, before it is believed."""

from pathlib import Path

import torch

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.models.checkpoints import read_fitting
from dcae_bench.models.denoiser_checkpoints import read_fitting_denoiser
from dcae_bench.models.zoo import build, build_denoiser


def check_released(name: str, path: Path) -> None:
    """Check that a file holds weights of an autoencoder or denoiser of the catalogues: keys, shapes, types and values.

    Raises :class:`WeightsError`.
    """
    with torch.device("meta"):  # the model is only compared with, so it needs no memory
        if name in denoiser_catalogue().denoisers:
            denoiser = build_denoiser(denoiser_catalogue().spec(name))
        else:
            autoencoder = build(catalogue().spec(name))
    if name in denoiser_catalogue().denoisers:
        read_fitting_denoiser(denoiser, path)
    else:
        read_fitting(autoencoder, path)
