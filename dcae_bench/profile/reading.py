"""Error messages for profiles: one line that explains why a user's YAML does not fit the typed class."""

import difflib
import reprlib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dcae_bench.profile.diffusion import ROW_KINDS
from dcae_bench.specs.autoencoders import FAMILIES

LONGEST = 600
"""Length in characters at which an explanation is cut: a value may be a whole file."""
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error in one line, with a suggestion for misspelt keys."""
    text = " ".join(_explain(error, model).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    # A misspelt key gives two problems, an unknown key and a missing one. The unknown key tells the user more.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    field = ".".join(_path(first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key '{field}' (value {_shown(first['input'])}){_suggestion(first['loc'], model)}{more}"
    if first["type"] == "missing":
        return f"key '{field}' is missing; add it (see config/README.md){more}"
    reason = first["msg"].removeprefix("Value error, ")
    if not field and first["type"] == "value_error":  # the problem is about several keys, which the reason names
        return f"{reason}{more}"
    field = field or model.__name__
    shown = "" if isinstance(first["input"], dict) else f" is {_shown(first['input'])}:"
    return f"key '{field}'{shown} {reason}{more}"


def _shown(value: object) -> str:
    """A value as Python writes it, cut if it is long."""
    try:
        return _repr.repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return "a very large number"


def _path(location: tuple[Any, ...]) -> list[str]:
    """Keys as they stand in the file, without what pydantic adds: a model's family, a row's kind and "[key]"."""
    parts = [str(part) for part in location if part not in ("[key]", *ROW_KINDS)]
    return [
        part for before, part in zip(["", *parts], parts, strict=False) if before != "model" or part not in FAMILIES
    ]


def _suggestion(location: tuple[Any, ...], model: type[BaseModel]) -> str:
    # Look for a similar key in the same mapping first, then in the whole profile.
    known = (names for names in (_names_at(model, location[:-1]), _field_names(model, set())))
    close = next(filter(None, (difflib.get_close_matches(str(location[-1]), sorted(n), n=1) for n in known)), None)
    return f"; did you mean '{close[0]}'?" if close else "; remove it or see config/README.md for the known keys"


def _names_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """Field names of the models that may stand at a location in the file."""
    places = {model}
    for part in location:
        annotations = [place.model_fields[part].annotation for place in places if part in place.model_fields]
        if annotations:  # none for an entry of a mapping or list, and for the family that pydantic adds
            places = {found for annotation in annotations for found in _models(annotation)}
    return {name for place in places for name in place.model_fields}


def _models(annotation: Any) -> set[type[BaseModel]]:
    """Models that an annotation names, without the models of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for part in get_args(annotation) for found in _models(part)}


def _field_names(model: type[BaseModel], seen: set[type]) -> set[str]:
    """All field names of a model and of the models inside it."""
    if model in seen:
        return set()
    seen.add(model)
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            names |= _field_names(inner, seen)
    return names
