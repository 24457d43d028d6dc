"""``dcae-bench schema``: prints the JSON Schema of a profile, a record, a score, a timing or a bundle."""

import json
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from dcae_bench.profile.profile import Profile
from dcae_bench.records.record import Record
from dcae_bench.records.score import ScoreRecord


class Kind(StrEnum):
    """Kinds of files that have a schema."""

    PROFILE = "profile"
    RECORD = "record"
    SCORE = "score"
    THROUGHPUT = "throughput"
    BUNDLE = "bundle"


def schema_text(kind: Kind) -> str:
    """JSON Schema of a kind of file, as workflow/schemas holds it."""
    models: dict[Kind, type[BaseModel]] = {Kind.PROFILE: Profile, Kind.RECORD: Record, Kind.SCORE: ScoreRecord}
    if kind is Kind.THROUGHPUT:
        # An import at the top would double the time that every command takes to start.
        from dcae_bench.measurement.record import ThroughputRecord

        models[kind] = ThroughputRecord
    if kind is Kind.BUNDLE:
        from dcae_bench.tables.bundle.manifest import Manifest

        models[kind] = Manifest
    return json.dumps(models[kind].model_json_schema(), indent=2) + "\n"


def schema(
    kind: Annotated[
        Kind,
        typer.Argument(
            help="profile, record, score, throughput (the record of a timing), or bundle (its bundle.json)."
        ),
    ],
) -> None:
    """Print a JSON Schema. Editors complete and check files with it."""
    typer.echo(schema_text(kind), nl=False)
