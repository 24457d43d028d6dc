"""What an object of the user's own class computes with: networks, tensors and arrays, wherever they hang.

A class need not be a module, and a module need not register its networks. They are found in attributes, slots,
containers, closures, defaults, partial functions, class attributes, and the globals that the user's own code names.
"""

import dis
import functools
import gc
import re
import sys
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

MOST_OBJECTS = 200_000
"""An object that reaches more than these is not searched to the end."""
READABLE = frozenset({*sys.stdlib_module_names, "builtins", "torch", "numpy", "pybind11_builtins"})
"""Packages whose objects without attributes hold no weights that a search could miss: files, locks, types, devices."""
NUMBERS = (int, float, complex, np.number)
CONTAINERS = (list, tuple, deque, Set)
HOLDERS = frozenset({"builtins", "functools", "itertools", "_thread", "weakref", "types"})
"""Modules of Python's own objects that hold others where no attribute shows them."""
TEXT = (type(None), bool, str, bytes, bytearray)
MODULES_OWN = ("_parameters", "_buffers", "_modules")
PURE = frozenset({"builtins", "torch", "numpy", "math", "einops", "functools", "itertools", "operator", "typing"})
"""Packages whose functions compute from their arguments alone, but for those in :data:`READS`."""
PURE |= {"__future__", "collections", "dataclasses"}
READS = frozenset(
    {"open", "exec", "eval", "compile", "globals", "__import__", "load", "fromfile", "memmap", "genfromtxt", "loadtxt"}
    | {"from_file", "hub", "ops", "classes", "jit", "_C", "utils", "cpp_extension", "multiprocessing", "distributed"}
)
"""Names through which a function may reach what is in no argument: files, other processes, code of others."""
DEVICE = re.compile(r"^(cpu|cuda|mps|xpu|meta)(:\d+)?$")


@dataclass
class OwnState:
    """Everything that was found, by the path that leads to it."""

    modules: dict[str, nn.Module] = field(default_factory=dict)
    """Networks that are no part of another network here."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that no network here registers."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: dict[str, float | complex] = field(default_factory=dict)
    devices: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    """Attributes that name the device, as the dict of an object and a name in it."""
    opaque: tuple[str, ...] = ()
    """Kinds of objects that cannot be looked into, and may hold weights."""
    pure: bool = False
    """Whether the code can compute from its arguments alone: a class without weights."""

    @property
    def numeric(self) -> bool:
        """Whether any network, tensor or array was found."""
        filled = (next(module.parameters(), None) is not None or any(module.buffers()) for module in self._networks())
        return bool(self.tensors or self.arrays) or any(filled)

    @property
    def lazy(self) -> bool:
        """Whether a network still waits for its first input."""
        return any(is_lazy(p) for module in self._networks() for p in module.parameters())

    def _networks(self) -> Iterator[nn.Module]:
        yield from self.modules.values()


def find_state(root: object, own: Collection[str]) -> OwnState:
    """Search ``root``, an object of a class in one of the modules ``own``, which are the user's."""
    search = _Search(frozenset(own))
    search.run(root)
    return search.found()


class _Search:
    def __init__(self, own: frozenset[str]):
        self.own = own
        self.state = OwnState()
        self.seen: dict[int, object] = {}  # keeps the objects alive, or another could get the id of one
        self.opaque: set[str] = set()
        self.reached: set[str] = set()
        """Packages and names that the user's functions reach beside each other."""
        self.waiting: deque[tuple[str, object, bool]] = deque()

    def run(self, root: object) -> None:
        self.waiting.append(("", root, True))
        while self.waiting:
            path, value, own = self.waiting.popleft()
            if isinstance(value, TEXT):
                continue
            if isinstance(value, NUMBERS):
                if own:
                    self.state.numbers[path] = value.item() if isinstance(value, np.number) else value
                continue
            if id(value) in self.seen:
                continue
            if len(self.seen) >= MOST_OBJECTS:
                self.opaque.add(f"more than {MOST_OBJECTS} objects")
                break
            self.seen[id(value)] = value
            self._visit(path, value, own)

    def found(self) -> OwnState:
        """What was found, without what belongs to a found network anyway."""
        state = self.state
        parts = {id(part) for module in state.modules.values() for part in module.modules() if part is not module}
        state.modules = {path: module for path, module in state.modules.items() if id(module) not in parts}
        registered = {
            id(value) for module in state.modules.values() for value in (*module.parameters(), *module.buffers())
        }
        state.tensors = {path: value for path, value in state.tensors.items() if id(value) not in registered}
        state.opaque = tuple(sorted(self.opaque))
        state.pure = self._is_pure()
        return state

    def _is_pure(self) -> bool:
        root = next(iter(self.seen.values()), None)
        verbs = [getattr(type(root), verb, None) for verb in ("encode", "decode")]
        if self.opaque or not all(isinstance(verb, types.FunctionType) and id(verb) in self.seen for verb in verbs):
            return False
        return not (self.reached & READS) and {name[1:] for name in self.reached if name.startswith(":")} <= PURE

    def _visit(self, path: str, value: object, own: bool) -> None:
        if isinstance(value, Tensor):
            self.state.tensors[path] = value
        elif isinstance(value, np.ndarray):
            if value.dtype == object:
                self._add_all(path, enumerate(value.ravel().tolist()), own)
            else:
                self.state.arrays[path] = value
        elif isinstance(value, nn.Module):
            self._visit_module(path, value)
        elif isinstance(value, Mapping | types.MappingProxyType):
            self._add_all(path, value.items(), own)
        elif isinstance(value, CONTAINERS):
            items = sorted(value, key=repr) if isinstance(value, Set) else value
            self._add_all(path, enumerate(items), own)
        elif isinstance(value, types.FunctionType):
            self._visit_function(path, value)
        elif isinstance(value, types.MethodType):
            self._add_all(path, [("self", value.__self__), ("function", value.__func__)], own)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self._add(path, "self", value.__self__, own)  # such as the `get` of a dict
        elif isinstance(value, functools.partial):
            self._add_all(path, [("function", value.func), *enumerate(value.args), *value.keywords.items()], own)
        elif isinstance(value, staticmethod | classmethod):
            self._add(path, "function", value.__func__, own)
        elif isinstance(value, property):
            self._add_all(path, [("get", value.fget)], own)
        elif isinstance(value, functools.cached_property):
            self._add(path, "get", value.func, own)
        elif isinstance(value, weakref.ref):
            self._add(path, "target", value(), own)
        elif isinstance(value, type):
            self._visit_class(path, value)
        elif isinstance(value, types.ModuleType):
            pass  # what the user's code names in it is visited from there
        else:
            self._visit_object(path, value)

    def _visit_module(self, path: str, module: nn.Module) -> None:
        self.state.modules[path] = module
        for name, part in module.named_modules(remove_duplicate=True):
            self.seen[id(part)] = part
            inner = f"{path}.{name}".strip(".")
            self._visit_attributes(inner, part, without=MODULES_OWN)

    def _visit_object(self, path: str, value: object) -> None:
        package = type(value).__module__.split(".")[0]
        if package in HOLDERS:  # such as a function with a cache, or an iterator
            held = [one for one in gc.get_referents(value) if not isinstance(one, types.ModuleType | types.FrameType)]
            self._add_all(path, ((f"held{n}", one) for n, one in enumerate(held) if not _is_globals(one)), own=False)
        if not self._visit_attributes(path, value) and package not in READABLE:
            try:  # arrays of other libraries
                array = np.asarray(value)
            except Exception:  # objects of others may raise any error
                array = np.empty(0, object)
            if array.dtype != object and array.size:
                self.state.arrays[path] = array
            else:
                self.opaque.add(f"{type(value).__module__}.{type(value).__qualname__}")

    def _visit_attributes(self, path: str, value: object, without: Collection[str] = ()) -> bool:
        """Visit attributes and slots; returns whether the object can have any."""
        kind = type(value)
        own = kind.__module__ in self.own
        attributes = getattr(value, "__dict__", None)
        slots = [name for base in kind.__mro__ for name in _slots(base)]
        if isinstance(attributes, dict):
            for name, item in list(attributes.items()):
                if name in without:
                    continue
                if own and name.strip("_") == "device" and _is_device(item):
                    self.state.devices.append((attributes, name))
                self._add(path, name, item, own)
        for name in slots:
            try:
                item = object.__getattribute__(value, name)
            except AttributeError:
                continue
            self._add(path, name, item, own)
        if own:
            self._add(path, "class", kind, own)
        return isinstance(attributes, dict) or bool(slots)

    def _visit_class(self, path: str, cls: type) -> None:
        for base in cls.__mro__:
            if base.__module__ in self.own:
                for name, item in vars(base).items():
                    if not name.startswith("__") or isinstance(item, types.FunctionType):
                        self._add(path, f"{base.__name__}.{name}", item, own=True)

    def _visit_function(self, path: str, function: types.FunctionType) -> None:
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                self._add(path, cell_name, cell.cell_contents, own=True)
            except ValueError:  # a cell that is not filled
                continue
        self._add_all(path, enumerate(function.__defaults__ or ()), own=False)
        self._add_all(path, (function.__kwdefaults__ or {}).items(), own=False)
        self._add_all(path, vars(function).items(), own=True)
        if function.__module__ not in self.own:
            return
        names = sorted(_names(function.__code__))
        self.reached |= {*names, *(f":{package}" for package in _imports(function.__code__) - self.own)}
        for name in names:
            item = function.__globals__.get(name)
            home = item.__name__ if isinstance(item, types.ModuleType) else getattr(item, "__module__", None)
            if isinstance(home, str) and home not in self.own:
                self.reached.add(f":{home.split('.')[0]}")
            if isinstance(item, types.ModuleType):
                if item.__name__ in self.own:
                    self._add_all(name, ((inner, vars(item).get(inner)) for inner in names), own=True)
            else:
                self._add(function.__module__, name, item, own=True)

    def _add_all(self, path: str, items: Any, own: bool) -> None:
        for name, item in list(items):
            self._add(path, name, item, own)

    def _add(self, path: str, name: object, item: object, own: bool) -> None:
        if isinstance(item, type) and item.__module__ not in self.own:
            return
        if isinstance(item, types.FunctionType) and item.__module__ not in self.own and not item.__closure__:
            return
        self.waiting.append((f"{path}.{name}".strip("."), item, own))


def _slots(cls: type) -> list[str]:
    slots = cls.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else [*slots]
    hidden = [f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") else name for name in names]
    return [name for name in hidden if name not in ("__dict__", "__weakref__")]


def _names(code: types.CodeType) -> set[str]:
    """Global and attribute names that a function's code, and the functions inside it, may read."""
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*(_names(const) for const in inner))


def _is_globals(value: object) -> bool:
    return isinstance(value, dict) and "__builtins__" in value


def _imports(code: types.CodeType) -> set[str]:
    """Packages that a function's code, and the functions inside it, import as they run."""
    found = {step.argval.split(".")[0] for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"}
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return found.union(*(_imports(const) for const in inner))


def _is_device(value: object) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and DEVICE.match(value) is not None)
