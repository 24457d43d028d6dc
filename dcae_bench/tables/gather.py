"""Gathering: the records of a table, each held against its files, its kind, and what its profile asks for now."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dcae_bench.base.errors import ConfigError
from dcae_bench.planning.meaning import UNSTATED, Meaning, require_kind
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.records.places import Places
from dcae_bench.records.record import Kind, Record
from dcae_bench.tables.per_image import check_per_image
from dcae_bench.tables.runs import Holdings, load_records

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
    checked, because they are older or their profile is not in ``config/``, stay and are marked. ``data`` is the folder
    of the profile's prepared data, ``kinds`` are those that the table has a place for, and ``expected`` the names of
    the measurements that the profile asks for. Raises :class:`ResultsError` for a record that contradicts itself or
    the files beside it, and for one of another kind.
    """
    own, other = load_records(records), load_records(beside)
    require_kind(own | other, *kinds)
    unchecked = tuple(path for path, made in (own | other).items() if not _is_checked(path, made))
    meanings: dict[str, Meaning | None] = {profile.name: Meaning(profile, data)}
    left_out: dict[Path, tuple[str, ...]] = {}
    doubts: dict[Path, tuple[str, ...]] = {}
    for path, record in (own | other).items():
        reasons = _differences(record, path, meanings)
        if not reasons or (path in own and record.profile != profile.name):
            continue  # the builder refuses a record of another profile
        if others or (path not in own and (reasons == (UNSTATED,) or meanings[record.profile] is None)):
            doubts[path] = reasons
        else:
            left_out[path] = reasons
    holdings = Holdings(tuple(expected), left_out, doubts, unchecked)
    return Gathered(_without(own, left_out), _without(other, left_out), holdings)


def _is_checked(path: Path, record: Record) -> bool:
    return check_per_image(path, record) or record.kind != "reconstruction"


def _differences(record: Record, path: Path, meanings: dict[str, Meaning | None]) -> tuple[str, ...]:
    """In what a record is not what its profile asks for now. ``meanings`` are the profiles seen so far, by name."""
    name = record.profile
    if name not in meanings:
        meanings[name] = _meaning(name, path)
    meaning = meanings[name]
    if meaning is None:
        return (f"its profile {name} is not in config/, so its configuration was not checked",)
    return meaning.differences(record, path)


def _meaning(name: str, record: Path) -> Meaning | None:
    """Meaning of another profile, with the data beside its record; None if there is no such profile."""
    try:
        profile = load_profile(name)
    except ConfigError:
        return None
    places = Places.around(record) or Places.of(name)
    return Meaning(profile, Path(places.own.data)) if profile.name == name else None


def _without(records: Mapping[Path, Record], left_out: Mapping[Path, object]) -> dict[Path, Record]:
    return {path: record for path, record in records.items() if path not in left_out}
