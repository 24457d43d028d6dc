"""The throughput table: timings, their speed-ups over SD-VAE-f8p2, and the verdicts on the speed-ups."""

from dataclasses import dataclass

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.tables.reported.throughput import ReportedModel, ReportedSpeed
from dcae_bench.tables.reported.verdict import Judgement

BASELINE = "sd-vae-f8c4 p2"
"""Latent space that every speed-up is relative to."""


@dataclass(frozen=True)
class ThroughputRow:
    """One timing, merged from its restarts, with the baseline's timing and the reported rows of both."""

    record: ThroughputRecord
    baseline: ThroughputRecord | None
    """Timing of the same setting on the baseline; the row's own record if the row is the baseline."""
    speed_up: Estimate | None
    """Images/s over the baseline's; None for the baseline itself."""
    reported: ReportedModel | None
    reported_baseline: ReportedModel | None
    judgement: Judgement

    @property
    def mac_ratio(self) -> float | None:
        """Multiply-accumulates of the baseline over those of this row."""
        return self.baseline.model.gmacs / self.record.model.gmacs if self.baseline else None

    @property
    def reported_value(self) -> ReportedSpeed | None:
        """Images/s that the paper prints for this work: training, or full sampling for one forward pass."""
        return self.reported.images_per_s(self.record.work) if self.reported else None

    @property
    def reported_pass_per_s(self) -> float | None:
        """The paper's images/s in the convention of the row's work.

        Those of one forward pass follow from full sampling, x 2 NFE, where no version prints them.
        """
        if self.record.work == "forward" and self.reported and self.reported.forward_images_per_s:
            return self.reported.forward_images_per_s.value
        theirs = self.reported_value
        if theirs is None or self.reported is None:
            return None
        if self.record.work != "forward":
            return theirs.value
        return theirs.value * 2 * self.reported.nfe if self.reported.nfe else None

    @property
    def reported_speed_up(self) -> float | None:
        """The paper's speed-up, if the paper prints both numbers."""
        slow = self.reported_baseline.images_per_s(self.record.work) if self.reported_baseline else None
        fast = self.reported_value
        return fast.value / slow.value if fast and slow and self.baseline is not self.record else None

    @property
    def sampled_per_s(self) -> float | None:
        """Images/s of full sampling that follow from one forward pass: forward / (2 NFE); None if NFE is not stated."""
        if self.record.work != "forward" or self.record.derived is None:
            return None
        if self.reported is None or self.reported.nfe is None:
            return None
        return self.record.derived.images_per_s.value / (2 * self.reported.nfe)


@dataclass(frozen=True)
class ThroughputTable:
    """Rows in order, and the rows that were left out because their measurement is degraded."""

    rows: tuple[ThroughputRow, ...]
    left_out: tuple[ThroughputRow, ...]
    sources: dict[str, str]
    """Sources of the reported speeds, by key."""
    held: int = 0
    """Number of timings behind the rows; each restart counts."""
    planned: int = 0
    """Number of timings that the plans beside the records ask for; 0 without a plan."""
    code: str | None = None
    """Fingerprint of the code that measures, when the table was made; None: the records were not compared with it."""

    @property
    def all_of_other_code(self) -> bool:
        """Whether every row was measured by other code, as those of evidence are in time."""
        return all(self.is_of_other_code(row) for row in (*self.rows, *self.left_out))

    def is_of_other_code(self, row: ThroughputRow) -> bool:
        """Whether a row was measured by other code than that of the time when the table was made."""
        return self.code is not None and row.record.provenance.code_sha256 != self.code


def named_batch(record: ThroughputRecord) -> int | None:
    """The batch if the user named it, as for a latency; None for a batch of the protocol."""
    return record.batch if record.settings.get("batch") == "named by the user" else None
