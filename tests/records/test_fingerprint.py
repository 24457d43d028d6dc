"""What a fingerprint holds: code and not texts, and every module that the imports reach."""

import ast
import re
import shutil

import grimp
import pytest

from dcae_bench.base.files import PACKAGE, REPOSITORY
from dcae_bench.records.fingerprint import SHAPES_NO_NUMBER, Sources, fingerprint

CODE = '''
"""Module."""

import typer
from pydantic import Field

from package.other import x

LIMIT = Field(default=3, description="how much")
"""Stands below what it describes."""
OPTION = typer.Option(help="how much", metavar="N", min=1)


def f(x):
    """Function."""
    return x + 1


class C:
    """Class."""

    limit: int = 3
'''


@pytest.fixture
def package(tmp_path):
    """A package of three modules, of which one imports another."""
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "inner" / "code.py").write_text(CODE)
    (folder / "other.py").write_text("x = 1\n")
    (folder / "alone.py").write_text("y = 1\n")
    return folder


def of(package, code: str = CODE, entry: str = "package.inner.code") -> str:
    (package / "inner" / "code.py").write_text(code)
    return Sources(package).fingerprint([entry])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module."""', '"""Another docstring."""'),
        ('    """Function."""\n', ""),
        ('    """Class."""\n', ""),
        ('"""Stands below what it describes."""\n', ""),
        ('description="how much"', 'description="how many"'),
        ('help="how much", metavar="N"', 'help="how many"'),
        ("return x + 1", "return x + 1  # one more"),
        ("return x + 1", "return (x\n            + 1)"),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
    ],
)
def test_comments_texts_and_layout_do_not_count(package, old, new):
    assert old in CODE
    assert of(package, CODE.replace(old, new)) == of(package)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x + 1", "x + 2"),
        ("x + 1", "x - 1"),
        ("def f(x)", "def f(x, y=0)"),
        ("def f(x)", "@cached\ndef f(x)"),
        ("limit: int = 3", "limit: int = 4"),
        ("limit: int", "limit: float"),
        ("default=3", "default=4"),
        ("min=1", "min=2"),
        ("    return x + 1", "    return 'text'"),
        ("x + 1", "None"),
        ("Field(", "Other("),
    ],
)
def test_code_counts(package, old, new):
    assert old in CODE
    assert of(package, CODE.replace(old, new)) != of(package)


SYNTAX = """
from __future__ import annotations
import a.b as c
from .d import (e, f as g)
X: int | None = 1_000 + 2j
Y = f"{X!r:>{3}} and {X=} {'nested'}" "joined" if X else r"\\d"
async def h(p, /, q: str = "s", *r, s=None, **t) -> list[int]:
    async with c() as u, e:
        yield [v async for v in u if v and not (w := v)]
    await g(*r, **t)
@c.decorated(1)
class K(L, metaclass=M):
    z: ClassVar = lambda self, /, *, n=-1: n ** 2 @ n // ~n
    def m(self):
        global X
        try:
            del self.z[1:2, ::3], self[...]
            raise E from None
        except* (E, F) as error:
            assert error, "text"
        else:
            return {**{}, 1: {2, 3}}
        finally:
            pass
match X:
    case {"k": [1, *rest], **others} if rest:
        x = 1
    case K(z=1) | None | -1.5 as y:
        x: int
    case _:
        x <<= 1; x @= 2
while True:
    for i, (j, *k) in ():
        continue
    else:
        break
"""


def test_every_python_version_gives_one_fingerprint(package):
    """The number was computed under Python 3.11 and is the same under 3.13: results move between machines."""
    assert of(package, SYNTAX) == "15e7f0e0e8fe9274115cff0772a80c04a67d9c2fda88ac6999b2c3c334f9c430"


def test_what_is_imported_counts_and_nothing_else(package):
    before = of(package)
    (package / "alone.py").write_text("y = 2\n")
    assert of(package) == before
    (package / "other.py").write_text("x = 2\n")
    assert of(package) != before


@pytest.mark.parametrize(
    "line",
    [
        "import package.alone",
        "from package import alone",
        "from package.alone import y",
        "def g():\n    import package.alone",
    ],
)
def test_every_form_of_import_counts_also_inside_functions(package, line):
    code = f"{CODE}\n{line}\n"
    before = of(package, code)
    (package / "alone.py").write_text("y = 2\n")
    assert of(package, code) != before


def test_imports_for_type_checkers_alone_do_not_count(package):
    code = f"{CODE}\nif TYPE_CHECKING:\n    from package import alone\nelse:\n    pass\n"
    before = of(package, code)
    (package / "alone.py").write_text("y = 2\n")
    assert of(package, code) == before


def test_the_packages_around_a_module_count(package):
    before = of(package)
    (package / "inner" / "__init__.py").write_text("z = 1\n")
    assert of(package) != before


def test_a_module_that_does_not_exist_is_an_error(package):
    with pytest.raises(ValueError, match=r"package\.missing does not exist"):
        Sources(package).fingerprint(["package.missing"])


# Every module of the package, and every rule of the workflow

RULES_OF_PAGES = ("table", "figure", "check", "sanity", "guidance", "report")
LIBRARY = (
    "dcae_bench.training.run",
    "dcae_bench.training.diffusion_run",
    "dcae_bench.generation.encode",
    "dcae_bench.generation.sample",
    "dcae_bench.evaluation.reconstruction_run",
    "dcae_bench.evaluation.samples_run",
    "dcae_bench.evaluation.latents",
    "dcae_bench.measurement.session",
)
"""Modules that resume, or know a finished result, by the fingerprint of their own imports."""


def rules() -> dict[str, tuple[str, bool]]:
    """Command module of every rule, and whether the rule makes a page, as the rules state both."""
    found = {}
    for path in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk")):
        for text in re.split(r"^ *rule ", path.read_text(), flags=re.M)[1:]:
            name = re.match(r"\w+", text)[0]
            ((verb, page),) = re.findall(r'code=code_of_command\("([\w-]+)"(, makes_page=True)?\)', text)
            assert re.search(rf'"dcae-bench {verb} ', text), f"{name} watches another command than it runs"
            found[name] = f"dcae_bench.cli.{verb.replace('-', '_')}", bool(page)
    return found


RULES = rules()
ENTRIES = {**RULES, **{module: (module, False) for module in LIBRARY}}


def test_rules_of_pages_are_those_that_watch_what_prints():
    assert {name for name, (_, page) in RULES.items() if page} == {
        name for name in RULES if name.startswith(RULES_OF_PAGES)
    }


@pytest.fixture(scope="module")
def graph():
    """The import graph as import-linter's library sees it: the oracle."""
    return grimp.build_graph("dcae_bench", exclude_type_checking_imports=True, cache_dir=None)


def silent(module: str, page: bool) -> bool:
    names = [name for name in SHAPES_NO_NUMBER if not (page and name == "dcae_bench.tables")]
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def reachable(graph, entry: str, page: bool) -> set[str]:
    """Modules that an entry reaches without passing one that shapes no number."""
    found, waiting = set(), [entry]
    while waiting:
        module = waiting.pop()
        if module in found or silent(module, page):
            continue
        found.add(module)
        waiting += graph.find_modules_directly_imported_by(module)
        waiting += [module.rpartition(".")[0]] if "." in module else []
    return found


def changed(source: str) -> str:
    """A module's source with one constant changed, by its syntax tree; one is added where there is none."""
    tree = ast.parse(source)
    texts = {
        id(part.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for part in node.body
        if isinstance(part, ast.Expr)
    }
    described = {
        id(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("description", "help", "metavar")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in texts | described:
            if isinstance(node.value, bool):
                node.value = not node.value
            elif isinstance(node.value, int | float):
                node.value += 1
            elif isinstance(node.value, str) and node.value:
                node.value += "x"
            else:
                continue
            return ast.unparse(tree)
    return f"{source}\nADDED = 1\n"


@pytest.mark.long
def test_one_constant_in_any_module_makes_stale_what_can_import_it(graph, tmp_path):
    copy = tmp_path / "dcae_bench"
    shutil.copytree(PACKAGE, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    wanted = {name: reachable(graph, entry, page) for name, (entry, page) in ENTRIES.items()}

    def fingerprints():
        sources = Sources(copy)
        return {name: sources.fingerprint([entry], pages=page) for name, (entry, page) in ENTRIES.items()}

    modules, before = Sources(copy).modules, fingerprints()
    assert set(modules) == graph.modules
    wrong = {}
    for module, path in modules.items():
        source = path.read_text()
        path.write_text(changed(source))
        stale = {name for name, value in fingerprints().items() if value != before[name]}
        path.write_text(source)
        if stale != (right := {name for name, reached in wanted.items() if module in reached}):
            wrong[module] = stale ^ right
    assert not wrong
    assert fingerprints() == before


def watched(rule: str) -> set[str]:
    entry, page = RULES[rule]
    return set(Sources(PACKAGE).watched([entry], pages=page))


@pytest.mark.parametrize("rule", RULES)
def test_a_verb_watches_no_other_verb(rule):
    entry, _ = RULES[rule]
    shared = {"dcae_bench.cli", "dcae_bench.cli.options", entry}
    assert {name for name in watched(rule) if name.startswith("dcae_bench.cli")} <= shared


@pytest.mark.parametrize("rule", ["encode", "train_diffusion", "sample"])
def test_an_edit_of_lpips_trains_no_denoiser_again(rule):
    assert not [name for name in watched(rule) if name.startswith("dcae_bench.extractors")]


@pytest.mark.parametrize("rule", ["prepare", "train_phase", "encode", "train_diffusion", "sample"])
def test_an_edit_in_metrics_or_evaluation_trains_encodes_and_samples_nothing_again(rule):
    assert not [name for name in watched(rule) if name.startswith(("dcae_bench.metrics.", "dcae_bench.evaluation."))]


@pytest.mark.parametrize("rule", [name for name, (_, page) in RULES.items() if not page])
def test_an_edit_of_a_page_computes_nothing_again(rule):
    assert not [name for name in watched(rule) if name.startswith("dcae_bench.tables")]


def test_every_module_that_is_not_watched_has_its_reason():
    modules = Sources(PACKAGE).modules
    for name, reason in SHAPES_NO_NUMBER.items():
        assert name in modules and len(reason) > 20


def test_no_module_is_imported_by_a_name_that_the_graph_does_not_see():
    """A module imported by ``importlib`` under a name in a string would be watched by nobody."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                assert not (isinstance(node.args[0], ast.Constant) and "dcae_bench" in str(node.args[0].value)), path


def test_a_fingerprint_is_one_hash_for_the_whole_process():
    assert fingerprint("dcae_bench.training.run") == fingerprint("dcae_bench.training.run")
    assert re.fullmatch("[0-9a-f]{64}", fingerprint("dcae_bench.training.run"))
