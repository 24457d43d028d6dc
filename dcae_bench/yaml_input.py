"""YAML that users write: read strictly, and explained in one line where it does not fit its typed class."""

import difflib
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from dcae_bench.diffusion_spec import ROW_KINDS
from dcae_bench.specs import FAMILIES


class Loader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key instead of taking its last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; keys merged from an anchor may be given again."""
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is repeated", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error in one line, with a suggestion for misspelt keys."""
    # A misspelt key shows up twice, as unknown and as missing; the unknown one tells more.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    field = ".".join(_path(first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key '{field}' (value {first['input']!r}){_suggestion(first['loc'], model)}{more}"
    if first["type"] == "missing":
        return f"key '{field}' is missing; add it (see config/README.md){more}"
    reason = first["msg"].removeprefix("Value error, ")
    if not field and first["type"] == "value_error":  # several keys together, which the reason names
        return f"{reason}{more}"
    field = field or model.__name__
    shown = "" if isinstance(first["input"], dict) else f" is {first['input']!r}:"
    return f"key '{field}'{shown} {reason}{more}"


def _path(location: tuple[Any, ...]) -> list[str]:
    """Keys as the file has them: pydantic adds a model's family and a row's kind, and marks a bad key of a mapping."""
    parts = [str(part) for part in location if part not in ("[key]", *ROW_KINDS)]
    return [
        part for before, part in zip(["", *parts], parts, strict=False) if before != "model" or part not in FAMILIES
    ]


def _suggestion(location: tuple[Any, ...], model: type[BaseModel]) -> str:
    # The right key may be one of the same mapping, or one that belongs elsewhere.
    known = (names for names in (_names_at(model, location[:-1]), _field_names(model, set())))
    close = next(filter(None, (difflib.get_close_matches(str(location[-1]), sorted(n), n=1) for n in known)), None)
    return f"; did you mean '{close[0]}'?" if close else "; remove it or see config/README.md for the known keys"


def _names_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """Field names of the models that a place in the file may hold."""
    places = {model}
    for part in location:
        annotations = [place.model_fields[part].annotation for place in places if part in place.model_fields]
        if annotations:  # else an entry of a mapping or list, or the family that pydantic adds
            places = {found for annotation in annotations for found in _models(annotation)}
    return {name for place in places for name in place.model_fields}


def _models(annotation: Any) -> set[type[BaseModel]]:
    """Models that a type is made of, without those inside them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for part in get_args(annotation) for found in _models(part)}


def _field_names(model: type[BaseModel], seen: set[type]) -> set[str]:
    """Every field name of a model and of the models inside it."""
    if model in seen:
        return set()
    seen.add(model)
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            names |= _field_names(inner, seen)
    return names
