"""``dcae-bench schema``: prints the JSON Schema of a profile, a record or a timing."""

import json
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from dcae_bench.profile.profile import Profile
from dcae_bench.records.record import Record


class Kind(StrEnum):
    """Kinds of files that have a schema."""

    PROFILE = "profile"
    RECORD = "record"
    THROUGHPUT = "throughput"


def schema_text(kind: Kind) -> str:
    """JSON Schema of a kind of file, as workflow/schemas holds it."""
    model: type[BaseModel]
    if kind is Kind.THROUGHPUT:
        # An import at the top would double the time that every command takes to start.
        from dcae_bench.measurement.record import ThroughputRecord

        model = ThroughputRecord
    else:
        model = Profile if kind is Kind.PROFILE else Record
    return json.dumps(model.model_json_schema(), indent=2) + "\n"


def schema(
    kind: Annotated[Kind, typer.Argument(help="profile, record or throughput (the record of a timing).")],
) -> None:
    """Print a JSON Schema. Editors complete and check files with it."""
    typer.echo(schema_text(kind), nl=False)
