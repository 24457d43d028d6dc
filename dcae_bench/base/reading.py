"""Reading of files from outside: damaged bytes give an OSError or a ValueError, and nothing else.

The libraries also raise EOFError for an empty file (which the command line would take for Ctrl-D), RecursionError for
deep nesting, MemoryError for a header that claims too much, and more.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dcae_bench.base.files import read_bytes, require_regular_file

Array = TypeVar("Array", bound=np.ndarray)


def read_json(path: Path) -> Any:
    """Content of a JSON file (UTF-8). Raises OSError and ValueError."""
    return parse_json(read_bytes(path))


def parse_json(text: str | bytes) -> Any:
    """Content of a JSON text (UTF-8). Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def load_array(path: Path) -> np.ndarray:
    """Read a ``.npy`` file. Pickled objects are refused. Raises OSError and ValueError."""
    return _load(path, np.ndarray)


def map_array(path: Path) -> np.memmap:
    """Map a ``.npy`` file into memory. Raises OSError and ValueError."""
    return _load(path, np.memmap, mmap_mode="r")


def _load(path: Path, kind: type[Array], **options: Any) -> Array:
    require_regular_file(path)
    try:
        found = np.load(path, allow_pickle=False, **options)
    except (OSError, ValueError):
        raise
    except Exception as error:  # NumPy's reader raises many kinds of errors for damaged bytes
        raise ValueError(_reason(error)) from error
    if not isinstance(found, kind):
        found.close()
        raise ValueError("is an archive of several arrays")
    return found


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the arrays ``names`` of a ``.npz`` file; those that it lacks are left out. Raises OSError and ValueError."""
    require_regular_file(path)
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("is one array, not an archive of arrays")
        with found:
            return {name: found[name] for name in names if name in found}
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
