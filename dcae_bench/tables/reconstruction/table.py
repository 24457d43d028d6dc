"""The reconstruction table: measured reconstructions, pairs of DC-AE and SD-VAE, and answers to the paper's Table 2."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from dcae_bench.specs.protocols import NATIVE
from dcae_bench.tables.answers import Answer, AnswersTable, ReportedResult
from dcae_bench.tables.reported.reconstruction import ReconstructionMetric, ReconstructionRow
from dcae_bench.tables.runs import CONTROL, Run, family_rank

COMPUTATION = ("precision", "tiles")
"""Settings of records that say how reconstructions were computed; rows that differ in them are never compared."""
REPORTED_LABELS: dict[ReconstructionMetric, str] = {"rfid": "rFID", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
"""Printed names of the paper's metrics."""


@dataclass(frozen=True)
class Reconstruction(Run):
    """One measured row: an autoencoder after one phase, on one data set at one resolution."""

    @property
    def setting(self) -> tuple[str, str, int, int, int, str, tuple[str, ...], tuple[str, ...]]:
        """Everything that SD-VAE and DC-AE must share to be compared."""
        subject, data = self.record.subject, self.record.data
        size = (data.resolution, subject.compression, subject.latent_channels)
        way = tuple(self.record.settings.get(key, "") for key in COMPUTATION)
        return data.name, data.split, *size, subject.weights_source, subject.trained_on or (), way

    @property
    def order(self) -> tuple:
        """Sort key: setting, then SD-VAE, DC-AE and the control, then phases."""
        subject = self.record.subject
        return *self.setting, family_rank(subject.family), subject.autoencoder, subject.phase or 0

    @property
    def marks(self) -> tuple[str, ...]:
        """What makes the row another than the usual ones, for a footnote."""
        record = self.record
        half = [f"computed in {record.settings['precision']}"] if "precision" in record.settings else []
        tiles = [record.tiling.described] if record.tiling is not None else []
        whole = [f"{record.settings['crop']}; sizes: {record.settings['sizes']}"] if record.protocol == NATIVE else []
        return (*whole, *half, *tiles, *record.subject.peculiarities)

    @property
    def latent_shape(self) -> str:
        """Shape of the latent as height x width x channels, e.g. 8x8x128; whole images have latents of any shape."""
        return self.record.latent_shape

    @property
    def phase(self) -> str:
        """Last training phase, or the weights source if no phase is known; a control is fitted."""
        subject = self.record.subject
        if subject.family == CONTROL:
            return "fit"
        return subject.weights_source if subject.phase is None else str(subject.phase)


ReconstructionAnswer = Answer[Reconstruction, ReconstructionMetric]
ReconstructionResult = ReportedResult[ReconstructionRow, Reconstruction, ReconstructionMetric]


@dataclass(frozen=True)
class Pair:
    """A DC-AE and an SD-VAE with the same setting, each after its final phase."""

    dc_ae: Reconstruction
    sd_vae: Reconstruction

    @property
    def obstacle(self) -> str | None:
        """Why the two cannot be compared; None if they can."""
        ours, theirs = self.dc_ae.record, self.sd_vae.record
        for what, one, other in (
            ("protocols", ours.protocol, theirs.protocol),
            ("numbers of images", ours.data.images, theirs.data.images),
            ("images", ours.data.sha256, theirs.data.sha256),
            ("way of training", bool(ours.subject.peculiarities), bool(theirs.subject.peculiarities)),
        ):
            if one != other:
                return f"not compared: {self.dc_ae.shown_path} and {self.sd_vae.shown_path} differ in their {what}"
        return None

    def difference(self, key: str) -> float | None:
        """DC-AE minus SD-VAE in the metric's unit; None if one lacks the metric or the two cannot be compared."""
        ours, theirs = self.dc_ae.record.metrics, self.sd_vae.record.metrics
        if self.obstacle or key not in ours or key not in theirs:
            return None
        return ours[key].value - theirs[key].value

    def winners(self, key: str) -> list[Reconstruction]:
        """The run with the better value; both on a tie, none if neither direction of the metric is better."""
        difference = self.difference(key)
        better = self.dc_ae.record.metrics[key].better if difference is not None else "neither"
        if difference is None or better == "neither":
            return []
        if difference == 0:
            return [self.dc_ae, self.sd_vae]
        return [self.dc_ae if (difference > 0) == (better == "higher") else self.sd_vae]


@dataclass(frozen=True)
class ReconstructionTable(AnswersTable[ReconstructionRow, Reconstruction, ReconstructionMetric]):
    """The reconstruction table of one profile."""

    COLUMN_ORDER: ClassVar[tuple[str, ...]] = ("rf", "kid", "psnr", "ssim", "lpips")

    pairs: tuple[Pair, ...]
    not_measured: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Reasons by autoencoder and evaluation set, for measurements without a run that answer no row of the paper."""

    @property
    def final_runs(self) -> list[Reconstruction]:
        """The run of each autoencoder's last phase on each set, as figures show it.

        Of several runs of that phase, one that the profile asks for now comes first, then one in single precision
        without tiles.
        """
        found: dict[tuple, list[Reconstruction]] = {}
        for run in self.runs:
            subject, data = run.record.subject, run.record.data
            arm = data.name, data.resolution, subject.autoencoder, subject.weights_source
            found.setdefault(arm, []).append(run)
        return [max(runs, key=_shown_first) for runs in found.values()]


def _shown_first(run: Reconstruction) -> tuple[int, bool, bool]:
    usual = not any(key in run.record.settings for key in COMPUTATION)
    return run.record.subject.phase or 0, not run.doubts, usual
