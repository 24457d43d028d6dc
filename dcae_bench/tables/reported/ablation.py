"""Reported ablations: the plots of the paper's Figure 3, and its comparison of GAN trainings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dcae_bench.base.files import BASELINES
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.tables.reported.values import ReportedValue, SourcedFile, SourcedRow

ABLATION = BASELINES / "reported" / "ablation.yaml"

AblationMetric = Literal["rfid"]
Study = Literal["residual", "high_resolution", "gan"]
ARMS: dict[Study, tuple[str, ...]] = {
    "residual": ("without", "with"),
    "high_resolution": ("without", "with"),
    "gan": ("none", "all_layers", "decoder_head"),
}
"""Arms of each study, in the order of rows."""


class AblationRow(SourcedRow):
    """One value of the paper's ablations."""

    table: str
    study: Study
    arm: Literal["without", "with", "none", "all_layers", "decoder_head"]
    compression: PositiveInt | None = Field(description="f: pixels per latent cell and side; null if not stated")
    resolution: PositiveInt | None = Field(description="side of the images in pixels; null if not stated")
    dataset: str | None = Field(description="images that were measured; null if not stated")
    metrics: dict[AblationMetric, ReportedValue]

    @model_validator(mode="after")
    def _arm_of_study(self) -> Self:
        if self.arm not in ARMS[self.study]:
            raise ValueError(f"arm {self.arm} is none of {self.study}: {', '.join(ARMS[self.study])}")
        return self

    def values(self) -> Iterator[tuple[str, ReportedValue]]:
        """Every printed value with its metric."""
        yield from self.metrics.items()


class AblationFile(SourcedFile[AblationRow]):
    """The file ``baselines/reported/ablation.yaml``."""


def load_reported_ablations(path: Path = ABLATION) -> list[AblationRow]:
    """Read the paper's ablations. Raises :class:`ConfigError` that names the file and the field."""
    return list(read_shipped(path, AblationFile).rows)
