"""Evidence of timings: a sealed folder with records, traces, the environment, and the table and figure of them."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dcae_bench.base.errors import ResultsError, UserError
from dcae_bench.base.files import read_bytes, sync_folder, write_bytes, write_text
from dcae_bench.measurement import evidence
from dcae_bench.measurement.instruments.environment import Environment
from dcae_bench.measurement.record import TRACE_SUFFIX, ThroughputRecord
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.tables.throughput.build import MEASURES, STATE, build, find_records, is_record, planned_timings
from dcae_bench.tables.throughput.files import CODE, write

RECORDS, TABLE, FIGURE, ENVIRONMENT = "records", "table_throughput.md", "throughput.png", "environment.json"
TWINS = (".md", ".csv", ".json")
BESIDE = (STATE, "probe.json")
"""Files that a measurement plan writes beside its records."""


def bundle(measured: Path, root: Path) -> Path:
    """Copy a folder of records and traces to ``root/<device>-<date>``, seal the copy, and return its path.

    Raises :class:`ResultsError` when there are no records, records of several devices, or when the new folder exists.
    """
    from dcae_bench.tables.throughput.figure import throughput_figure  # `verify` needs no matplotlib

    measured = Path(measured)
    records = find_records([measured])
    folder = Path(root) / _folder_name(records)
    if folder.exists():
        raise ResultsError(f"{folder}: is there already; evidence is written once, move it away to write it again")
    made = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    for path in sorted(measured.rglob("*.json")):
        if path.name in BESIDE:
            write_bytes(made / path.name, read_bytes(path))
        elif is_record(path) or path.name.endswith(TRACE_SUFFIX):
            write_bytes(made / RECORDS / path.relative_to(measured), read_bytes(path))
    write_text(made / ENVIRONMENT, _environments(records))
    table = build(records, planned=planned_timings([made]), code=fingerprint(MEASURES))
    write(table, made / TABLE)
    throughput_figure(table, made / FIGURE)
    evidence.seal(made)
    made.rename(folder)
    sync_folder(folder.parent)
    return folder


def code_told(folder: Path) -> str | None:
    """Fingerprint that the table in a folder was compared with: another version must not make another table of it."""
    try:
        told = json.loads(read_bytes((folder / TABLE).with_suffix(".json")))[CODE]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the comparison of the files says what is wrong
    return told if isinstance(told, str) else None


def _environments(records: Iterable[ThroughputRecord]) -> str:
    """The environments of the records, each once, as JSON."""
    environments = {record.environment.model_dump_json(): record.environment for record in records}
    listed = [one.model_dump(mode="json") for _, one in sorted(environments.items())]
    return json.dumps(listed, indent=1) + "\n"


def _tells(environment: Path, records: Iterable[ThroughputRecord]) -> bool:
    """Whether a file holds the environments of the records; a later version may write more fields of them."""
    try:
        told = [Environment.model_validate(one) for one in json.loads(environment.read_bytes())]
    except (OSError, ValueError, TypeError):
        return False
    return sorted(one.model_dump_json() for one in told) == sorted(
        {record.environment.model_dump_json() for record in records}
    )


def _folder_name(records: list[ThroughputRecord]) -> str:
    """``<device>-<date>`` of the records, e.g. ``nvidia-h100-80gb-hbm3-2026-01-31``.

    Raises :class:`ResultsError` for records of several devices.
    """
    gpus = {record.environment.gpu.name if record.environment.gpu else None for record in records}
    devices = gpus if gpus != {None} else {record.environment.processor for record in records}
    if len(devices) != 1:
        found = ", ".join(sorted(str(device) for device in devices))
        raise ResultsError(f"records of several devices ({found}); bundle those of one device at a time")
    slug = re.sub(r"[^a-z0-9]+", "-", str(devices.pop()).lower()).strip("-")
    return f"{slug}-{max(record.provenance.finished for record in records):%Y-%m-%d}"


def check_table(folder: Path) -> Iterator[str]:
    """Differences between a folder of evidence and what its records give: the table, its twins, the environment.

    A folder without any of these files, and without the folder of records that a bundle has, has nothing to compare.
    """
    folder = Path(folder)
    bundled = (folder / RECORDS).is_dir()
    if not bundled and not any((folder / TABLE).with_suffix(suffix).exists() for suffix in TWINS):
        return
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch) / TABLE
        try:
            records = find_records([folder / RECORDS if bundled else folder])
            write(build(records, planned=planned_timings([folder]), code=code_told(folder)), again)
        except (UserError, OSError) as error:
            yield f"{TABLE}: cannot be built again ({error})"
            return
        for suffix in TWINS:
            path = (folder / TABLE).with_suffix(suffix)
            if not path.exists():
                yield f"{path.name}: is missing beside the other files of its table"
            elif read_bytes(path) != again.with_suffix(suffix).read_bytes():
                yield f"{path.name}: is not what the records make of it"
        environment = folder / ENVIRONMENT
        if bundled and not environment.exists():
            yield f"{ENVIRONMENT}: is missing"
        elif environment.exists() and not _tells(environment, records):
            yield f"{ENVIRONMENT}: is not what the records say"
