"""``dcae-bench schema``: prints the JSON Schema of a profile, a record or a timing."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from dcae_bench.config import Profile
from dcae_bench.records import Record


class Kind(StrEnum):
    """What has a schema."""

    PROFILE = "profile"
    RECORD = "record"
    THROUGHPUT = "throughput"


def text(kind: Kind) -> str:
    """JSON Schema of the typed class, as workflow/schemas holds it."""
    if kind is Kind.THROUGHPUT:
        # Imported late: its statistics would double the time that every command takes to start.
        from dcae_bench.measurement.record import ThroughputRecord as Model
    else:
        Model = {Kind.PROFILE: Profile, Kind.RECORD: Record}[kind]
    return json.dumps(Model.model_json_schema(), indent=2) + "\n"


def schema(kind: Annotated[Kind, typer.Argument(help="profile, record or throughput")]) -> None:
    """Print the JSON Schema of a profile, a record or a timing; editors use it to complete and check files."""
    typer.echo(text(kind), nl=False)
