"""Records: one JSON file for one measured result, with everything needed to judge it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dcae_bench.errors import ResultsError
from dcae_bench.files import sha256_json, write_text
from dcae_bench.provenance import Provenance

WeightsSource = Literal["retrained", "released", "own"]


class _Frozen(BaseModel):
    # A NaN would be written as null, which no reader takes back: it must fail where it arises.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Subject(_Frozen):
    """The autoencoder that was measured."""

    autoencoder: str = Field(description="name in the profile, e.g. dc-ae-f64c128")
    family: str = Field(description="dc-ae, sd-vae, diffusers, custom or space-to-channel")
    compression: int = Field(description="f: pixels per latent cell and side")
    latent_channels: int = Field(description="c: channels of the latent")
    weights_source: WeightsSource = Field(
        description="retrained by this harness, released by its authors, or own: brought by the user"
    )
    phase: int | None = Field(default=None, description="last training phase the weights went through, if retrained")
    parameters: int = Field(description="parameters of encoder and decoder")
    weights_sha256: str


class Denoiser(_Frozen):
    """The denoiser that was trained or sampled, on the latents of the record's subject."""

    row: str = Field(description="name in the profile")
    name: str = Field(description="size, e.g. uvit-s")
    family: Literal["uvit", "dit"]
    process: Literal["vp", "learned-range", "flow"]
    patch: int = Field(description="latent cells per side of a token")
    tokens: int = Field(description="of one latent")
    classes: int | None = Field(description="null: unconditional")
    parameters: int = Field(description="trainable ones")
    gmacs: float = Field(description="1e9 multiply-accumulates of matrix products in one conditional forward pass")
    weights_sha256: str
    weights_source: Literal["retrained", "released"] = Field(
        default="retrained", description="trained by this harness, or released by its authors"
    )
    released: str | None = Field(
        default=None, description="released weights' name in the catalogue; null: trained here"
    )


class Data(_Frozen):
    """The images a result was measured on."""

    name: str = Field(description="data set, e.g. photos-indoor; several are joined by '+'")
    split: Literal["train", "eval"]
    resolution: int = Field(description="side of the square input in pixels")
    images: int = Field(description="number of images measured (training: images seen)")
    sha256: str = Field(description="hash of the data set's manifest, which holds the hash of every photograph")


class Interval(_Frozen):
    """An interval of confidence around a metric's value, in the metric's unit."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    method: str = Field(description="how it was found, e.g. normal, 100 bootstrap resamples")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval's low {self.low} is above its high {self.high}")
        return self

    @property
    def half_width(self) -> float:
        """Half of the distance between both ends."""
        return (self.high - self.low) / 2


class Metric(_Frozen):
    """One number with its label and what qualifies it."""

    label: str = Field(description="as tables print it, e.g. rFD (EfficientNet-Lite0)")
    value: float
    better: Literal["higher", "lower", "neither"] = "neither"
    unit: str | None = None
    notes: tuple[str, ...] = Field(default=(), description="what a reader must know, e.g. fewer images than features")
    weights_sha256: str | None = Field(default=None, description="hash of the network the metric looks through, if any")
    interval: Interval | None = Field(
        default=None, description="what the value may be off by chance; null: not measured"
    )


class Record(_Frozen):
    """One measured result. Tables print nothing that is not in one of these."""

    version: Literal[1] = 1
    kind: Literal["training", "reconstruction", "latents", "diffusion_training", "generation"]
    profile: str
    protocol: str = Field(description="versioned name of the way of measuring, e.g. reconstruction/photos-v1")
    subject: Subject
    denoiser: Denoiser | None = Field(default=None, description="null: the result is the autoencoder's own")
    data: Data
    metrics: dict[str, Metric]
    settings: dict[str, str] = Field(
        default={}, description="switches of the protocol that move numbers: posterior, tf32, extractor_precision"
    )
    provenance: Provenance

    @property
    def key(self) -> str:
        """Content key: equal keys mean the same measurement of the same weights on the same data by the same code."""
        parts = (
            self.protocol,
            self.subject.weights_sha256,
            self.data.sha256,
            self.data.resolution,
            self.provenance.config_sha256,
            self.provenance.code_sha256,
        )
        return sha256_json(parts if self.denoiser is None else (*parts, self.denoiser.weights_sha256))


def save(record: Record, path: Path) -> None:
    """Write a record as JSON, atomically. Raises :class:`ResultsError` when ``path`` cannot be written."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def find(folder: Path) -> list[Path]:
    """Records below a folder of ``results/<profile>/reconstruction``, sorted; none where there is no such folder."""
    return sorted(path for path in Path(folder).glob("*@*/**/*.json") if not path.name.startswith("."))


def find_generation(folder: Path) -> list[Path]:
    """Records of samples and of the trainings behind them below ``results/<profile>``, sorted; none without it."""
    return sorted([*Path(folder).glob("generation/*/s*.json"), *Path(folder).glob("diffusion/*/record.json")])


def load(path: Path) -> Record:
    """Read a record. Raises :class:`ResultsError` when the file is missing or is not a record."""
    try:
        return Record.model_validate_json(Path(path).read_text())
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); run the rule that makes it") from error
    except (ValidationError, UnicodeDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ResultsError(f"{path}: is not a record of DC-AE Bench ({reason}); delete it and run again") from error
