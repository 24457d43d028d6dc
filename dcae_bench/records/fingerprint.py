"""Fingerprints of code: which modules shape a result, derived from imports, and a hash of what they say.

Snakemake sees only the text of its rules, so each rule carries the fingerprint of its command. A run that is resumed, a
finished result and a cache entry carry the fingerprint of the module that made them. Nobody lists the watched modules:
they are those that the command can import, so a new module is watched from its first import on.
"""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path

from dcae_bench.base.files import sha256_json

PACKAGE = Path(__file__).resolve().parent.parent

SHAPES_NO_NUMBER: Mapping[str, str] = {
    "dcae_bench.base.errors": "the classes of errors: an error ends a command and leaves no number",
    "dcae_bench.base.terminal": "consoles and progress bars: what is printed while a command works",
    "dcae_bench.cli.main": "registers the verbs and prints errors: each verb is a module of its own, which is watched",
    "dcae_bench.running.gpus": "which GPUs a command takes: records name the device that computed",
    "dcae_bench.running.lease": "which GPUs a command takes",
    "dcae_bench.running.lease_queue": "which GPUs a command takes",
    "dcae_bench.running.stop": "signals that stop a command, which then goes on as if it had never stopped",
    "dcae_bench.tables": "pages and figures print numbers that records hold; rules that make a page do watch it",
    "dcae_bench.training.progress": "the progress bar and the lines of a log file",
}
"""Modules and packages that no fingerprint of a number holds, each with the reason. Everything else is watched."""

TEXTS: Mapping[str, frozenset[str]] = {
    "Field": frozenset({"description"}),
    "Option": frozenset({"help", "metavar"}),
    "Argument": frozenset({"help", "metavar"}),
    "Typer": frozenset({"help"}),
}
"""Arguments that only describe, by the function that takes them: help texts of options, descriptions of fields."""


def code_of_command(verb: str, *, makes_page: bool = False) -> str:
    """Fingerprint of a verb of the command line, ``train`` or ``evaluate-samples``, for the rule that runs the verb.

    A verb whose result is a table or a figure also watches the modules that print (``makes_page``).
    """
    return fingerprint(f"{PACKAGE.name}.cli.{verb.replace('-', '_')}", pages=makes_page)


@cache
def fingerprint(*entries: str, pages: bool = False) -> str:
    """Hash of the code that modules can reach by imports, unmoved by comments, docstrings, help texts and layout.

    ``entries`` are full module names, usually ``__name__``. With ``pages`` the modules that print are watched too.
    Raises ValueError for a module that does not exist.
    """
    return sources().fingerprint(entries, pages=pages)


@cache
def sources() -> "Sources":
    """The sources of this package."""
    return Sources(PACKAGE)


class Sources:
    """The modules of a package, what each imports, and a hash of what each says."""

    def __init__(self, package: Path):
        """``package`` is the folder of a package; its sources are read when they are needed."""
        self.package = package
        self._read: dict[str, tuple[str, list[str]]] = {}

    @cached_property
    def modules(self) -> dict[str, Path]:
        """File of every module by its full name; a package's name stands for its ``__init__.py``."""
        found = {}
        for path in sorted(self.package.rglob("*.py")):
            parts = path.relative_to(self.package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return found

    def fingerprint(self, entries: Iterable[str], *, pages: bool = False) -> str:
        """Hash of the code that ``entries`` can reach; see :func:`fingerprint`."""
        return sha256_json({name: self._content(name) for name in self.watched(entries, pages=pages)})

    def watched(self, entries: Iterable[str], *, pages: bool = False) -> list[str]:
        """Modules that shape the result of ``entries``, sorted: reachable ones without :data:`SHAPES_NO_NUMBER`."""
        found: set[str] = set()
        waiting = list(entries)
        while waiting:
            name = waiting.pop()
            if name in found or self._shapes_nothing(name, pages):
                continue
            if name not in self.modules:
                raise ValueError(f"module {name} does not exist in {self.package}")
            found.add(name)
            # Importing a.b.c runs a and a.b first.
            parents = name.split(".")[:-1]
            waiting += [".".join(parents[: depth + 1]) for depth in range(len(parents))]
            waiting += self.imports(name)
        return sorted(found)

    def imports(self, name: str) -> list[str]:
        """Modules of the package that a module imports, anywhere in its code, but for type checkers alone."""
        return self._parsed(name)[1]

    def _content(self, name: str) -> str:
        return self._parsed(name)[0]

    def _parsed(self, name: str) -> tuple[str, list[str]]:
        """Hash of a module's code, and the modules of the package that it imports."""
        if name not in self._read:
            digest, imported = _parse(self.modules[name].read_text(encoding="utf-8"))
            found = []
            for module, parts in imported:
                if module.split(".")[0] == self.package.name:
                    found += [module, *(full for part in parts if (full := f"{module}.{part}") in self.modules)]
            self._read[name] = digest, found
        return self._read[name]

    @staticmethod
    def _shapes_nothing(name: str, pages: bool) -> bool:
        return any(
            f"{name}.".startswith(f"{silent}.")
            for silent in SHAPES_NO_NUMBER
            if not (pages and silent == f"{PACKAGE.name}.tables")
        )


@cache
def _parse(source: str) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Hash of a file's code and its imports. Many rules name the same files, and parsing all of them takes seconds."""
    tree = ast.parse(source)
    imported = tuple(_imports(tree))
    _drop_texts(tree)
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest(), imported


def _imports(tree: ast.AST) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Absolute imports as module and names; the package uses no relative ones."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, tuple(alias.name for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def _drop_texts(tree: ast.AST) -> None:
    """Remove docstrings and the texts of options and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Also the strings that describe an attribute below it.
            node.body = [part for part in node.body if not _is_text(part)]
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            texts = TEXTS.get(called, frozenset())
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in texts]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _plain(node: object) -> object:
    """A syntax tree as nested tuples that are equal under every Python version: fields that are empty are left out."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node))
        return type(node).__name__, tuple((name, value) for name, value in fields if value not in (None, ()))
    if isinstance(node, list):
        return tuple(map(_plain, node))
    return None if node is None else repr(node)
