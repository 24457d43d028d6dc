"""The user's own class, ``module:Class``. The current folder is importable, as for ``python`` on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcae_bench.base.errors import ConfigError


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Put the current folder first on ``sys.path``."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def is_missing_module(module: str, error: ModuleNotFoundError) -> bool:
    """Whether the missing module is ``module`` or one of its parent packages, and not something that it imports."""
    return f"{module}.".startswith(f"{error.name}.")


def cannot_be_imported(class_name: str, reason: object) -> ConfigError:
    """Build the error about a class whose module does not exist."""
    return ConfigError(
        f"{class_name}: cannot be imported ({reason}); run where {class_name.partition(':')[0]} is importable"
    )


def source_file(class_name: str) -> Path | None:
    """Path of the module that defines a class. Imports the module's parent packages, not the module.

    Returns None for a built-in module. Also returns None if a parent package fails to import; the later import of the
    class reports that failure. Raises :class:`ConfigError` when the module does not exist.
    """
    module = class_name.partition(":")[0]
    importlib.invalidate_caches()
    with current_folder_importable():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError as error:
            if is_missing_module(module, error):
                raise cannot_be_imported(class_name, error) from error
            return None
        except Exception:  # the user's package may raise any error
            return None
    if found is None:
        raise cannot_be_imported(class_name, f"No module named '{module}'")
    return Path(found.origin) if found.has_location and found.origin else None
