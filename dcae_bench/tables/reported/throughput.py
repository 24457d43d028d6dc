"""Reported speed: images per second, latency and memory of the paper's Tables 3 to 5, with confidence and source."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.base.files import BASELINES
from dcae_bench.base.typed import Strict
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.tables.reported.values import PaperVersion

THROUGHPUT = BASELINES / "reported" / "throughput.yaml"


class ReportedSpeed(Strict):
    """One printed number: images per second, latency in ms or memory in GB."""

    value: PositiveFloat
    confidence: Literal["verified", "secondary", "derived", "recalled_unverified"]
    source: str | None = Field(description="key of the file's sources; null for recalled values")
    version: PaperVersion = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.confidence == "recalled_unverified") != (self.source is None):
            raise ValueError(f"confidence {self.confidence} with source {self.source}")
        return self

    @property
    def text(self) -> str:
        """The value as printed; a value that is only recalled stands in brackets."""
        return f"{self.value:g}" if self.source else f"({self.value:g})"


class ReportedModel(Strict):
    """One row of Tables 3 to 5: a denoiser on a latent space."""

    model: str
    latent_space: str
    resolution: PositiveInt = Field(default=512, description="side of the images in px")
    nfe: PositiveInt | None = Field(
        description="function evaluations of sampling; under guidance each takes two passes; null: not stated"
    )
    train_images_per_s: ReportedSpeed | None = None
    sample_images_per_s: ReportedSpeed | None = Field(default=None, description="full sampling: forward / (2 NFE)")
    latency_ms: ReportedSpeed | None = Field(default=None, description="of full sampling, at batch 2")
    forward_images_per_s: ReportedSpeed | None = Field(default=None, description="one forward pass, version v1")
    forward_latency_ms: ReportedSpeed | None = Field(
        default=None, description="one forward pass at batch 2, version v1"
    )
    memory_gb: ReportedSpeed | None = Field(default=None, description="training at batch 256")

    @model_validator(mode="after")
    def _sampling_has_a_length(self) -> Self:
        if self.nfe is None and self.sample_images_per_s:
            raise ValueError(f"{self.model} {self.latent_space}: sampling images/s without 'nfe'")
        return self

    def images_per_s(self, work: str) -> ReportedSpeed | None:
        """Images/s that the paper prints for a work, if any.

        The paper prints training and full sampling. Full sampling answers a forward pass too: it is forward / (2 NFE),
        so both have the same speed-up.
        """
        if work == "train":
            return self.train_images_per_s
        return self.sample_images_per_s if work in ("forward", "sample") else None


class ReportedThroughput(Strict):
    """The file ``baselines/reported/throughput.yaml``."""

    sources: dict[str, str]
    rows: tuple[ReportedModel, ...]

    @model_validator(mode="after")
    def _known(self) -> Self:
        for row in self.rows:
            for _, value in row:
                if isinstance(value, ReportedSpeed) and value.source and value.source not in self.sources:
                    raise ValueError(f"{row.model} {row.latent_space}: no source is called {value.source!r}")
        keys = [(row.model, row.latent_space, row.resolution) for row in self.rows]
        if len(set(keys)) != len(keys):
            raise ValueError("a model on a latent space is reported twice at one resolution")
        return self

    def find(self, model: str, latent_space: str | None, resolution: int = 512) -> ReportedModel | None:
        """The row of a model on a latent space at a resolution (px), if the paper has one."""
        wanted = model, latent_space, resolution
        return next((row for row in self.rows if (row.model, row.latent_space, row.resolution) == wanted), None)


@cache
def load_throughput(path: Path = THROUGHPUT) -> ReportedThroughput:
    """Read and check the reported speeds. Raises :class:`ConfigError` that names the file and the field."""
    return read_shipped(path, ReportedThroughput)
