"""Reported values: what the paper prints, how far each number can be trusted, and what it was measured on."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Generic, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from dcae_bench.errors import ConfigError
from dcae_bench.files import REPOSITORY
from dcae_bench.records import WeightsSource

TABLE2 = REPOSITORY / "baselines" / "reported" / "table2_reconstruction.yaml"

Confidence = Literal["verified", "secondary", "recalled_unverified"]
ReportedMetric = Literal["rfid", "psnr", "ssim", "lpips"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReportedValue(_Frozen):
    """One printed number with its confidence and sources."""

    value: float
    decimals: int = Field(ge=0, description="decimals as printed; half a unit of the last one is the tolerance")
    confidence: Confidence
    sources: tuple[str, ...] = Field(description="keys of the file's sources; empty for recalled values")
    note: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if round(self.value, self.decimals) != self.value:
            raise ValueError(f"value {self.value} has more than {self.decimals} decimals")
        if (self.confidence == "recalled_unverified") == bool(self.sources):
            raise ValueError(f"confidence {self.confidence} with {len(self.sources)} sources")
        return self

    @property
    def trusted(self) -> bool:
        """Whether the value was read in a source, so that a verdict may rest on it."""
        return self.confidence != "recalled_unverified"

    @property
    def text(self) -> str:
        """The value as printed; in brackets when it is only recalled."""
        printed = f"{self.value:.{self.decimals}f}"
        return printed if self.trusted else f"({printed})"


class SourcedRow(_Frozen, ABC):
    """A row of a table of the paper."""

    protocol: str

    @abstractmethod
    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value with its place under ``metrics``."""


class ReportedRow(SourcedRow):
    """One row of a table of the paper: one autoencoder on one data set at one resolution."""

    table: str
    dataset: str
    split: Literal["train", "eval"]
    resolution: PositiveInt = Field(description="side of the square input in pixels")
    compression: PositiveInt = Field(description="f: pixels per latent cell and side")
    latent_channels: PositiveInt = Field(description="c: channels of the latent")
    family: Literal["sd-vae", "dc-ae"]
    autoencoder_note: str
    weights_source: WeightsSource = Field(description="which weights answer the row")
    parameters: PositiveInt | None = Field(description="of encoder and decoder; null if unknown")
    parameters_min: PositiveInt | None = Field(description="lower bound where the number is unknown")
    images: PositiveInt | None = Field(description="images measured; null if not stated")
    metrics: dict[ReportedMetric, ReportedValue] = Field(description="none if no value of the row is known")

    @model_validator(mode="after")
    def _whole_latent(self) -> Self:
        if self.resolution % self.compression:
            raise ValueError(f"resolution {self.resolution} is not a multiple of compression {self.compression}")
        return self

    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value with its metric."""
        yield from self.metrics.items()

    @property
    def latent_shape(self) -> str:
        """Latent as height x width x channels, e.g. 8x8x128."""
        side = self.resolution // self.compression
        return f"{side}x{side}x{self.latent_channels}"


class _Protocol(_Frozen):
    name: str
    notes: tuple[str, ...]


RowT = TypeVar("RowT", bound=SourcedRow)


class SourcedFile(_Frozen, Generic[RowT]):
    """A file of ``baselines/reported``: rows with the sources and the protocol they rest on."""

    sources: dict[str, str]
    protocol: _Protocol
    rows: tuple[RowT, ...]
    unreported: tuple[RowT, ...] = Field(
        default=(), description="settings of the paper for which no value is known; measured all the same"
    )

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        for where, row in self._numbered():
            if row.protocol != self.protocol.name:
                raise ValueError(f"{where}.protocol: {row.protocol!r} is not described under 'protocol'")
            for metric, reported in row.values():
                for source in reported.sources:
                    if source not in self.sources:
                        raise ValueError(f"{where}.metrics.{metric}.sources: no source is called {source!r}")
        return self

    @model_validator(mode="after")
    def _in_their_lists(self) -> Self:
        for where, row in self._numbered():
            if bool(row.metrics) != where.startswith("rows"):
                raise ValueError(f"{where}.metrics: has {len(row.metrics)} values; rows without any are 'unreported'")
        return self

    def _numbered(self) -> Iterator[tuple[str, RowT]]:
        for name, rows in (("rows", self.rows), ("unreported", self.unreported)):
            for number, row in enumerate(rows):
                yield f"{name}.{number}", row


class ReportedFile(SourcedFile[ReportedRow]):
    """Reported reconstruction quality."""


def load_reported_file(path: Path = TABLE2) -> ReportedFile:
    """Read and check reported reconstructions. Raises :class:`ConfigError` that names the file and the field."""
    return read_reported(path, ReportedFile)


FileT = TypeVar("FileT", bound=SourcedFile)


def read_reported(path: Path, model: type[FileT]) -> FileT:
    """Read and check a file of reported values. Raises :class:`ConfigError` that names the file and the field."""
    try:
        return model.model_validate(yaml.safe_load(Path(path).read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); restore it from git") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct it") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {field + ': ' if field else ''}{reason}; correct it") from error


def load_reported(path: Path = TABLE2, *, measured: Collection[str] = ()) -> list[ReportedRow]:
    """Read the rows of a file of reported values.

    Rows without any value come last, those of the data sets ``measured``. Raises :class:`ConfigError` as
    :func:`load_reported_file` does.
    """
    file = load_reported_file(path)
    return [*file.rows, *(row for row in file.unreported if row.dataset in measured)]
