"""Evidence of timings: a sealed folder of records, traces and environment, and the table that follows from them."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dcae_bench.errors import ResultsError, UserError
from dcae_bench.files import write_bytes, write_text
from dcae_bench.measurement import evidence
from dcae_bench.measurement.record import TRACE_SUFFIX, ThroughputRecord
from dcae_bench.tables.throughput import build, find_records, is_record
from dcae_bench.tables.throughput_page import write

RECORDS, TABLE, ENVIRONMENT = "records", "table_throughput.md", "environment.json"
BESIDE = ("plan.json", "probe.json")
"""What a plan leaves beside its records."""


def bundle(measured: Path, root: Path) -> Path:
    """Make ``root/<device>-<date>`` of a folder of records, traces included, and seal it; the new folder.

    Raises :class:`ResultsError` where there are no records, several devices, or such a folder already.
    """
    measured = Path(measured)
    records = find_records([measured])
    folder = Path(root) / name(records)
    if folder.exists():
        raise ResultsError(f"{folder}: is there already; evidence is written once, move it away to write it again")
    made = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    for path in sorted(measured.rglob("*.json")):
        if path.name in BESIDE:
            write_bytes(made / path.name, path.read_bytes())
        elif is_record(path) or path.name.endswith(TRACE_SUFFIX):
            write_bytes(made / RECORDS / path.relative_to(measured), path.read_bytes())
    environments = {record.environment.model_dump_json(): record.environment for record in records}
    listed = [one.model_dump(mode="json") for _, one in sorted(environments.items())]
    write_text(made / ENVIRONMENT, json.dumps(listed, indent=1) + "\n")
    write(build(records), made / TABLE)
    evidence.seal(made)
    made.rename(folder)
    return folder


def name(records: list[ThroughputRecord]) -> str:
    """``<device>-<date>`` of the records, e.g. ``nvidia-h100-80gb-hbm3-2026-01-31``. Raises :class:`ResultsError`."""
    gpus = {record.environment.gpu.name if record.environment.gpu else None for record in records}
    devices = gpus if gpus != {None} else {record.environment.processor for record in records}
    if len(devices) != 1:
        found = ", ".join(sorted(str(device) for device in devices))
        raise ResultsError(f"records of several devices ({found}); bundle those of one device at a time")
    slug = re.sub(r"[^a-z0-9]+", "-", str(devices.pop()).lower()).strip("-")
    return f"{slug}-{max(record.provenance.finished for record in records):%Y-%m-%d}"


def check_table(folder: Path) -> Iterator[str]:
    """Where the table of a folder of evidence is not what its records make; nothing for a folder without a table."""
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
            if not path.exists() or path.read_bytes() != again.with_suffix(suffix).read_bytes():
                yield f"{path.name}: is not what the records make of it"
