"""The generation table: denoisers with the metrics of their samples, and answers to the paper's Tables 3 and 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dcae_bench.records.record import Record
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.answers import Answer, AnswersTable, ReportedResult
from dcae_bench.tables.reported.generation import GenerationMetric, GenerationRow
from dcae_bench.tables.runs import Run, family_rank

REPORTED_LABELS: dict[GenerationMetric, str] = {
    "gfid": "gFID",
    "gfid_cfg": "gFID, guided",
    "clip_score": "CLIP score",
}
"""Printed names of the paper's metrics."""
DISTANCES: tuple[GenerationMetric, ...] = ("gfid", "gfid_cfg")
"""Metrics that we measure; lower is better."""


@dataclass(frozen=True)
class Generation(Run):
    """Samples of one denoiser at one guidance scale: the record of the samples' metrics, and the training's record."""

    training: Record | None

    @property
    def denoiser(self) -> DenoiserSubject:
        """The denoiser that was sampled."""
        return self.record.required_denoiser

    @property
    def guidance(self) -> float:
        """Guidance scale s; 1 is the conditional model alone."""
        return float(self.record.settings.get("guidance", "1"))

    @property
    def latent_space(self) -> str:
        """Autoencoder and patch size, e.g. dc-ae-f64c128 p1."""
        return f"{self.record.subject.autoencoder} p{self.denoiser.patch}"

    @property
    def training_images(self) -> int | None:
        """Images seen in training; None without a record of the training."""
        return self.training.data.images if self.training else None

    @property
    def trained_on(self) -> tuple[str, ...] | None:
        """Data sets of the training; None without a record of it."""
        return tuple(self.training.data.name.split("+")) if self.training else None

    @property
    def training_flops(self) -> float | None:
        """Floating-point operations of the whole training, matrix products only."""
        return self._training_metric("training_flops")

    @property
    def loss(self) -> float | None:
        """Mean loss at the end of the training."""
        return self._training_metric("loss")

    def _training_metric(self, key: str) -> float | None:
        metric = self.training.metrics.get(key) if self.training else None
        return metric.value if metric else None

    @property
    def order(self) -> tuple:
        """Sort key: data, denoiser, compression, SD-VAE before DC-AE, length of training, guidance."""
        subject, data, denoiser = self.record.subject, self.record.data, self.denoiser
        return (
            data.name,
            data.resolution,
            denoiser.process,
            denoiser.name,
            subject.compression,
            subject.latent_channels,
            family_rank(subject.family),
            subject.autoencoder,
            denoiser.patch,
            self.training_images or 0,
            denoiser.row,
            self.guidance,
        )


GenerationAnswer = Answer[Generation, GenerationMetric]
GenerationResult = ReportedResult[GenerationRow, Generation, GenerationMetric]


@dataclass(frozen=True)
class GenerationTable(AnswersTable[GenerationRow, Generation, GenerationMetric]):
    """The generation table of one profile."""

    COLUMN_ORDER: ClassVar[tuple[str, ...]] = ("gf", "k", "inception", "precision", "recall")

    not_measured: Mapping[str, tuple[str, ...]]
    """Reasons by row of the profile, for rows without a run."""
