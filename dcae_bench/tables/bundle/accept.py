"""Acceptance: whether a bundle is what its records say, with the reason in one line for each thing that is not."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

from dcae_bench.base.errors import UserError
from dcae_bench.base.files import read_bytes, sha256_file
from dcae_bench.base.reading import parse_json, read_json
from dcae_bench.measurement import evidence
from dcae_bench.measurement.record import TRACE_SUFFIX, ThroughputRecord
from dcae_bench.measurement.record import load as load_timing
from dcae_bench.measurement.workloads.recipes import RECIPES, RETIRED
from dcae_bench.records.digest import digest_of
from dcae_bench.records.record import SCORE, Kind
from dcae_bench.records.score import load_any
from dcae_bench.specs.protocols import RECORDED
from dcae_bench.tables.bundle.manifest import MANIFEST, AnyRecord, Manifest, TableName, makers_of, read_manifest
from dcae_bench.tables.bundle.opened import require_kinds
from dcae_bench.tables.files import TWINS
from dcae_bench.tables.rebuild import check_tables, runs_of
from dcae_bench.tables.throughput.build import START
from dcae_bench.tables.throughput.evidence import ENVIRONMENT, RECORDS, check_table

KNOWN = {*RECORDED, *RETIRED, *(recipe.protocol for recipe in RECIPES.values())}
"""Protocols that this code knows, of today and of former versions."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(rf'"kind":"(?:{"|".join((*get_args(Kind), SCORE, "throughput"))})"'.encode())


class Reason(StrEnum):
    """Why something is not accepted."""

    FILE = "changed file"
    NUMBER = "changed number"
    TABLE = "changed table"
    PROTOCOL = "foreign protocol"
    MISSING = "missing record"
    CODE = "code unknown"
    GATE = "gate not good"


@dataclass(frozen=True)
class Problem:
    """One thing that is not accepted."""

    reason: Reason
    text: str
    """The file, and what is wrong with it."""

    def __str__(self) -> str:
        return f"{self.reason}: {' '.join(self.text.split())}"


@dataclass(frozen=True)
class Examined:
    """What the examination of a bundle found."""

    files: int
    records: Mapping[str, AnyRecord]
    """Records that could be read, by their files."""
    tables: int
    refused: tuple[Problem, ...]
    """Why the bundle as a whole is refused; empty for one that is accepted."""
    told: tuple[Problem, ...]
    """Timings of a machine that was disturbed: the bundle stands, and these rows are accepted nowhere."""


def is_record_file(path: Path) -> bool:
    """Whether a JSON file starts like a record of any kind. Raises OSError."""
    if path.suffix != ".json" or path.name.endswith(TRACE_SUFFIX):
        return False
    return _KIND.search(b"".join(read_bytes(path)[:START].split())) is not None


def examine(folder: Path) -> Examined:
    """Examine a bundle. Raises :class:`ResultsError` and :class:`MeasurementError` for what is no bundle at all."""
    manifest = read_manifest(folder)
    require_kinds(folder)
    records: dict[str, AnyRecord] = {}
    refused = [Problem(Reason.FILE, text) for text in evidence.check_hashes(folder)]
    refused += _check_listed(folder, manifest)
    for name in manifest.records:
        if not (folder / name).is_file():
            continue
        try:
            content = read_json(folder / name)
            timed = isinstance(content, dict) and content.get("kind") == "throughput"
            records[name] = load_timing(folder / name) if timed else load_any(folder / name)
        except (OSError, ValueError, UserError) as error:
            refused.append(Problem(Reason.NUMBER, f"{name}: {str(error).removeprefix(f'{folder / name}: ')}"))
    refused += [Problem(Reason.NUMBER, text) for found in evidence.check_timings(folder) for text in found]
    refused += [problem for name, record in records.items() for problem in _check_origin(name, record)]
    if len(records) == len(manifest.records):
        refused += _check_makers(manifest, records)
    refused += _check_tables(folder, manifest)
    told = tuple(
        Problem(Reason.GATE, f"{name}: its gate is {record.derived.gate.state} ({_reasons(record)})")
        for name, record in records.items()
        if isinstance(record, ThroughputRecord) and record.derived and record.derived.gate.state != "good"
    )
    files = sum(path.is_file() for path in folder.rglob("*"))
    # Whoever reads a reason knows the bundle, not where it was unpacked.
    shown = (Problem(problem.reason, problem.text.replace(f"{folder}/", "")) for problem in refused)
    return Examined(files, records, len(manifest.tables), tuple(dict.fromkeys(shown)), told)


def _check_listed(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Records that the list names and the bundle lacks, and the other way round."""
    for name, sha256 in manifest.records.items():
        if not (folder / name).is_file():
            yield Problem(Reason.MISSING, f"{name}: is in {MANIFEST} and not in the bundle")
        elif sha256_file(folder / name) != sha256:
            yield Problem(Reason.FILE, f"{name}: has another hash than {MANIFEST} holds")
    for path in sorted((folder / RECORDS).rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        if name not in manifest.records and is_record_file(path):
            yield Problem(Reason.FILE, f"{name}: is a record that {MANIFEST} does not list")


def _check_origin(name: str, record: AnyRecord) -> Iterator[Problem]:
    """A record of a protocol that nobody here knows, or of code that nobody can name."""
    if record.protocol not in KNOWN:
        yield Problem(Reason.PROTOCOL, f"{name}: {record.protocol!r} is none of {', '.join(sorted(KNOWN))}")
    made = record.provenance
    if not _COMMIT.fullmatch(made.commit or ""):
        yield Problem(Reason.CODE, f"{name}: states no commit ({made.commit!r}); measure in a git checkout")
    if not _SHA256.fullmatch(made.code_sha256):
        yield Problem(Reason.CODE, f"{name}: its code_sha256 {made.code_sha256!r} is no hash of code")


def _check_makers(manifest: Manifest, records: Mapping[str, AnyRecord]) -> Iterator[Problem]:
    told = {maker.model_dump_json() for maker in manifest.makers}
    if told != {maker.model_dump_json() for maker in makers_of(record.provenance for record in records.values())}:
        yield Problem(Reason.FILE, f"{MANIFEST}: its makers are not the machines that the records name")


def _check_tables(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Tables that are missing, that were added, or that the records do not make, byte by byte."""
    for name in get_args(TableName):
        there = [end for end in TWINS if (folder / f"{name}{end}").exists()]
        if name in manifest.tables and not there:
            yield Problem(Reason.TABLE, f"{name}.json: is in {MANIFEST} and not in the bundle")
        if there and name not in manifest.tables:
            yield Problem(Reason.TABLE, f"{name}{there[0]}: is a table that {MANIFEST} does not list")
        if there and name != "table_throughput":
            yield from _check_runs(folder, f"{name}.json", manifest)
    for text in check_table(folder, required="table_throughput" in manifest.tables):
        yield Problem(Reason.FILE if text.startswith(ENVIRONMENT) else Reason.TABLE, text)
    for text in check_tables(folder):
        yield Problem(Reason.TABLE, text)


def _check_runs(folder: Path, table: str, manifest: Manifest) -> Iterator[Problem]:
    """Records that a table holds and the bundle does not."""
    held = {sha256 for name in manifest.records if (sha256 := _content_sha256(folder / name)) is not None}
    try:
        runs = [(str(path), digest_of(record)) for path, record in runs_of(read_json(folder / table))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # the comparison of the table says what is wrong
    for path, digest in runs:
        if digest not in held:
            yield Problem(Reason.MISSING, f"{table}: holds {path[:200]}, and no file of the bundle is that record")


def _content_sha256(path: Path) -> str | None:
    try:
        return digest_of(parse_json(read_bytes(path)))
    except (OSError, ValueError, AttributeError):
        return None


def _reasons(record: ThroughputRecord) -> str:
    gate: Any = record.derived and record.derived.gate
    return "; ".join(reason.text for reason in gate.reasons) or "no reason given"
