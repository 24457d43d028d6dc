"""The user's own class, ``module:Class``. The current folder is importable, as for ``python`` on the command line."""

import ast
import importlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import PACKAGE


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
    module, _, name = class_name.partition(":")
    if module.endswith(".py"):
        return ConfigError(f"{class_name}: cannot be imported ({reason}); name the module, {module[:-3]}:{name}")
    return ConfigError(f"{class_name}: cannot be imported ({reason}); run where {module} is importable")


def source_modules(class_name: str) -> dict[str, Path]:
    """Files of the module that defines a class and of the user's own modules that it imports, by module name.

    The class's module is first. The others, which it reaches directly or through each other, follow by name. Modules of
    the standard library, of installed packages and of this package are left out. The modules are read, not run, so
    imports under names that are computed are not seen. Empty for a built-in module, and where a parent package fails to
    import: the later import of the class reports that. Raises :class:`ConfigError` when the module does not exist.
    """
    module = class_name.partition(":")[0]
    importlib.invalidate_caches()
    with current_folder_importable():
        spec = _find(module)
        if spec is None or _file(spec) is None:
            spec = _find_by_import(class_name)
        if spec is None or (file := _file(spec)) is None:
            return {}
        found, seen, waiting = {module: file}, {module}, [spec] if _is_own(file) else []
        while waiting:
            for name in _imported_names(waiting.pop()) - seen:
                seen.add(name)
                spec = _find(name)
                if spec is not None and (file := _file(spec)) is not None and _is_own(file):
                    found[name] = file
                    waiting.append(spec)
    return {name: found[name] for name in [module, *sorted(found.keys() - {module})]}


def _find_by_import(class_name: str) -> ModuleSpec | None:
    """Find a class's module by running its parent packages, which may change where their modules are found."""
    module = class_name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if is_missing_module(module, error):
            raise cannot_be_imported(class_name, error) from error
        return None
    except Exception:  # the user's package may raise any error
        return None
    if spec is None:
        raise cannot_be_imported(class_name, f"No module named '{module}'")
    return spec


def _find(name: str) -> ModuleSpec | None:
    """Find a module without running its parent packages; None where it is not there."""
    path: Sequence[str] | None = None
    if parent := name.rpartition(".")[0]:
        package = _find(parent)
        if package is None or package.submodule_search_locations is None:
            return None
        path = [*package.submodule_search_locations]
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (
            Exception
        ):  # finders of others may raise any error, and Python's own does for a folder without __init__.py
            continue
        if spec is not None:
            return spec
    folders = [folder for place in path or () if (folder := Path(place, name.rpartition(".")[2])).is_dir()]
    if not folders:
        return None
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = [str(folder) for folder in folders]
    return package


def _file(spec: ModuleSpec) -> Path | None:
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _is_own(file: Path) -> bool:
    """Whether a module is the user's: neither of the standard library, nor installed, nor of this package."""
    others = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    others |= {*site.getsitepackages(), site.getusersitepackages(), str(PACKAGE)}
    resolved = file.resolve()
    return not any(resolved.is_relative_to(Path(folder).resolve()) for folder in others)


def _imported_names(spec: ModuleSpec) -> set[str]:
    """Names of all modules that a module's source may import, with their parent packages."""
    file = _file(spec)
    if file is None or file.suffix != ".py":
        return set()
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):  # the later import of the class reports it
        return set()
    package = spec.name if spec.submodule_search_locations is not None else spec.name.rpartition(".")[0]
    names = {spec.name}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # What is imported from a package may be one of its modules.
            for base in _resolved("." * node.level + (node.module or ""), package):
                names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call):
            names |= _called_imports(node, package)
    parts = [name.split(".") for name in names if name]
    return {".".join(part[: end + 1]) for part in parts for end in range(len(part))}


def _called_imports(call: ast.Call, package: str) -> set[str]:
    """Names that a call of ``importlib.import_module`` or ``__import__`` imports; empty for other calls."""
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if called not in ("import_module", "__import__"):
        return set()
    given = {str(word.arg): word.value for word in call.keywords}
    values = [*call.args, *([given["name"]] if "name" in given else [])]
    name = _text(values[0]) if values else None
    # Only `import_module` takes a package, and that is usually `__package__` or `__name__`, both of this module.
    anchor = _text(call.args[1] if len(call.args) > 1 else given.get("package")) if called == "import_module" else None
    return _resolved(name, anchor or package) if name else set()


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _resolved(name: str, package: str) -> set[str]:
    """The absolute name of a module that ``package`` imports, in a set; empty where a relative name leads nowhere."""
    try:
        return {importlib.util.resolve_name(name, package)}
    except ImportError:
        return set()
