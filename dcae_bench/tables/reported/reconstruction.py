"""Reported reconstruction quality: the paper's Table 2, and values of MJHQ-30K that are printed elsewhere."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dcae_bench.base.files import BASELINES
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.reported.values import ReportedValue, SourcedFile, SourcedRow

TABLE2 = BASELINES / "reported" / "table2_reconstruction.yaml"
MJHQ = BASELINES / "reported" / "mjhq_reconstruction.yaml"

ReconstructionMetric = Literal["rfid", "psnr", "ssim", "lpips"]


class ReconstructionRow(SourcedRow):
    """One reported row, most of the paper's Table 2: one autoencoder on one data set at one resolution."""

    table: str = Field(description="where the row is printed, e.g. Table 2 of the paper; none: it is not")
    dataset: str
    split: Literal["train", "eval"]
    resolution: PositiveInt = Field(description="side of the square input in pixels")
    compression: PositiveInt = Field(description="f: pixels per latent cell and side")
    latent_channels: PositiveInt = Field(description="c: channels of the latent")
    family: Literal["sd-vae", "dc-ae"]
    autoencoder_note: str
    weights_source: WeightsSource = Field(
        description="weights that the paper measured; a verdict needs the same source"
    )
    released: str | None = Field(
        default=None,
        description="catalogue's name of the weights of the row, if their authors released them",
    )
    trained_on: tuple[str, ...] | None = Field(
        default=None, description="data sets that the autoencoder was trained on; null if no source tells"
    )
    training_images: PositiveInt | None = Field(
        default=None, description="images seen in all phases of training; null if no source tells"
    )
    parameters: PositiveInt | None = Field(description="of encoder and decoder; null if unknown")
    parameters_min: PositiveInt | None = Field(description="lower bound where the number is unknown")
    images: PositiveInt | None = Field(description="number of images measured; null if not stated")
    metrics: dict[ReconstructionMetric, ReportedValue] = Field(description="empty if no value of the row is known")

    @model_validator(mode="after")
    def _whole_latent(self) -> Self:
        if self.resolution % self.compression:
            raise ValueError(f"resolution {self.resolution} is not a multiple of compression {self.compression}")
        if self.released is not None and self.weights_source != "released":
            raise ValueError(f"'released' {self.released} is for rows with 'weights_source: released'")
        return self

    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value with its metric."""
        yield from self.metrics.items()

    def shared_data(self, datasets: Collection[str] | None) -> int:
        """How many of the row's training sets, and no others, ``datasets`` are; 0 where either is not known.

        It ranks trainings beside a row. Our mixture lacks a data set of the authors', so none would be equal to theirs.
        """
        ours, theirs = set(datasets or ()), set(self.trained_on or ())
        return len(ours) if ours <= theirs else 0

    @property
    def in_paper(self) -> bool:
        """Whether the paper prints the row."""
        return self.table == "Table 2"

    @property
    def latent_shape(self) -> str:
        """Shape of the latent as height x width x channels, e.g. 8x8x128."""
        side = self.resolution // self.compression
        return f"{side}x{side}x{self.latent_channels}"


class ReconstructionFile(SourcedFile[ReconstructionRow]):
    """One of the files ``table2_reconstruction.yaml`` and ``mjhq_reconstruction.yaml`` of ``baselines/reported/``."""


def load_reconstruction_file(path: Path = TABLE2) -> ReconstructionFile:
    """Read and check reported reconstructions. Raises :class:`ConfigError` that names the file and the field."""
    return read_shipped(path, ReconstructionFile)


def load_reported_reconstruction(path: Path = TABLE2, *, measured: Collection[str] = ()) -> list[ReconstructionRow]:
    """Read the rows of Table 2.

    Rows that the paper does not print come last, and only those of the data sets ``measured``. Raises
    :class:`ConfigError` that names the file and the field.
    """
    file = load_reconstruction_file(path)
    further = [*load_reconstruction_file(MJHQ).rows, *file.unreported]
    return [*file.rows, *(row for row in further if row.dataset in measured)]
