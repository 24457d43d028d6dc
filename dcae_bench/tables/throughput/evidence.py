"""Evidence of timings: a sealed folder with records, traces, the environment, and the table made from the records."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dcae_bench.base.errors import ResultsError, UserError
from dcae_bench.base.files import read_bytes, sync_folder, write_bytes, write_text
from dcae_bench.measurement import evidence
from dcae_bench.measurement.record import TRACE_SUFFIX, ThroughputRecord
from dcae_bench.tables.throughput.build import build, find_records, is_record
from dcae_bench.tables.throughput.files import write

RECORDS, TABLE, ENVIRONMENT = "records", "table_throughput.md", "environment.json"
BESIDE = ("plan.json", "probe.json")
"""Files that a measurement plan writes beside its records."""


def bundle(measured: Path, root: Path) -> Path:
    """Copy a folder of records and traces to ``root/<device>-<date>``, seal the copy, and return its path.

    Raises :class:`ResultsError` when there are no records, records of several devices, or when the new folder exists.
    """
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
    environments = {record.environment.model_dump_json(): record.environment for record in records}
    listed = [one.model_dump(mode="json") for _, one in sorted(environments.items())]
    write_text(made / ENVIRONMENT, json.dumps(listed, indent=1) + "\n")
    write(build(records), made / TABLE)
    evidence.seal(made)
    made.rename(folder)
    sync_folder(folder.parent)
    return folder


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
    """Differences between the table in a folder of evidence and the table its records give; none without a table."""
    folder = Path(folder)
    if not (folder / TABLE).exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch) / TABLE
        try:
            write(build(find_records([folder / RECORDS])), again)
        except (UserError, OSError) as error:
            yield f"{TABLE}: cannot be built again ({error})"
            return
        for suffix in (".md", ".csv", ".json"):
            path = (folder / TABLE).with_suffix(suffix)
            if not path.exists() or read_bytes(path) != again.with_suffix(suffix).read_bytes():
                yield f"{path.name}: is not what the records make of it"
