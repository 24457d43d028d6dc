"""Reported generation quality: the paper's denoisers by latent space, each cell with all values its authors printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.base.files import BASELINES
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.specs.diffusion import ProcessName
from dcae_bench.tables.reported.values import ReportedValue, SourcedFile, SourcedRow

TABLE3 = BASELINES / "reported" / "table3_diffusion.yaml"
TABLE1 = BASELINES / "reported" / "table1_tokens.yaml"
TABLE4 = BASELINES / "reported" / "table4_high_resolution.yaml"
TABLE5 = BASELINES / "reported" / "table5_text_to_image.yaml"

GenerationMetric = Literal["gfid", "gfid_cfg", "clip_score"]
"""``gfid`` is without guidance, ``gfid_cfg`` with the row's guidance scale; ``clip_score`` is of text to image."""


class GenerationRow(SourcedRow):
    """One row of the paper's Tables 3, 1, 4 and 5: one denoiser on one latent space."""

    table: str
    label: str = Field(description="the denoiser as the paper names it, with what sets the row apart: UViT-H, 2M steps")
    denoiser: str = Field(description="size in the catalogue, e.g. uvit-h")
    process: ProcessName
    latent: str = Field(description="the autoencoder as the paper names it")
    autoencoder: str | None = Field(description="the autoencoder's name in the catalogue; null if not stated")
    compression: PositiveInt = Field(description="f: pixels per latent cell and side")
    patch: PositiveInt = Field(description="latent cells per side of a token")
    dataset: str
    resolution: PositiveInt = Field(description="side of the images in pixels")
    parameters: PositiveInt | None = Field(description="trainable parameters of the denoiser; null if not known")
    training_images: PositiveInt | None = Field(description="images seen in training; null if not stated")
    nfe: PositiveInt | None = Field(description="number of function evaluations; null: adaptive or not stated")
    guidance: PositiveFloat | None = Field(description="guidance scale s of the guided value; null if not stated")
    samples: PositiveInt | None = Field(description="null if not stated")
    reference_images: PositiveInt | None = Field(description="null if not stated")
    note: str | None
    released: str | None = Field(
        default=None, description="catalogue's name of the denoiser's weights, if its authors released them"
    )
    not_run: str | None = Field(default=None, description="reason why no profile can run the row")
    metrics: dict[GenerationMetric, tuple[ReportedValue, ...]]

    @model_validator(mode="after")
    def _whole_tokens(self) -> Self:
        if self.resolution % (self.compression * self.patch):
            raise ValueError(f"resolution {self.resolution} is not a multiple of f{self.compression}p{self.patch}")
        if not all(self.metrics.values()):
            raise ValueError("a metric has no value; leave it out")
        return self

    @property
    def latent_space(self) -> str:
        """Autoencoder, compression and patch size as the paper writes them, e.g. DC-AE f64p1."""
        return f"{self.latent} f{self.compression}p{self.patch}"

    @property
    def tokens(self) -> int:
        """Number of tokens of one latent."""
        return (self.resolution // (self.compression * self.patch)) ** 2

    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value with its metric and its number in the metric's cell, e.g. ``gfid.0``."""
        for metric, values in self.metrics.items():
            for number, value in enumerate(values):
                yield f"{metric}.{number}", value


class GenerationFile(SourcedFile[GenerationRow]):
    """One of the files ``baselines/reported/table*.yaml`` of denoisers."""


def load_reported_generation(*paths: Path) -> list[GenerationRow]:
    """Read the rows of Tables 3, 1, 4 and 5, or of the files ``paths``; rows without any value come last.

    Raises :class:`ConfigError` that names the file and the field.
    """
    files = [read_shipped(path, GenerationFile) for path in paths or (TABLE3, TABLE1, TABLE4, TABLE5)]
    return [row for file in files for row in file.rows] + [row for file in files for row in file.unreported]
