"""Records: each is a JSON file with one measured result and everything that a reader needs to judge the result."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import read_text, sha256_json, write_text
from dcae_bench.base.typed import Sha256, Strict
from dcae_bench.records.digest import digest_problem, with_digest
from dcae_bench.records.path import ComputePath
from dcae_bench.records.provenance import Provenance
from dcae_bench.records.subject import DenoiserSubject, Subject
from dcae_bench.records.tiling import Tiling
from dcae_bench.specs.protocols import NATIVE


class Data(Strict):
    """Images behind a result."""

    name: str = Field(description="data set, e.g. photos-indoor; several are joined by '+'")
    split: Literal["train", "eval"]
    resolution: int = Field(
        description="side of the square input in pixels; under native-v1 the largest shorter side of the whole images"
    )
    images: int = Field(description="number of images measured (training: images seen)")
    sha256: str = Field(description="hash of the data set's manifest, which holds the hash of every photograph")


class Interval(Strict):
    """Confidence interval of a metric's value, in the metric's unit."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    method: str = Field(description="method behind the interval, e.g. normal, 100 bootstrap resamples")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval's low {self.low} is above its high {self.high}")
        return self

    @property
    def half_width(self) -> float:
        """Half the distance between the ends."""
        return (self.high - self.low) / 2


class Metric(Strict):
    """One number with its label, its unit and the notes that qualify it."""

    label: str = Field(description="as tables print it, e.g. rFD (EfficientNet-Lite0)")
    value: float
    better: Literal["higher", "lower", "neither"] = "neither"
    unit: str | None = None
    notes: tuple[str, ...] = Field(default=(), description="what a reader must know, e.g. fewer images than features")
    weights_sha256: str | None = Field(default=None, description="hash of the network that computes the metric, if any")
    interval: Interval | None = Field(
        default=None, description="uncertainty of the value by chance; null: not measured"
    )

    @property
    def in_interval(self) -> bool:
        """Whether the value lies in its interval, up to rounding; true without an interval."""
        if self.interval is None:
            return True
        low, high, value = self.interval.low, self.interval.high, self.value
        return low <= value <= high or any(math.isclose(value, end, rel_tol=1e-9, abs_tol=1e-12) for end in (low, high))


Kind = Literal["training", "reconstruction", "latents", "diffusion_training", "generation"]
"""What a record is the result of."""
SCORE: Literal["score"] = "score"
"""Kind of the records of :mod:`dcae_bench.records.score`, which are about images and no autoencoder."""


class Measured(Protocol):
    """A record of any class."""

    @property
    def metrics(self) -> dict[str, Metric]:
        """What was measured, by key."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str) -> Self:
        """Read a record. Raises ValidationError."""
        ...


class Record(Strict):
    """One measured result. Tables print only what records hold."""

    version: Literal[1] = 1
    kind: Kind
    profile: str
    protocol: str = Field(description="versioned name of the way of measuring, e.g. reconstruction/photos-v1")
    subject: Subject
    denoiser: DenoiserSubject | None = Field(default=None, description="null: the result is the autoencoder's")
    data: Data
    metrics: dict[str, Metric]
    settings: dict[str, str] = Field(
        default={}, description="settings that change numbers: posterior, tf32, extractor_precision"
    )
    path: ComputePath | None = Field(
        default=None,
        description="how the network was computed that reconstructed or sampled; null: not stated, or a training",
        exclude_if=lambda path: path is None,  # so that tables hold older records as they were written
    )
    tiling: Tiling | None = Field(
        default=None,
        description="tiles of the reconstructions and their error; null: images were computed whole",
        exclude_if=lambda tiling: tiling is None,
    )
    provenance: Provenance
    digest: Sha256 | None = Field(
        default=None, description="hash of everything else in the file; null: a record from before digests"
    )

    @property
    def latent_shape(self) -> str:
        """Shape of the latent as height x width x channels, or as tokens x channels; whole images have any shape."""
        if self.protocol == NATIVE:
            return f"any x{self.subject.latent_channels}"
        return self.subject.latent_shape(self.data.resolution)

    @property
    def required_denoiser(self) -> DenoiserSubject:
        """The denoiser. Raises :class:`ResultsError` for a result about the autoencoder alone."""
        if self.denoiser is None:
            raise ResultsError(f"a record of {self.kind} of {self.subject.autoencoder} has no denoiser; pass another")
        return self.denoiser

    @property
    def key(self) -> str:
        """Content key: two records with equal keys measure the same weights on the same data by the same code."""
        parts = (
            self.protocol,
            self.subject.weights_sha256,
            self.data.sha256,
            self.data.resolution,
            self.provenance.config_sha256,
            self.provenance.code_sha256,
        )
        return sha256_json(parts if self.denoiser is None else (*parts, self.denoiser.weights_sha256))


Content = TypeVar("Content", bound=Measured)


def save(record: Record, path: Path) -> None:
    """Write a record with its digest as JSON, atomically. Raises :class:`ResultsError` when it cannot be written."""
    write_text(path, with_digest(record.model_dump_json(), indent=2))


def load(path: Path) -> Record:
    """Read a record and check it against its digest and its intervals.

    Raises :class:`ResultsError` when the file is missing, is not a record, or was edited after it was written.
    """
    return load_as(path, Record)


def load_as(path: Path, model: type[Content]) -> Content:
    """Read a record of the class ``model`` and check it like :func:`load`."""
    try:
        text = read_text(path)
        record = model.model_validate_json(text)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); run the rule that makes it") from error
    except (ValidationError, UnicodeDecodeError) as error:
        if isinstance(error, ValidationError) and (kind := other_kind(error)) is not None:
            raise ResultsError(f"{path}: is a record of {kind}, which has no place here; pass another") from error
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ResultsError(f"{path}: is not a record of DC-AE Bench ({reason}); delete it and run again") from error
    if (problem := digest_problem(json.loads(text)) or next(contradictions(record), None)) is not None:
        raise ResultsError(f"{path}: {problem}; restore the file, or delete it and run again")
    return record


def other_kind(error: ValidationError) -> str | None:
    """Kind of the record that could not be read as one of another class; None for any other fault."""
    kinds = (*get_args(Kind), SCORE)
    found = [one["input"] for one in error.errors() if one["loc"] == ("kind",)]
    return found[0] if found and found[0] in kinds else None


def contradictions(record: Measured) -> Iterator[str]:
    """What a record says that cannot be: no metrics, or a value outside its own interval."""
    if not record.metrics:
        yield "it holds no metrics"
    for key, metric in record.metrics.items():
        if metric.interval is not None and not metric.in_interval:
            ends = f"[{metric.interval.low:.6g}, {metric.interval.high:.6g}]"
            yield f"its {key} {metric.value:.6g} lies outside its own interval {ends}"
