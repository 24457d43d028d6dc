"""``dcae-bench schema``: prints the JSON Schema of a profile or of a record."""

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


MODELS = {Kind.PROFILE: Profile, Kind.RECORD: Record}


def text(kind: Kind) -> str:
    """JSON Schema of the typed class, as workflow/schemas holds it."""
    return json.dumps(MODELS[kind].model_json_schema(), indent=2) + "\n"


def schema(kind: Annotated[Kind, typer.Argument(help="profile or record")]) -> None:
    """Print the JSON Schema of a profile or a record; editors use it to complete and check files."""
    typer.echo(text(kind), nl=False)
