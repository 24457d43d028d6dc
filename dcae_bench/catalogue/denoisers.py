"""Catalogue of denoisers (``baselines/denoisers.yaml``): sizes, and facts about released weights."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import BASELINES
from dcae_bench.base.typed import Name, Strict
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.entries import Elsewhere, ReleasedWeights, Scaling, suggest_names
from dcae_bench.specs.denoisers import Architecture, DenoiserSpec, LatentSpace
from dcae_bench.specs.diffusion import GuidanceSpec, ProcessName

CATALOGUE = BASELINES / "denoisers.yaml"


class DenoiserPreset(Strict):
    """One released denoiser."""

    architecture: Name
    autoencoder: Name = Field(description="name in baselines/autoencoders.yaml; its latents were the training data")
    resolution: PositiveInt = Field(description="side of the images behind the latents, in pixels")
    patch: PositiveInt
    classes: PositiveInt | None
    process: ProcessName
    guidance: GuidanceSpec = Field(description="the authors evaluate with this guidance, and without any")
    scaling: Scaling
    weights: ReleasedWeights
    notes: str = Field(description="what a reader of its results must know")


class DenoiserCatalogue(Strict):
    """Named sizes, and the released denoisers that use them."""

    architectures: dict[Name, Architecture]
    denoisers: dict[Name, DenoiserPreset]
    elsewhere: tuple[Elsewhere, ...] = Field(default=(), description="denoisers that are not expressible here")

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, preset in self.denoisers.items():
            if preset.architecture not in self.architectures:
                raise ValueError(f"architecture '{preset.architecture}' of '{name}' does not exist")
        return self

    def architecture(self, name: str) -> Architecture:
        """Size of a denoiser by name, e.g. ``uvit-h``. Raises :class:`ConfigError` with similar names."""
        if name not in self.architectures:
            raise ConfigError(f"denoiser '{name}' is not in the catalogue{_suggest(name, self.architectures)}")
        return self.architectures[name]

    def preset(self, name: str) -> DenoiserPreset:
        """A released denoiser by name. Raises :class:`ConfigError` with similar names."""
        if name not in self.denoisers:
            raise ConfigError(f"released denoiser '{name}' is not in the catalogue{_suggest(name, self.denoisers)}")
        return self.denoisers[name]

    def spec(self, name: str) -> DenoiserSpec:
        """Spec of a released denoiser by name. Raises :class:`ConfigError` with similar names."""
        preset = self.preset(name)
        latent = LatentSpace.of(catalogue().spec(preset.autoencoder), preset.resolution, preset.patch)
        return self.architectures[preset.architecture].on(latent, preset.classes, preset.process)


@cache
def denoiser_catalogue(path: Path = CATALOGUE) -> DenoiserCatalogue:
    """The catalogue, read once. Raises :class:`ConfigError`, which names the file and the field."""
    return read_shipped(path, DenoiserCatalogue)


def _suggest(name: str, known: Iterable[str]) -> str:
    return suggest_names(name, known, "dcae-bench zoo --denoisers")
