"""Writing bundles: copies what was measured, adds tables and figures, and seals the copy."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from dcae_bench.base.errors import CheckError, ResultsError
from dcae_bench.base.files import read_bytes, sha256_file, sync_folder, write_bytes, write_text
from dcae_bench.base.reading import read_json
from dcae_bench.measurement import evidence
from dcae_bench.measurement.record import TRACE_SUFFIX, ThroughputRecord
from dcae_bench.measurement.record import load as load_timing
from dcae_bench.records.digest import digest_of
from dcae_bench.records.score import load_any
from dcae_bench.tables.bundle.accept import examine, is_record_file
from dcae_bench.tables.bundle.manifest import FORMAT, AnyRecord, Manifest, TableName, makers_of, write_manifest
from dcae_bench.tables.bundle.opened import pack, require_safe
from dcae_bench.tables.files import TWINS
from dcae_bench.tables.rebuild import REBUILDERS, runs_of
from dcae_bench.tables.throughput.build import STATE, find_records
from dcae_bench.tables.throughput.build import is_record as is_timing
from dcae_bench.tables.throughput.evidence import FIGURE, RECORDS, holds_timings, write_timings

BESIDE = (STATE, "probe.json")
"""Files that a measurement plan writes beside its records."""
LEFT_OUT = {"reference", "bundles", "runs", "data", "logs", "latent-cache", "samples", "compiled"}
"""Folders of results that hold no record of this run."""


def write_bundle(source: Path, output: Path) -> Path:
    """Bundle a folder of results into a folder, or into a zip if ``output`` ends so. Returns ``output``.

    Raises :class:`ResultsError` if there is nothing to bundle or ``output`` exists, and :class:`CheckError` if
    :func:`examine` would refuse the bundle; nothing is written then.
    """
    output = Path(output)
    _require_new(output)
    if output.suffix != ".zip":
        return _finish(source, output, checked=True)
    with tempfile.TemporaryDirectory(prefix="dcae-bench-bundle-") as scratch:
        folder = _finish(source, Path(scratch) / "bundle", checked=True)
        pack(folder, output)
    return output


def write_evidence(measured: Path, root: Path) -> Path:
    """Bundle the timings of one device into the folder ``root/<device>-<date>``, and return its path.

    Raises :class:`ResultsError` when there are no timings, timings of several devices, or when the folder exists.
    """
    output = Path(root) / _device_and_date(find_records([Path(measured)]))
    _require_new(output)
    return _finish(measured, output, checked=False)


def _finish(source: Path, folder: Path, *, checked: bool) -> Path:
    made = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    try:
        _fill(Path(source), made)
        if checked:
            require_safe(made)
            if refused := examine(made).refused:
                raise CheckError(f"{source}: {refused[0]} ({len(refused)} in all); make its tables again, then bundle")
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    sync_folder(folder.parent)
    return folder


def _fill(source: Path, made: Path) -> None:
    """Copy records, traces, tables and figures, and write what follows from them."""
    from dcae_bench.tables.throughput.figure import throughput_figure  # `verify` needs no matplotlib

    for path in _found(source, ".json"):
        name = path.relative_to(source)
        if path.name in BESIDE and name.parent == Path():
            write_bytes(made / name, read_bytes(path))
        elif path.name in BESIDE or path.name.endswith(TRACE_SUFFIX) or is_record_file(path):
            write_bytes(made / RECORDS / _below(name), read_bytes(path))
    for path in _found(source, ".png"):
        if path.parent in (source, source / "figures") and path.name != FIGURE:
            write_bytes(made / path.relative_to(source), read_bytes(path))
    tables: list[TableName] = []
    for table in REBUILDERS:
        if (source / f"{table}.json").exists():
            tables.append(table)  # type: ignore[arg-type]
            _copy_table(source, table, made)
    if holds_timings(made):
        tables.append("table_throughput")
        throughput_figure(write_timings(made), made / FIGURE, vector=False)
    records = {path.relative_to(made).as_posix(): path for path in _found(made / RECORDS, ".json") if _is_record(path)}
    if not records:
        raise ResultsError(f"{source}: holds no record and no table with records; name a folder of results")
    makers = makers_of(_load(path).provenance for path in records.values())
    hashes = {name: sha256_file(path) for name, path in records.items()}
    write_manifest(Manifest(format=FORMAT, records=hashes, tables=tuple(tables), makers=makers), made)
    evidence.seal(made)


def _copy_table(source: Path, name: str, made: Path) -> None:
    """Copy a table, and write the records that it alone holds."""
    for end in TWINS:
        path = source / f"{name}{end}"
        if not path.exists():
            raise ResultsError(f"{path}: is missing beside the other files of its table; make the table again")
        write_bytes(made / path.name, read_bytes(path))
    try:
        runs = list(runs_of(read_json(source / f"{name}.json")))
        held = {digest_of(read_json(path)) for path in _found(made / RECORDS, ".json") if is_record_file(path)}
        for shown, record in runs:
            if (digest := digest_of(record)) not in held:
                text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
                write_text(made / RECORDS / _name_of(shown, digest), text)
                held.add(digest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{source / name}.json: is not the JSON of a table; make the table again") from error


def _name_of(shown: str, digest: str) -> str:
    """File of a record that only a table holds, from the path that the table prints."""
    path = PurePosixPath(shown.removeprefix("training of "))
    parts = path.parts[1:] if path.parts[:1] == ("results",) else path.parts
    told = parts and not path.is_absolute() and ".." not in parts and path.suffix == ".json"
    return (
        str(PurePosixPath(*parts)) if told and not shown.startswith("training of ") else f"of-tables/{digest[:16]}.json"
    )


def _below(name: Path) -> Path:
    """Place of a file below the folder of records, which it may come from already."""
    return Path(*name.parts[1:]) if name.parts[0] == RECORDS else name


def _found(folder: Path, suffix: str) -> Iterator[Path]:
    """Files below a folder, sorted, without those that no run keeps, hidden ones, and links."""
    for path in sorted(folder.rglob(f"*{suffix}")):
        parts = path.relative_to(folder).parts
        if LEFT_OUT.isdisjoint(parts[:-1]) and not any(part.startswith(".") for part in parts) and path.is_file():
            yield path


def _is_record(path: Path) -> bool:
    return path.name not in BESIDE and is_record_file(path)


def _load(path: Path) -> AnyRecord:
    return load_timing(path) if is_timing(path) else load_any(path)


def _require_new(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise ResultsError(f"{output}: is there already; a bundle is written once, move it away to write it again")


def _device_and_date(records: Iterable[ThroughputRecord]) -> str:
    """``<device>-<date>`` of the records, e.g. ``nvidia-h100-80gb-hbm3-2026-01-31``.

    Raises :class:`ResultsError` for records of several devices.
    """
    records = list(records)
    gpus = {record.environment.gpu.name if record.environment.gpu else None for record in records}
    devices = gpus if gpus != {None} else {record.environment.processor for record in records}
    if len(devices) != 1:
        found = ", ".join(sorted(str(device) for device in devices))
        raise ResultsError(f"records of several devices ({found}); bundle those of one device at a time")
    slug = re.sub(r"[^a-z0-9]+", "-", str(devices.pop()).lower()).strip("-")
    return f"{slug}-{max(record.provenance.finished for record in records):%Y-%m-%d}"
