"""Sealed files: JSON files that also hold a hash of their own content, so that an edited number is not believed."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from dcae_bench.base.files import read_bytes, sha256_json, write_text
from dcae_bench.base.typed import Strict

SEAL = "content_sha256"
"""Key of the hash, which covers all other keys of the file."""

Content = TypeVar("Content", bound=Strict)


def write_sealed(path: Path, value: Strict) -> None:
    """Write a typed value as JSON with its seal, atomically. Raises :class:`ResultsError`."""
    content = value.model_dump(mode="json")
    write_text(path, json.dumps({**content, SEAL: sha256_json(content)}, indent=2) + "\n")


def read_sealed(path: Path, kind: type[Content]) -> Content:
    """Read a value that :func:`write_sealed` wrote.

    Raises :class:`OSError` for a file that cannot be read, and :class:`ValueError`, which gives the reason in a few
    words, for other content and for content that changed after it was written.
    """
    try:
        content = json.loads(read_bytes(path))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        seal = content.pop(SEAL, None)
        value = kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error
    except RecursionError as error:
        raise ValueError("too deeply nested") from error
    if seal != sha256_json(content):
        what = "it changed after it was written" if seal else f"it has no {SEAL}, as an older version wrote it"
        raise ValueError(what)
    return value
