"""A class of the user's, ``module:Class``: importable from the current folder, as on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Put the current folder before all others that modules are looked for in."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def source_file(class_name: str) -> Path | None:
    """The file of a class's module, which is not imported; packages around it are.

    None where it has none (built in), or where a package around it fails, which importing it will tell. Raises
    :class:`ModuleNotFoundError`.
    """
    module = class_name.partition(":")[0]
    importlib.invalidate_caches()
    with current_folder_importable():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError as error:
            if f"{module}.".startswith(f"{error.name}."):
                raise
            return None
        except Exception:  # a package of the user's may fail in any way
            return None
    if found is None:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)
    return Path(found.origin) if found.has_location and found.origin else None
