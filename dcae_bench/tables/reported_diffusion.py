"""Reported generation quality: the paper's denoisers by latent space, each cell with all values its authors printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.diffusion_specs import ProcessName
from dcae_bench.files import REPOSITORY
from dcae_bench.tables.reported import ReportedValue, SourcedFile, SourcedRow, read_reported

TABLE3 = REPOSITORY / "baselines" / "reported" / "table3_diffusion.yaml"
TABLE1 = REPOSITORY / "baselines" / "reported" / "table1_tokens.yaml"

GenerationMetric = Literal["gfid", "gfid_cfg"]
"""Without guidance, and with the row's scale."""


class DiffusionRow(SourcedRow):
    """One denoiser on one latent space."""

    table: str
    label: str = Field(description="as the paper names the denoiser, with what is its own, e.g. UViT-H, 2M steps")
    denoiser: str = Field(description="size in the catalogue, e.g. uvit-h")
    process: ProcessName
    latent: str = Field(description="the autoencoder as the paper names it")
    autoencoder: str | None = Field(description="its name in the catalogue; null if not stated")
    compression: PositiveInt = Field(description="f: pixels per latent cell and side")
    patch: PositiveInt = Field(description="latent cells per side of a token")
    dataset: str
    resolution: PositiveInt = Field(description="side of the images in pixels")
    parameters: PositiveInt | None = Field(description="trainable ones of the denoiser; null if not known")
    training_images: PositiveInt | None = Field(description="images seen in training; null if not stated")
    nfe: PositiveInt | None = Field(description="number of function evaluations; null: adaptive")
    guidance: PositiveFloat = Field(description="scale s of the guided value")
    samples: PositiveInt
    reference_images: PositiveInt
    note: str | None
    released: str | None = Field(
        default=None, description="catalogue's name of the denoiser's weights, if its authors released them"
    )
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
        """Tokens of one latent."""
        return (self.resolution // (self.compression * self.patch)) ** 2

    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value with its place."""
        for metric, values in self.metrics.items():
            for number, value in enumerate(values):
                yield f"{metric}.{number}", value


class DiffusionFile(SourcedFile[DiffusionRow]):
    """Reported generation quality."""


def load_reported_diffusion(*paths: Path) -> list[DiffusionRow]:
    """Rows of Table 3 and Table 1, or of the files given; rows without any value come last.

    Raises :class:`ConfigError` that names the file and the field.
    """
    files = [read_reported(path, DiffusionFile) for path in paths or (TABLE3, TABLE1)]
    return [row for file in files for row in file.rows] + [row for file in files for row in file.unreported]
