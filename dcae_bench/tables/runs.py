"""Runs: measured records with their files, and how tables name and sort them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.records.record import Metric, Record

FAMILIES = {"sd-vae": "SD-VAE", "dc-ae": "DC-AE", "pca": "Control"}
"""Printed names of the compared families, in the order of rows: the baseline first, the control last."""
CONTROL = "pca"
"""Family that stands beside the compared ones as a yardstick, fitted in closed form."""
DATA_SETS = {"imagenet": "ImageNet", "ffhq": "FFHQ", "mjhq": "MJHQ-30K", "mapillary-vistas": "Mapillary Vistas"}
"""Printed names of the paper's data sets."""


@dataclass(frozen=True)
class Run:
    """One measured row of a table: a record and the file that holds the record."""

    path: Path
    record: Record
    doubts: tuple[str, ...] = field(default=(), kw_only=True)
    """Why the record is not, or may not be, what its profile asks for now; empty if it is that."""

    @property
    def shown_path(self) -> str:
        """Path of the record as tables print it."""
        return shown_path(self.path)


@dataclass(frozen=True)
class Holdings:
    """What a table should hold, and what was known of the records before the table was built."""

    expected: tuple[str, ...] = ()
    """Names of the measurements that the profile asks for."""
    left_out: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    """Records that the table does not hold, each with the reasons."""
    doubts: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    """Records that the table holds all the same, each with the reasons to doubt it."""
    unchecked: tuple[Path, ...] = ()
    """Records of reconstructions without the values of each image beside them."""
    damaged: Mapping[Path, str] = field(default_factory=dict)
    """Records of other profiles that cannot be read or contradict themselves, which the table does not hold."""


NOTHING_KNOWN = Holdings()
"""Holdings of a table whose records nobody checked."""


def family_rank(family: str) -> int:
    """Place of an autoencoder's family in the order of rows: SD-VAE, DC-AE, the control, then all others."""
    families = list(FAMILIES)
    return families.index(family) if family in families else len(families)


def metric_columns(runs: Iterable[Run], prefixes: Sequence[str]) -> dict[str, Metric]:
    """The metric columns of a table: for each key of the runs' metrics, the first metric with that key.

    Columns are sorted by the first of ``prefixes`` that begins their key. Raises :class:`ResultsError` when two runs
    label the same key differently.
    """
    found: dict[str, Metric] = {}
    for run in runs:
        for key, metric in run.record.metrics.items():
            if found.setdefault(key, metric).label != metric.label:
                raise ResultsError(f"{run.path}: calls {key} {metric.label!r}, others do not; measure it again")
    ranks = {
        key: next((i for i, start in enumerate(prefixes) if key.startswith(start)), len(prefixes)) for key in found
    }
    return {key: found[key] for key in sorted(found, key=ranks.__getitem__)}


def made_by(runs: Iterable[Run]) -> str:
    """Commits and hardware that made the runs, each named once."""
    provenances = [run.record.provenance for run in runs]
    commits = unique(
        f"commit {made.commit[:7]}{'+dirty' if made.dirty else ''}" if made.commit else "outside git"
        for made in provenances
    )
    devices = [made.device for made in provenances]
    hardware = unique(f"{device.machine}, {device.precision}" for device in devices)
    return f"{', '.join(commits)} · {'; '.join(hardware)}"


def unique(texts: Iterable[str]) -> list[str]:
    """The texts without repetitions, in order of first appearance."""
    return list(dict.fromkeys(texts))


def shown_path(path: Path) -> str:
    """A path as tables print it: relative to the repository if the path lies inside, else absolute."""
    path = path.resolve()
    return (path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path).as_posix()
