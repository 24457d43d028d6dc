"""YAML files, read strictly and checked against a typed class."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import read_text

Content = TypeVar("Content", bound=BaseModel)


class Loader(yaml.SafeLoader):
    """A safe YAML loader that refuses a repeated key. PyYAML would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping. A key may repeat a key that ``<<`` merges in from an anchor."""
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is repeated", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """Content of a YAML file. Raises :class:`ConfigError` for invalid YAML and OSError for an unreadable file."""
    try:
        return yaml.load(read_text(path), Loader)
    except RecursionError as error:
        raise ConfigError(f"{path}: is not valid YAML (it is nested too deeply); correct it") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it") from error


def read_shipped(path: Path, content: type[Content]) -> Content:
    """Read a YAML file that ships with the project, as an instance of ``content``.

    Raises :class:`ConfigError`, which names the file and the field.
    """
    try:
        return content.model_validate(load_yaml(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); restore it from the repository") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {field + ': ' if field else ''}{reason}; correct it") from error
