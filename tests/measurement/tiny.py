"""Networks small enough to be timed in a test, under names that the catalogue does not have."""

import pytest

from dcae_bench.measurement.workloads.cases import Case, Latent
from dcae_bench.specs.autoencoders import DCAESpec
from dcae_bench.specs.denoisers import Architecture

ARCHITECTURES = {
    "tiny-uvit": Architecture(family="uvit", width=32, depth=2, heads=2),
    "tiny-dit": Architecture(family="dit", width=32, depth=2, heads=2),
}


class Catalogue:
    """Answers as the catalogue of denoisers does."""

    @staticmethod
    def architecture(name: str) -> Architecture:
        return ARCHITECTURES[name]


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cases know the tiny networks."""
    monkeypatch.setattr("dcae_bench.measurement.workloads.cases.denoiser_catalogue", Catalogue)


def case(work: str = "train", latent: str = "dc-ae-f64c128-p1", denoiser: str = "tiny-uvit", side: int = 128) -> Case:
    """A case of a tiny network on few tokens."""
    return Case(denoiser=denoiser, latent=Latent.parse(latent), resolution=side, work=work)


AUTOENCODER = DCAESpec(
    family="dc-ae",
    latent_channels=8,
    encoder={"widths": [8, 16, 32], "depths": [0, 1, 1], "blocks": ["res", "res", "evit_glu"]},
    decoder={
        "widths": [8, 16, 32],
        "depths": [0, 1, 1],
        "blocks": ["res", "res", "evit_glu"],
        "norms": ["bn2d", "bn2d", "trms2d"],
        "activations": ["relu", "relu", "silu"],
    },
)


class Autoencoders:
    """Answers as the catalogue of autoencoders does: one architecture under every name."""

    @staticmethod
    def spec(name: str) -> DCAESpec:
        return AUTOENCODER


def use_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cases know the tiny autoencoder."""
    monkeypatch.setattr("dcae_bench.measurement.workloads.cases.catalogue", Autoencoders)


def autoencoder_case(work: str, side: int = 32) -> Case:
    """A case of the tiny autoencoder alone."""
    return Case(denoiser=None, latent=Latent(autoencoder="tiny-dc-ae", patch=1), resolution=side, work=work)
