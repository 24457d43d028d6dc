"""Measurements that must come out alike everywhere, and how a record stands to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from dcae_bench.errors import CheckError, ConfigError
from dcae_bench.files import REPOSITORY
from dcae_bench.protocols import SETTINGS
from dcae_bench.records import Record, WeightsSource

EXPECTED = REPOSITORY / "baselines" / "reported" / "expected.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpectedValue(_Frozen):
    """A value and how far a repetition may be off, both in the metric's unit."""

    value: float
    tolerance: PositiveFloat


class Expectation(_Frozen):
    """What one autoencoder must give on one evaluation set, or samples of one denoiser at one guidance scale."""

    autoencoder: str
    weights_source: WeightsSource
    denoiser: str | None = Field(default=None, description="released weights in the catalogue; null: reconstruction")
    dataset: str
    split: Literal["train", "eval"]
    resolution: PositiveInt
    images: PositiveInt
    protocol: str
    settings: dict[str, str] = Field(default={}, description="of the record, beside the protocol's own switches")
    source: str
    metrics: dict[str, ExpectedValue] = Field(min_length=1, description="by the record's keys")

    @property
    def label(self) -> str:
        """What is measured and on what, as messages print it."""
        what = f"samples of {self.denoiser}" if self.denoiser else f"{self.autoencoder} ({self.weights_source})"
        return f"{what} on {self.dataset}-{self.resolution}{_at(self.settings)}"

    def concerns(self, record: Record) -> bool:
        """Whether a record is of this autoencoder on this set, or of this denoiser's samples at this guidance."""
        mine = (self.autoencoder, self.weights_source, self.dataset, self.split, self.resolution, self.denoiser)
        subject, data, denoiser = record.subject, record.data, record.denoiser
        theirs = (subject.autoencoder, subject.weights_source, data.name, data.split, data.resolution)
        same = mine == (*theirs, denoiser.released if denoiser else None)
        return same and self.settings.get("guidance") == record.settings.get("guidance")


class _File(_Frozen):
    expected: tuple[Expectation, ...]


@dataclass(frozen=True)
class Comparison:
    """One metric of a record beside its expected value."""

    metric: str
    measured: float
    expected: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the measured value is within the tolerance."""
        return abs(self.measured - self.expected) <= self.tolerance


def load_expected(path: Path = EXPECTED) -> tuple[Expectation, ...]:
    """Read the expectations. Raises :class:`ConfigError` that names the file and the field."""
    try:
        return _File.model_validate(yaml.safe_load(Path(path).read_text())).expected
    except (OSError, yaml.YAMLError, ValidationError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigError(f"{path}: is not a file of expectations ({' '.join(reason.split())}); restore it") from error


def find_expectation(record: Record, expectations: tuple[Expectation, ...]) -> Expectation:
    """The expectation that concerns a record. Raises :class:`CheckError` with those there are."""
    for expectation in expectations:
        if expectation.concerns(record):
            return expectation
    subject, data, denoiser = record.subject, record.data, record.denoiser
    what = f"{subject.autoencoder} ({subject.weights_source})"
    if denoiser is not None:
        what = f"samples of {denoiser.released or f'row {denoiser.row} (retrained)'}"
    raise CheckError(
        f"nothing is expected of {what} on {data.name}-{data.resolution}{_at(record.settings)}; there are expectations "
        f"for {', '.join(expectation.label for expectation in expectations) or 'nothing'}"
    )


def compare(record: Record, expectation: Expectation) -> tuple[Comparison, ...]:
    """Put a record's values beside the expected ones.

    Raises :class:`CheckError` when the record was measured in another way than the expectation, or lacks a metric.
    """
    usual = {**SETTINGS.get(expectation.protocol, {}), **expectation.settings}
    facts = [("protocol", expectation.protocol, record.protocol)]
    facts += [("number of images", expectation.images, record.data.images)]
    facts += [(switch, usual.get(switch), value) for switch, value in record.settings.items()]
    for what, theirs, ours in facts:
        if theirs != ours:
            raise CheckError(f"{expectation.label}: {what} is {ours}, but {theirs} is expected; measure it that way")
    for key in expectation.metrics:
        if key not in record.metrics:
            raise CheckError(f"{expectation.label}: the record holds no {key}; measure it again with this version")
    return tuple(
        Comparison(key, record.metrics[key].value, wanted.value, wanted.tolerance)
        for key, wanted in expectation.metrics.items()
    )


def _at(settings: dict[str, str]) -> str:
    return f" at s = {settings['guidance']}" if "guidance" in settings else ""
