"""The catalogue of autoencoders, ``baselines/autoencoders.yaml``: architectures, released weights and their facts."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from dcae_bench.errors import ConfigError
from dcae_bench.files import REPOSITORY
from dcae_bench.specs import AutoencoderSpec

CATALOGUE = REPOSITORY / "baselines" / "autoencoders.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Content = TypeVar("Content", bound=BaseModel)
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReleasedWeights(_Frozen):
    """Where released weights are, and what is known of them."""

    repo: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$", description="hub id, owner/name")
    address: str | None = Field(default=None, description="where to get the file by hand, if it is not on the hub")
    file: str = Field(description="path inside the repository, or name of the file to get by hand")
    revision: Commit | None = Field(
        default=None, description="pinned commit; null: recorded by the first verified `dcae-bench weights fetch`"
    )
    sha256: Sha256 | None = Field(default=None, description="of the file; null until recorded")
    licence: str = Field(description="SPDX name where the publisher states one")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.repo is None) == (self.address is None):
            raise ValueError("weights have either a 'repo' or an 'address'")
        return self

    @property
    def source(self) -> str:
        """Place in one phrase, as tables print it."""
        return f"{self.repo}/{self.file}" if self.repo else f"{self.address} ({self.file})"


class Scaling(_Frozen):
    """What diffusion models make of the latent: (z - shift) * factor."""

    factor: PositiveFloat
    shift: float = 0.0
    source: str = Field(description="who states the numbers")


class Preset(_Frozen):
    """One autoencoder of the catalogue."""

    architecture: Name
    weights: ReleasedWeights | None = Field(default=None, description="null: trained by this harness, or from nothing")
    scaling: Scaling | None = None
    notes: str = Field(description="what a user of the numbers must know")


class Catalogue(_Frozen):
    """Architectures by name, and the autoencoders that use them."""

    architectures: dict[Name, AutoencoderSpec]
    autoencoders: dict[Name, Preset]

    @model_validator(mode="after")
    def _architectures_exist(self) -> Self:
        for name, preset in self.autoencoders.items():
            if preset.architecture not in self.architectures:
                raise ValueError(f"architecture '{preset.architecture}' of '{name}' does not exist")
        if both := self.architectures.keys() & self.autoencoders.keys():
            raise ValueError(f"'{min(both)}' names both an architecture and an autoencoder")
        return self

    def preset(self, name: str) -> Preset:
        """An autoencoder by name. Raises :class:`ConfigError` with close names."""
        if name not in self.autoencoders:
            raise ConfigError(f"autoencoder '{name}' is not in the catalogue{close_names(name, self.autoencoders)}")
        return self.autoencoders[name]

    def spec(self, name: str) -> AutoencoderSpec:
        """Model spec of an autoencoder or of an architecture by name. Raises :class:`ConfigError` with close names."""
        if name in self.architectures:
            return self.architectures[name]
        if name not in self.autoencoders:
            known = [*self.autoencoders, *self.architectures]
            raise ConfigError(f"preset '{name}' is not in the catalogue{close_names(name, known)}")
        return self.architectures[self.autoencoders[name].architecture]


@cache
def catalogue(path: Path = CATALOGUE) -> Catalogue:
    """Read the catalogue. Raises :class:`ConfigError` with the file and the field."""
    return read_catalogue(path, Catalogue)


def read_catalogue(path: Path, content: type[Content]) -> Content:
    """Read a YAML file of ``baselines/`` as a typed class. Raises :class:`ConfigError` with the file and the field."""
    try:
        return content.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); restore it from the repository") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top"
        raise ConfigError(f"{path}: {where}: {first['msg']}; correct it") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it") from error


def resolve(model: Any) -> Any:
    """A model as a profile writes it, with ``{preset: NAME}`` replaced by the preset's full spec.

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


def close_names(name: str, known: Any, verb: str = "dcae-bench zoo") -> str:
    """The end of an error about an unknown name: names like it, or the command that lists all."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else f"; `{verb}` lists the names"
