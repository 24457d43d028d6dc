"""A class of the user's, ``module:Class``: importable from the current folder, as on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcae_bench.errors import ConfigError


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Put the current folder before all others that modules are looked for in."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def is_not_there(module: str, error: ModuleNotFoundError) -> bool:
    """Whether it is the module itself, or a package around it, that was not found, and not something it imports."""
    return f"{module}.".startswith(f"{error.name}.")


def cannot_be_imported(class_name: str, reason: object) -> ConfigError:
    """The error for a class whose module is not there."""
    return ConfigError(
        f"{class_name}: cannot be imported ({reason}); run where {class_name.partition(':')[0]} is importable"
    )


def source_file(class_name: str) -> Path | None:
    """The file of a class's module, which is not imported; packages around it are.

    None where it has none (built in), or where a package around it fails, which importing it will tell. Raises
    :class:`ConfigError` where there is no such module.
    """
    module = class_name.partition(":")[0]
    importlib.invalidate_caches()
    with current_folder_importable():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError as error:
            if is_not_there(module, error):
                raise cannot_be_imported(class_name, error) from error
            return None
        except Exception:  # a package of the user's may fail in any way
            return None
    if found is None:
        raise cannot_be_imported(class_name, f"No module named '{module}'")
    return Path(found.origin) if found.has_location and found.origin else None
