"""Reported values: numbers that the paper prints, each with its confidence and sources, in checked files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from dcae_bench.base.typed import Strict

PaperVersion = Annotated[
    Literal["v1"] | None, Field(description="version of the paper on arXiv that prints the value; null: not known")
]
Confidence = Literal["verified", "secondary", "recalled_unverified"]


class ReportedValue(Strict):
    """One printed number with its confidence and sources."""

    value: float
    decimals: int = Field(ge=0, description="decimals as printed; half a unit of the last decimal is the tolerance")
    confidence: Confidence
    sources: tuple[str, ...] = Field(description="keys of the file's sources; empty for recalled values")
    version: PaperVersion = None
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
        """Whether the value was read in a source. Only then may a verdict rest on the value."""
        return self.confidence != "recalled_unverified"

    @property
    def text(self) -> str:
        """The value as printed; a value that is only recalled stands in brackets."""
        printed = f"{self.value:.{self.decimals}f}"
        return printed if self.trusted else f"({printed})"


class SourcedRow(Strict, ABC):
    """A row of one of the paper's tables."""

    protocol: str

    @abstractmethod
    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value of the row with its place under ``metrics``, e.g. ``psnr`` or ``gfid.0``."""


class _Protocol(Strict):
    name: str
    notes: tuple[str, ...]


RowT = TypeVar("RowT", bound=SourcedRow)


class SourcedFile(Strict, Generic[RowT]):
    """A file of ``baselines/reported``: rows, and the sources and the protocol that the rows name."""

    sources: dict[str, str]
    protocol: _Protocol
    rows: tuple[RowT, ...]
    unreported: tuple[RowT, ...] = Field(
        default=(), description="settings of the paper without a known value; we measure them nevertheless"
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
            count = len(list(row.values()))
            if bool(count) != where.startswith("rows"):
                raise ValueError(f"{where}.metrics: has {count} values; rows without any are 'unreported'")
        return self

    def _numbered(self) -> Iterator[tuple[str, RowT]]:
        """Every row with its place in the file, e.g. ``rows.3``."""
        for name, rows in (("rows", self.rows), ("unreported", self.unreported)):
            for number, row in enumerate(rows):
                yield f"{name}.{number}", row
