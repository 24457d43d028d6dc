"""What the paper reports of speed: images per second, latency and memory with confidence and source."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.files import REPOSITORY
from dcae_bench.presets import read_catalogue

THROUGHPUT = REPOSITORY / "baselines" / "reported" / "throughput.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReportedSpeed(_Frozen):
    """One printed number."""

    value: PositiveFloat
    confidence: Literal["verified", "secondary", "derived", "recalled_unverified"]
    source: str | None = Field(description="key of the file's sources; null for recalled values")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.confidence == "recalled_unverified") != (self.source is None):
            raise ValueError(f"confidence {self.confidence} with source {self.source}")
        return self

    @property
    def text(self) -> str:
        """As printed; in brackets when it is only recalled."""
        return f"{self.value:g}" if self.source else f"({self.value:g})"


class ReportedModel(_Frozen):
    """One row of Table 3: a denoiser on a latent space at 512 px."""

    model: str
    latent_space: str
    nfe: PositiveInt = Field(description="function evaluations of sampling, each two passes under guidance")
    train_images_per_s: ReportedSpeed | None = None
    sample_images_per_s: ReportedSpeed | None = Field(default=None, description="full sampling: forward / (2 NFE)")
    latency_ms: ReportedSpeed | None = None
    memory_gb: ReportedSpeed | None = None


class ReportedThroughput(_Frozen):
    """The file ``baselines/reported/throughput.yaml``."""

    sources: dict[str, str]
    rows: tuple[ReportedModel, ...]

    @model_validator(mode="after")
    def _known(self) -> Self:
        for row in self.rows:
            for name in ("train_images_per_s", "sample_images_per_s", "latency_ms", "memory_gb"):
                value = getattr(row, name)
                if value and value.source and value.source not in self.sources:
                    raise ValueError(f"{row.model} {row.latent_space}: no source is called {value.source!r}")
        keys = [(row.model, row.latent_space) for row in self.rows]
        if len(set(keys)) != len(keys):
            raise ValueError("a model on a latent space is reported twice")
        return self

    def find(self, model: str, latent_space: str | None) -> ReportedModel | None:
        """The row of a model on a latent space, if the paper has one."""
        return next((row for row in self.rows if (row.model, row.latent_space) == (model, latent_space)), None)


@cache
def load_throughput(path: Path = THROUGHPUT) -> ReportedThroughput:
    """Read and check the reported values. Raises :class:`ConfigError` that names the file and the field."""
    return read_catalogue(path, ReportedThroughput)
