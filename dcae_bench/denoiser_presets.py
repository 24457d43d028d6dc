"""The catalogue of denoisers, ``baselines/denoisers.yaml``: sizes, released weights and their facts."""

from functools import cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from dcae_bench.denoiser_specs import Architecture, DenoiserSpec, LatentSpace
from dcae_bench.diffusion_specs import GuidanceSpec, ProcessName
from dcae_bench.errors import ConfigError
from dcae_bench.files import REPOSITORY
from dcae_bench.presets import Name, ReleasedWeights, Scaling, catalogue, close_names, read_catalogue

CATALOGUE = REPOSITORY / "baselines" / "denoisers.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DenoiserPreset(_Frozen):
    """One released denoiser."""

    architecture: Name
    autoencoder: Name = Field(description="of baselines/autoencoders.yaml; its latents were the training data")
    resolution: PositiveInt = Field(description="px of the images behind the latents")
    patch: PositiveInt
    classes: PositiveInt | None
    process: ProcessName
    guidance: GuidanceSpec = Field(description="what the authors evaluate it with, beside none")
    scaling: Scaling
    weights: ReleasedWeights
    notes: str = Field(description="what a user of the numbers must know")


class DenoiserCatalogue(_Frozen):
    """Sizes by name, and the released denoisers that use them."""

    architectures: dict[Name, Architecture]
    denoisers: dict[Name, DenoiserPreset]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, preset in self.denoisers.items():
            if preset.architecture not in self.architectures:
                raise ValueError(f"architecture '{preset.architecture}' of '{name}' does not exist")
        return self

    def architecture(self, name: str) -> Architecture:
        """Size of a denoiser by name, ``uvit-h``. Raises :class:`ConfigError` with close names."""
        if name not in self.architectures:
            raise ConfigError(f"denoiser '{name}' is not in the catalogue{_close(name, self.architectures)}")
        return self.architectures[name]

    def preset(self, name: str) -> DenoiserPreset:
        """A released denoiser by name. Raises :class:`ConfigError` with close names."""
        if name not in self.denoisers:
            raise ConfigError(f"released denoiser '{name}' is not in the catalogue{_close(name, self.denoisers)}")
        return self.denoisers[name]

    def spec(self, name: str) -> DenoiserSpec:
        """Model spec of a released denoiser. Raises :class:`ConfigError` with close names."""
        preset = self.preset(name)
        latent = LatentSpace.of(catalogue().spec(preset.autoencoder), preset.resolution, preset.patch)
        return self.architectures[preset.architecture].on(latent, preset.classes)


@cache
def denoiser_catalogue(path: Path = CATALOGUE) -> DenoiserCatalogue:
    """Read the catalogue. Raises :class:`ConfigError` with the file and the field."""
    return read_catalogue(path, DenoiserCatalogue)


def _close(name: str, known: dict[str, object]) -> str:
    return close_names(name, known, "dcae-bench zoo --denoisers")
