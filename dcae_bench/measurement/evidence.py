"""Evidence: a folder of records and traces with the hash of every file, whose numbers anyone can derive again.

``sha256sum --check`` reads the list of hashes, so a reader can check the hashes without our code.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from dcae_bench.base.errors import MeasurementError, ResultsError, UserError
from dcae_bench.base.files import read_bytes, read_text, sha256_file, write_text
from dcae_bench.measurement.instruments.energy import energy_of
from dcae_bench.measurement.instruments.gate import judge
from dcae_bench.measurement.instruments.nvml import read_trace
from dcae_bench.measurement.record import Restart, ThroughputRecord, derive, load

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_THROUGHPUT = re.compile(rb'"kind"\s*:\s*"throughput"')


@dataclass(frozen=True)
class Findings:
    """Result of checking a folder of evidence."""

    files: int
    records: int
    problems: tuple[str, ...]


def seal(folder: Path) -> int:
    """Write the hash of every file of ``folder``. Returns the number of files. Raises :class:`MeasurementError`."""
    folder = Path(folder)
    if (folder / SUMS).exists():
        raise MeasurementError(f"{folder / SUMS}: is there already; evidence is sealed once, delete it to seal again")
    names = list(_files(folder))
    if not names:
        raise MeasurementError(f"{folder}: holds no files; name a folder of records")
    write_text(folder / SUMS, "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names))
    return len(names)


def verify(folder: Path) -> Findings:
    """Check the hash of every file, and derive the numbers of every timing again. Raises :class:`MeasurementError`."""
    folder = Path(folder)
    hashes, numbers = list(check_hashes(folder)), list(check_timings(folder))
    return Findings(
        files=len(_read_hashes(folder / SUMS)),
        records=len(numbers),
        problems=(*hashes, *(problem for found in numbers for problem in found)),
    )


def check_hashes(folder: Path) -> Iterator[str]:
    """Files that are missing, were added, or have another hash than the list. Raises :class:`MeasurementError`."""
    listed, present = _read_hashes(folder / SUMS), set(_files(folder))
    for name in sorted(listed.keys() | present):
        if name not in present:
            yield f"{name}: is missing"
        elif name not in listed:
            yield f"{name}: is not in {SUMS}"
        elif sha256_file(folder / name) != listed[name]:
            yield f"{name}: has another hash than {SUMS} holds"


def check_timings(folder: Path) -> Iterator[list[str]]:
    """For each record of a timing below a folder the numbers that do not follow from its samples."""
    for name in _files(folder):
        path = folder / name
        if path.suffix == ".json" and _THROUGHPUT.search(read_bytes(path)):
            try:
                yield [f"{name}: {text}" for text in check_record(load(path), path.parent)]
            except ResultsError as error:
                yield [str(error).removeprefix(f"{folder}/")]
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # numbers that no timing has
                yield [f"{name}: no numbers follow from its samples ({error})"]


def check_record(record: ThroughputRecord, folder: Path) -> Iterator[str]:
    """Problems of a record whose numbers do not follow from its samples. ``folder`` holds the record's traces."""
    if record.derived is None:
        return
    anew = derive(record.restarts, record.images_per_iteration, record.flops_per_image)
    if not _equal_up_to_rounding(anew, record.derived):
        found, told = anew.images_per_s.value, record.derived.images_per_s.value
        yield f"its numbers do not follow from its samples (images/s: {found:.6g} derived, {told:.6g} recorded)"
    for number, restart in enumerate(record.restarts, 1):
        try:
            yield from (f"restart {number}: {text}" for text in _check_restart(restart, folder))
        except UserError as error:
            yield f"restart {number}: {error}"


def _check_restart(restart: Restart, folder: Path) -> Iterator[str]:
    if restart.trace is not None and Path(restart.trace).name != restart.trace:
        yield f"its trace {restart.trace!r} is not the name of a file beside it"
        return
    trace = None if restart.trace is None else read_trace(folder / restart.trace)
    gate = judge([restart.series], trace=trace, host=restart.host, pid=restart.pid, energy=restart.energy)
    judged, told = ((one.state, *sorted(reason.kind for reason in one.reasons)) for one in (gate, restart.gate))
    if judged != told:
        yield f"the gate says {', '.join(judged)} of what was recorded, not {', '.join(told)}"
    energy = restart.energy
    if energy.energy_j is not None:
        if trace is None or energy.start_s is None:
            yield "its energy has no trace"
        elif not _equal_up_to_rounding(
            energy_of(trace, energy.start_s, energy.start_s + energy.seconds, energy.iterations), energy
        ):
            yield "its energy does not follow from the trace"


def _read_hashes(path: Path) -> dict[str, str]:
    """The listed hashes by file name. Raises :class:`MeasurementError`."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"{path}: cannot be read; name a folder that `verify --seal` sealed") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not (match := _LINE.fullmatch(line)):
            raise MeasurementError(f"{path}: line {number} is not a hash and a file; restore the file")
        found[match[2]] = match[1]
    return found


def _files(folder: Path) -> Iterator[str]:
    """Every file below ``folder`` except the list of hashes. Raises :class:`MeasurementError` if it is no folder."""
    if not folder.is_dir():
        raise MeasurementError(f"{folder}: is not a folder; name a folder of evidence")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != SUMS:
            yield name


def _equal_up_to_rounding(a: object, b: object) -> bool:
    """Whether two values are equal except for the last digits, which another library version may round differently."""
    if isinstance(a, BaseModel):
        a, b = a.model_dump(), b.model_dump() if isinstance(b, BaseModel) else b
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal_up_to_rounding(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal_up_to_rounding, a, b))
    return a == b
