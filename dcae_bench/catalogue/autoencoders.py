"""Catalogue of autoencoders (``baselines/autoencoders.yaml``): architectures, and facts about released weights."""

from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import BASELINES
from dcae_bench.base.typed import Name, Strict
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.catalogue.entries import Elsewhere, ReleasedWeights, Scaling, suggest_names
from dcae_bench.specs.autoencoders import AutoencoderSpec

CATALOGUE = BASELINES / "autoencoders.yaml"


class Preset(Strict):
    """One autoencoder of the catalogue."""

    architecture: Name
    weights: ReleasedWeights | None = Field(default=None, description="null: no weights are released")
    scaling: Scaling | None = None
    notes: str = Field(description="what a reader of its results must know")


class Catalogue(Strict):
    """Named architectures, and the autoencoders that use them."""

    architectures: dict[Name, AutoencoderSpec]
    autoencoders: dict[Name, Preset]
    elsewhere: tuple[Elsewhere, ...] = Field(default=(), description="autoencoders that are not expressible here")

    @model_validator(mode="after")
    def _architectures_exist(self) -> Self:
        for name, preset in self.autoencoders.items():
            if preset.architecture not in self.architectures:
                raise ValueError(f"architecture '{preset.architecture}' of '{name}' does not exist")
        if both := self.architectures.keys() & self.autoencoders.keys():
            raise ValueError(f"'{min(both)}' names both an architecture and an autoencoder")
        return self

    def preset(self, name: str) -> Preset:
        """An autoencoder by name. Raises :class:`ConfigError` with similar names."""
        if name not in self.autoencoders:
            raise ConfigError(f"autoencoder '{name}' is not in the catalogue{suggest_names(name, self.autoencoders)}")
        return self.autoencoders[name]

    def spec(self, name: str) -> AutoencoderSpec:
        """Spec of an autoencoder or an architecture by name. Raises :class:`ConfigError` with similar names."""
        if name in self.architectures:
            return self.architectures[name]
        if name not in self.autoencoders:
            known = [*self.autoencoders, *self.architectures]
            raise ConfigError(f"preset '{name}' is not in the catalogue{suggest_names(name, known)}")
        return self.architectures[self.autoencoders[name].architecture]


@cache
def catalogue(path: Path = CATALOGUE) -> Catalogue:
    """The catalogue, read once. Raises :class:`ConfigError`, which names the file and the field."""
    return read_shipped(path, Catalogue)


def expand_preset(model: Any) -> Any:
    """Replace ``{preset: NAME}``, which a profile may write for a model, by the spec; return any other model unchanged.

    Raises ValueError, which pydantic turns into an error that names the field.
    """
    if not isinstance(model, dict) or "preset" not in model:
        return model
    if len(model) > 1:
        raise ValueError(f"'preset' stands alone, without '{min(model.keys() - {'preset'})}'")
    try:
        return catalogue().spec(str(model["preset"]))
    except ConfigError as error:
        raise ValueError(str(error)) from error
