"""A CUDA graph for the CPU: it records operations, and replays them on memory that it reads by address alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Fault = Literal["garbage", "nan", "nothing"]


@dataclass(frozen=True)
class Address:
    """A tensor as a kernel gets it: where its numbers lie, and how."""

    storage: int
    dtype: torch.dtype
    offset: int
    size: torch.Size
    stride: tuple[int, ...]


class StandInGraph:
    """Owns what was allocated during its capture, and weak references to the rest, as a CUDA graph in effect does.

    From replay number ``sound`` on it commits ``fault``: leaves garbage or NaN in its memory, or does nothing.
    """

    sound: float = float("inf")
    fault: Fault = "garbage"

    def __init__(self):
        self.owned: dict[int, torch.UntypedStorage] = {}
        self.outer: dict[int, StorageWeakRef] = {}
        self.operations: list[tuple] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        if self.replays > self.sound and self.fault == "nothing":
            return
        with torch.no_grad():
            for function, *described in self.operations:
                args, kwargs, places = tree_map(self._at, described)
                made = function(*args, **kwargs)
                for place, tensor in zip(tree_leaves(places), tree_leaves(made), strict=True):
                    if isinstance(place, torch.Tensor) and _storage(place) != _storage(tensor):
                        place.copy_(tensor)
        if self.replays > self.sound:
            for storage in self.owned.values():
                storage.fill_({"garbage": 0x40, "nan": 0xFF}[self.fault])  # float32 of these bytes is 3.0039 and NaN

    def _at(self, value: object) -> object:
        if not isinstance(value, Address):
            return value
        storage = self.owned.get(value.storage)
        if storage is None:
            storage = torch.UntypedStorage._new_with_weak_ptr(self.outer[value.storage].cdata)
        if storage is None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return torch.empty(0, dtype=value.dtype).set_(storage, value.offset, value.size, value.stride)


class _Capture(TorchDispatchMode):
    """Records every operation into a graph, and keeps the numbers of outer memory to restore them."""

    def __init__(self, graph: StandInGraph):
        super().__init__()
        self.graph = graph
        self.kept: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        constant = func is torch.ops.aten.lift_fresh.default  # a number written in the code
        described = [tree_map(lambda value: self._describe(value, new=constant), part) for part in (args, kwargs or {})]
        made = func(*args, **(kwargs or {}))
        self.graph.operations.append((func, *described, tree_map(lambda value: self._describe(value, new=True), made)))
        return made

    def _describe(self, value: object, new: bool) -> object:
        if not isinstance(value, torch.Tensor):
            return value
        storage, key = value.untyped_storage(), _storage(value)
        if key not in self.graph.owned and key not in self.graph.outer:
            if new:
                self.graph.owned[key] = storage
            else:
                self.graph.outer[key] = StorageWeakRef(storage)
                self.kept[key] = storage.clone()
        return Address(key, value.dtype, value.storage_offset(), value.size(), value.stride())

    def restore(self) -> None:
        for key, numbers in self.kept.items():
            torch.UntypedStorage._new_with_weak_ptr(self.graph.outer[key].cdata).copy_(numbers)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Stream:
    def wait_stream(self, other: "_Stream") -> None:
        pass


def use(monkeypatch: pytest.MonkeyPatch) -> list[StandInGraph]:
    """Give ``torch.cuda`` stand-ins of graphs and streams. Returns the graphs, as they are made."""
    made: list[StandInGraph] = []

    def make() -> StandInGraph:
        made.append(StandInGraph())
        return made[-1]

    @contextmanager
    def capture(graph: StandInGraph) -> Iterator[None]:
        recorder = _Capture(graph)
        with recorder:
            yield
        recorder.restore()

    for name, stand_in in {
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": make,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return made
