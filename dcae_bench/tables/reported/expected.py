"""Expectations: values that everyone must measure with the same released weights, and how a record compares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dcae_bench.base.errors import CheckError
from dcae_bench.base.files import BASELINES
from dcae_bench.base.typed import Strict
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.records.record import Record
from dcae_bench.specs.protocols import SETTINGS, WeightsSource

EXPECTED = BASELINES / "reported" / "expected.yaml"


class ExpectedValue(Strict):
    """A value and the largest allowed difference from it, both in the metric's unit."""

    value: float
    tolerance: PositiveFloat
    variants: dict[str, str] = Field(
        default={},
        description="metric keys of which any may agree, and what each is; empty: the key of the value alone",
    )


class Expectation(Strict):
    """What one autoencoder must give on one evaluation set, or samples of one denoiser at one guidance scale."""

    autoencoder: str
    weights_source: WeightsSource
    denoiser: str | None = Field(
        default=None, description="catalogue's name of the released denoiser; null: a reconstruction"
    )
    dataset: str
    split: Literal["train", "eval"]
    resolution: PositiveInt
    images: PositiveInt
    protocol: str
    settings: dict[str, str] = Field(
        default={}, description="switches of the record that the protocol does not set itself"
    )
    source: str
    metrics: dict[str, ExpectedValue] = Field(min_length=1, description="expected values by the record's metric keys")

    @property
    def label(self) -> str:
        """Model and evaluation set as messages print them."""
        what = f"samples of {self.denoiser}" if self.denoiser else f"{self.autoencoder} ({self.weights_source})"
        return f"{what} on {self.dataset}-{self.resolution}{_at(self.settings)}"

    def applies_to(self, record: Record) -> bool:
        """Whether the record measures this autoencoder on this set, or this denoiser's samples at this guidance."""
        mine = (self.autoencoder, self.weights_source, self.dataset, self.split, self.resolution, self.denoiser)
        subject, data, denoiser = record.subject, record.data, record.denoiser
        theirs = (subject.autoencoder, subject.weights_source, data.name, data.split, data.resolution)
        same = mine == (*theirs, denoiser.released if denoiser else None)
        return same and self.settings.get("guidance") == record.settings.get("guidance")


class _File(Strict):
    expected: tuple[Expectation, ...]


@dataclass(frozen=True)
class Comparison:
    """One metric of a record beside its expected value."""

    metric: str
    """Key in the record; of several variants, the one that is nearest to the expected value."""
    measured: float
    expected: float
    tolerance: float
    variant: str | None = None
    """What the metric is, where one of several variants was compared."""

    @property
    def label(self) -> str:
        """Key of the metric, and the variant that it is."""
        return f"{self.metric} ({self.variant})" if self.variant else self.metric

    @property
    def holds(self) -> bool:
        """Whether the measured value is within the tolerance."""
        return abs(self.measured - self.expected) <= self.tolerance


def load_expected(path: Path = EXPECTED) -> tuple[Expectation, ...]:
    """Read the expectations. Raises :class:`ConfigError` that names the file and the field."""
    return read_shipped(path, _File).expected


def find_expectation(record: Record, expectations: tuple[Expectation, ...]) -> Expectation:
    """The expectation for a record. Raises :class:`CheckError` that lists the known ones if there is none."""
    for expectation in expectations:
        if expectation.applies_to(record):
            return expectation
    subject, data, denoiser = record.subject, record.data, record.denoiser
    what = f"{subject.autoencoder} ({subject.weights_source})"
    if denoiser is not None:
        what = f"samples of {denoiser.released or f'row {denoiser.row} (retrained)'}"
    raise CheckError(
        f"nothing is expected of {what} on {data.name}-{data.resolution}{_at(record.settings)}; there are expectations "
        f"for {', '.join(expectation.label for expectation in expectations) or 'nothing'}"
    )


def compare_with_expectation(record: Record, expectation: Expectation) -> tuple[Comparison, ...]:
    """Compare each metric of a record, or the nearest of its variants, with the expected value.

    Raises :class:`CheckError` when the record was measured in another way than expected, or lacks a metric.
    """
    usual = {**SETTINGS.get(expectation.protocol, {}), **expectation.settings}
    facts: list[tuple[str, object, object]] = [
        ("protocol", expectation.protocol, record.protocol),
        ("number of images", expectation.images, record.data.images),
    ]
    facts += [(switch, usual.get(switch), value) for switch, value in record.settings.items()]
    for what, theirs, ours in facts:
        if theirs != ours:
            raise CheckError(f"{expectation.label}: {what} is {ours}, but {theirs} is expected; measure it that way")
    return tuple(_compare(record, expectation, key, wanted) for key, wanted in expectation.metrics.items())


def _compare(record: Record, expectation: Expectation, key: str, wanted: ExpectedValue) -> Comparison:
    known = wanted.variants or {key: ""}
    found = {name: record.metrics[name].value for name in known if name in record.metrics}
    if not found:
        raise CheckError(f"{expectation.label}: the record holds no {key}; measure it again with this version")
    nearest = min(found, key=lambda name: abs(found[name] - wanted.value))
    return Comparison(nearest, found[nearest], wanted.value, wanted.tolerance, known[nearest] or None)


def _at(settings: dict[str, str]) -> str:
    return f" at s = {settings['guidance']}" if "guidance" in settings else ""
