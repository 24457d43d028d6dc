"""Evidence of timings: the table and the environment of the records in a folder, written and checked."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dcae_bench.base.errors import UserError
from dcae_bench.base.files import read_bytes, write_text
from dcae_bench.measurement.instruments.environment import Environment
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.tables.files import TWINS
from dcae_bench.tables.throughput.build import MEASURES, STATE, build, find_records, is_record, planned_timings
from dcae_bench.tables.throughput.files import CODE, write
from dcae_bench.tables.throughput.table import ThroughputTable

RECORDS, TABLE, FIGURE, ENVIRONMENT = "records", "table_throughput.md", "throughput.png", "environment.json"


def code_told(folder: Path) -> str | None:
    """Fingerprint that the table in a folder was compared with: another version must not make another table of it."""
    try:
        told = json.loads(read_bytes((folder / TABLE).with_suffix(".json")))[CODE]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the comparison of the files says what is wrong
    return told if isinstance(told, str) else None


def _tells(environment: Path, records: Iterable[ThroughputRecord]) -> bool:
    """Whether a file holds the environments of the records; a later version may write more fields of them."""
    try:
        told = [Environment.model_validate(one) for one in json.loads(environment.read_bytes())]
    except (OSError, ValueError, TypeError):
        return False
    return sorted(one.model_dump_json() for one in told) == sorted(
        {record.environment.model_dump_json() for record in records}
    )


def write_timings(folder: Path) -> ThroughputTable:
    """Write the environment and the table of the timings that lie in a folder's records. Returns the table."""
    records = find_records([folder / RECORDS])
    environments = {record.environment.model_dump_json(): record.environment for record in records}
    listed = [one.model_dump(mode="json") for _, one in sorted(environments.items())]
    write_text(folder / ENVIRONMENT, json.dumps(listed, indent=1) + "\n")
    table = build(records, planned=planned_timings(plan_folders(folder)), code=fingerprint(MEASURES))
    write(table, folder / TABLE)
    return table


def holds_timings(folder: Path) -> bool:
    """Whether a folder of evidence holds records of timings."""
    return any(map(is_record, sorted((folder / RECORDS).rglob("*.json"))))


def plan_folders(folder: Path) -> list[Path]:
    """Folders of evidence in which the state of a plan may lie: its own, and those below its records."""
    return [folder, *(path.parent for path in sorted((folder / RECORDS).rglob(STATE)))]


def check_table(folder: Path, *, required: bool = True) -> Iterator[str]:
    """Differences between a folder of evidence and what its records give: the table, its twins, the environment.

    A folder without any of these files has nothing to compare, unless it holds records of timings and the table is
    ``required`` of it.
    """
    folder = Path(folder)
    bundled = required and holds_timings(folder)
    if not bundled and not any((folder / TABLE).with_suffix(suffix).exists() for suffix in TWINS):
        return
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch) / TABLE
        try:
            records = find_records([folder / RECORDS if (folder / RECORDS).is_dir() else folder])
            write(build(records, planned=planned_timings(plan_folders(folder)), code=code_told(folder)), again)
        except (UserError, OSError, LookupError, TypeError, ValueError, ArithmeticError) as error:
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
