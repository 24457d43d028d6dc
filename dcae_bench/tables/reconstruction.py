"""What the reconstruction table holds: measured runs, their pairs, and the reported rows they answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dcae_bench.errors import ResultsError
from dcae_bench.files import REPOSITORY
from dcae_bench.records import Metric, Record, WeightsSource
from dcae_bench.tables.reported import ReportedMetric, ReportedRow
from dcae_bench.tables.verdict import RECORD_KEYS, Judgement

FAMILIES = {"sd-vae": "SD-VAE", "dc-ae": "DC-AE"}
DATA_SETS = {"imagenet": "ImageNet", "ffhq": "FFHQ", "mjhq": "MJHQ-30K", "mapillary-vistas": "Mapillary Vistas"}
SOURCES: tuple[WeightsSource, ...] = ("released", "retrained")
REPORTED_LABELS: dict[ReportedMetric, str] = {"rfid": "rFID", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}


@dataclass(frozen=True)
class Run:
    """One measured row: a reconstruction record and where it lies."""

    path: Path
    record: Record

    @property
    def setting(self) -> tuple[str, str, int, int, int, str]:
        """What SD-VAE and DC-AE must share to be compared."""
        subject, data = self.record.subject, self.record.data
        size = (data.resolution, subject.compression, subject.latent_channels)
        return data.name, data.split, *size, subject.weights_source

    @property
    def order(self) -> tuple:
        """Sort key: setting, then SD-VAE before DC-AE, then phases."""
        subject = self.record.subject
        families = list(FAMILIES)
        family = families.index(subject.family) if subject.family in families else len(families)
        return *self.setting, family, subject.autoencoder, subject.phase or 0

    @property
    def latent_shape(self) -> str:
        """Latent as height x width x channels, e.g. 8x8x128."""
        side = self.record.data.resolution // self.record.subject.compression
        return f"{side}x{side}x{self.record.subject.latent_channels}"

    @property
    def phase(self) -> str:
        """Last training phase, or the weights source where no phase is known."""
        subject = self.record.subject
        return subject.weights_source if subject.phase is None else str(subject.phase)

    @property
    def shown_path(self) -> str:
        """Path as tables print it: relative to the repository where it lies inside."""
        return shown(self.path)


@dataclass(frozen=True)
class Pair:
    """A DC-AE and an SD-VAE of the same setting after its final phase."""

    dc_ae: Run
    sd_vae: Run

    @property
    def obstacle(self) -> str | None:
        """Why the two cannot be compared, if so."""
        ours, theirs = self.dc_ae.record, self.sd_vae.record
        for what, one, other in (
            ("protocols", ours.protocol, theirs.protocol),
            ("numbers of images", ours.data.images, theirs.data.images),
            ("images", ours.data.sha256, theirs.data.sha256),
        ):
            if one != other:
                return f"not compared: {self.dc_ae.shown_path} and {self.sd_vae.shown_path} differ in their {what}"
        return None

    def difference(self, key: str) -> float | None:
        """DC-AE minus SD-VAE in the metric's unit; None where one lacks it or the two cannot be compared."""
        ours, theirs = self.dc_ae.record.metrics, self.sd_vae.record.metrics
        if self.obstacle or key not in ours or key not in theirs:
            return None
        return ours[key].value - theirs[key].value

    def winners(self, key: str) -> list[Run]:
        """The better run in a metric, both on a tie, none where the metric has no better side."""
        difference = self.difference(key)
        better = self.dc_ae.record.metrics[key].better if difference is not None else "neither"
        if difference is None or better == "neither":
            return []
        if difference == 0:
            return [self.dc_ae, self.sd_vae]
        return [self.dc_ae if (difference > 0) == (better == "higher") else self.sd_vae]


@dataclass(frozen=True)
class Answer:
    """What one weights source gave for a row of the paper: a run with a judgement per metric, or why there is none."""

    run: Run | None
    judgements: dict[ReportedMetric, Judgement]
    missing: tuple[str, ...] = ()

    def reproduced(self, metric: ReportedMetric) -> Metric | None:
        """The measured metric, or None where it was not measured."""
        return self.run.record.metrics.get(RECORD_KEYS[metric]) if self.run else None


@dataclass(frozen=True)
class ReportedResult:
    """A row of the paper with what each weights source gave for it."""

    row: ReportedRow
    answers: dict[WeightsSource, Answer]


@dataclass(frozen=True)
class RfidTable:
    """The reconstruction table of one profile."""

    profile: str
    runs: tuple[Run, ...]
    pairs: tuple[Pair, ...]
    reported: tuple[ReportedResult, ...]
    not_measured: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Reasons by autoencoder and evaluation set, where neither a run nor a row of the paper tells them."""

    @property
    def first_line(self) -> str:
        """Profile, commit and hardware, as the records hold them."""
        return f"Profile `{self.profile}` · {made_by(self.runs) if self.runs else 'no record yet'}"

    @property
    def beside(self) -> dict[str, list[Run]]:
        """Runs of other profiles that answer rows of the paper, by profile."""
        found: dict[str, list[Run]] = {}
        for run in (answer.run for result in self.reported for answer in result.answers.values()):
            if run and run.record.profile != self.profile:
                found.setdefault(run.record.profile, []).append(run)
        return found

    @property
    def columns(self) -> dict[str, Metric]:
        """A specimen of every metric the runs hold, Fréchet distances first: the table's metric columns."""
        found: dict[str, Metric] = {}
        for run in self.runs:
            for key, metric in run.record.metrics.items():
                if found.setdefault(key, metric).label != metric.label:
                    raise ResultsError(f"{run.path}: calls {key} {metric.label!r}, others do not; measure it again")
        habit = ("rf", "kid", "psnr", "ssim", "lpips")
        rank = {key: next((i for i, start in enumerate(habit) if key.startswith(start)), len(habit)) for key in found}
        return {key: found[key] for key in sorted(found, key=rank.__getitem__)}


def made_by(runs: Iterable[Run]) -> str:
    """Commits and hardware of some runs."""
    provenances = [run.record.provenance for run in runs]
    commits = unique(
        f"commit {made.commit[:7]}{'+dirty' if made.dirty else ''}" if made.commit else "outside git"
        for made in provenances
    )
    devices = [made.device for made in provenances]
    hardware = unique(f"{device.machine}, {device.precision}" for device in devices)
    return f"{', '.join(commits)} · {'; '.join(hardware)}"


def unique(texts: Iterable[str]) -> list[str]:
    """The different texts in order of first appearance."""
    return list(dict.fromkeys(texts))


def shown(path: Path) -> str:
    """A path as tables print it: relative to the repository where it lies inside."""
    path = path.resolve()
    return (path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path).as_posix()
