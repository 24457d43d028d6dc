"""Digests: a record holds the hash of its own content, so that a reader notices an edited or damaged file."""

import json
from collections.abc import Mapping
from typing import Any

from dcae_bench.base.files import sha256_json

DIGEST = "digest"
"""Key of a record's digest in its file."""


def digest_of(content: Mapping[str, Any]) -> str:
    """Hash of a record's content as JSON holds it, without its digest."""
    return sha256_json({key: value for key, value in content.items() if key != DIGEST})


def digest_problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the digest in the content of a record's file; None if it fits.

    Records from before digests have none, and they do not state the recipe of their profile either.
    """
    told = content.get(DIGEST)
    if told is None:
        provenance = content.get("provenance")
        stated = isinstance(provenance, dict) and provenance.get("recipe_sha256") is not None
        return "its digest is missing, so it was edited after it was written" if stated else None
    if told != digest_of(content):
        return "its digest is not that of its content, so it was edited or damaged after it was written"
    return None


def with_digest(text: str, indent: int) -> str:
    """The JSON text of a record with its digest as last key; the text is the record's own, so no number moves."""
    content = json.loads(text)
    content.pop(DIGEST, None)
    content[DIGEST] = digest_of(content)
    return json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
