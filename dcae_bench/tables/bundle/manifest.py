"""The file ``bundle.json``: what a bundle holds, and which code and machines made it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import read_bytes, write_text
from dcae_bench.base.typed import Sha256, Strict
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.records.provenance import Device, Provenance
from dcae_bench.records.record import Record
from dcae_bench.records.score import ScoreRecord

MANIFEST = "bundle.json"
FORMAT: Literal["dcae-bench/bundle-v1"] = "dcae-bench/bundle-v1"
AnyRecord = Record | ScoreRecord | ThroughputRecord
TableName = Literal["table_rfid", "table_diffusion", "table_ablation", "table_throughput"]
RecordFile = Annotated[str, Field(pattern=r"^records/([^./\\][^/\\]*/)*[^./\\][^/\\]*\.json$", max_length=400)]
"""A file below the folder of records; no part of its name starts with a dot, so none leads out of the folder."""


class Maker(Strict):
    """A machine with the versions of its libraries."""

    device: Device
    versions: dict[str, str]


class Manifest(Strict):
    """Content of ``bundle.json``."""

    format: Literal["dcae-bench/bundle-v1"]
    records: dict[RecordFile, Sha256] = Field(
        min_length=1,
        description="every record of the bundle: its file, and the SHA-256 of the file",
        json_schema_extra={"additionalProperties": False},
    )
    tables: tuple[TableName, ...] = Field(
        default=(), description="tables of the bundle; each lies there as .md, .csv and .json"
    )
    makers: tuple[Maker, ...] = Field(
        min_length=1, description="machines that the provenance of the records names, each once, in any order"
    )


def makers_of(made: Iterable[Provenance]) -> tuple[Maker, ...]:
    """The machines of some records, each once, sorted."""
    found = {one.model_dump_json(): one for one in (Maker(device=each.device, versions=each.versions) for each in made)}
    return tuple(found[text] for text in sorted(found))


def read_manifest(folder: Path) -> Manifest:
    """Read ``bundle.json``. Raises :class:`ResultsError`."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(read_bytes(path))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); name what `dcae-bench bundle` wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its text"
        raise ResultsError(f"{path}: is no list of a bundle ({where}: {first['msg']}); restore the file") from error


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``bundle.json``, atomically."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
