"""Pickles of weights: their tensors are read, and no code in them is run.

Checkpoints of trainers hold more than tensors, for example the callbacks of PyTorch Lightning. torch's own reader then
refuses the whole file. Here every class that tensors do not need becomes :class:`Inert`, which keeps nothing.
"""

import collections
import logging
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

TENSORS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("builtins", "set"): set,
}
"""What a pickle of tensors may call."""


class Inert:
    """Stands for an object of a class that is not loaded: takes whatever a pickle does to it, and does nothing."""

    def __new__(cls, *args: Any, **keywords: Any) -> "Inert":
        """Ignore what the object would be made of."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **keywords: Any):
        pass

    def __call__(self, *args: Any, **keywords: Any) -> "Inert":
        """Stand for whatever a call would return."""
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Ignore an item of a list."""

    def extend(self, values: object) -> None:
        """Ignore items of a list."""

    def add(self, value: object) -> None:
        """Ignore an item of a set."""


def load_pickle(path: Path) -> object:
    """Read what ``torch.save`` wrote, without running code in it. Raises whatever torch's reader raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        warnings.filterwarnings("ignore", ".*TorchScript archive")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            # Other classes than those of tensors, or another protocol of pickles than torch's own.
            return _load_tensors(path)


def _load_tensors(path: Path) -> object:
    """Read the tensors, numbers, texts, lists and dicts of a file; :class:`Inert` stands for all else."""
    left_out: set[str] = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (found := TENSORS.get((module, name))) is not None:
                return found
            kind = getattr(torch, name, None) if module == "torch" else None
            # Types of numbers, and the types of storage that old files name.
            if isinstance(kind, torch.dtype) or (name.endswith("Storage") and isinstance(kind, type)):
                return kind
            left_out.add(f"{module}.{name}")
            return type("ndarray" if module.startswith("numpy") else name, (Inert,), {})  # the name is for messages

    class Module:
        """The part of Python's pickle module that torch calls."""

        Unpickler = Reader
        UnpicklingError = pickle.UnpicklingError

        @staticmethod
        def load(file: Any, **keywords: Any) -> object:
            return Reader(file, **keywords).load()

    content = torch.load(path, map_location="cpu", pickle_module=Module, weights_only=False)
    if left_out:
        names = sorted(left_out)
        logger.warning("%s: objects of %s are not loaded", path, ", ".join(names[:3]) + (", ..." if names[3:] else ""))
    return content
