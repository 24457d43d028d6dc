"""Gathering: the records of a table, each held against its files, its kind, and what its profile asks for now."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.planning.meaning import UNSTATED, Meaning, Meanings, require_kind
from dcae_bench.profile.profile import Profile
from dcae_bench.records.record import Kind, Record, load
from dcae_bench.tables.per_image import check_per_image
from dcae_bench.tables.runs import Holdings

OTHER = "--other-configurations"
"""Option that also shows records of another configuration."""


@dataclass(frozen=True)
class Gathered:
    """The records that a table is built of."""

    records: dict[Path, Record]
    """Records of the profile itself."""
    beside: dict[Path, Record]
    """Records of other profiles."""
    holdings: Holdings

    def complaints(self) -> Iterator[str]:
        """One line for each record that is left out."""
        for path, reasons in self.holdings.left_out.items():
            yield f"{path} is left out: {'; '.join(reasons)}; delete it and run again, or pass {OTHER}"
        for path, problem in self.holdings.damaged.items():
            yield f"{path} is left out: {problem}"


def gather(
    profile: Profile,
    data: Path,
    *,
    records: Iterable[Path],
    beside: Iterable[Path],
    kinds: tuple[Kind, ...],
    expected: Iterable[str],
    others: bool,
) -> Gathered:
    """Read records and leave out those that are not what their profile asks for now; ``others`` keeps and marks them.

    ``beside`` are records of other profiles. They get the same checks against their own profile; those that cannot be
    checked, because they are older or their profile is not in ``config/``, stay and are marked. One that is damaged or
    of another kind is named and left out. ``data`` is the folder
    of the profile's prepared data, ``kinds`` are those that the table has a place for, and ``expected`` the names of
    the measurements that the profile asks for. Raises :class:`ResultsError` for a record of the profile that
    contradicts itself or the files beside it, and for one of another kind.
    """
    own, checked = {}, {}
    for path in records:
        own[path], checked[path] = _read(path, kinds)
    other, damaged = {}, {}
    for path in beside:
        try:
            other[path], checked[path] = _read(path, kinds)
        except ResultsError as error:
            damaged[path] = str(error).removeprefix(f"{path}: ")
    unchecked = tuple(path for path, is_checked in checked.items() if not is_checked)
    meanings = Meanings(Meaning(profile, data))
    left_out: dict[Path, tuple[str, ...]] = {}
    doubts: dict[Path, tuple[str, ...]] = {}
    for path, record in (own | other).items():
        reasons = meanings.differences(record, path)
        if not reasons or (path in own and record.profile != profile.name):
            continue  # the builder refuses a record of another profile
        if others or (path not in own and (reasons == (UNSTATED,) or meanings.of(record, path) is None)):
            doubts[path] = reasons
        else:
            left_out[path] = reasons
    holdings = Holdings(tuple(expected), left_out, doubts, unchecked, damaged)
    return Gathered(_without(own, left_out), _without(other, left_out), holdings)


def _read(path: Path, kinds: tuple[Kind, ...]) -> tuple[Record, bool]:
    """A record of one of the kinds, and whether it was held against the values of each image, if it needs to be.

    Raises :class:`ResultsError`.
    """
    record = load(path)
    require_kind({path: record}, *kinds)
    return record, check_per_image(path, record) or record.kind != "reconstruction"


def _without(records: Mapping[Path, Record], left_out: Mapping[Path, object]) -> dict[Path, Record]:
    return {path: record for path, record in records.items() if path not in left_out}
