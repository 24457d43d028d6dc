"""What rich would make of names and paths from outside."""

import ast
import io

import pytest
from rich.console import Group
from rich.table import Table

from dcae_bench.base.files import PACKAGE
from dcae_bench.base.terminal import Console, Progress, TextColumn

NAMES = ["br[/x]y", "[backup]/l", "[bold]x", ":bug:.png", "[/]", "\\[x]", "[link=http://x]y"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name):
    out = io.StringIO()
    console = Console(file=out, width=80)
    console.print(f"-> {name}", soft_wrap=True)
    table = Table(name, title=name)
    table.add_row(name)
    console.print(Group(table, name))
    assert out.getvalue().count(name) == 5


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x07b", "a\rb", "a\x9b31mb", "a\u202eb"])
def test_control_characters_of_names_do_not_reach_the_terminal(name):
    """They would clear the screen, overwrite a line, or turn it round."""
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, no_color=True)
    console.print(f"-> {name}", soft_wrap=True)
    table = Table(name, title=name)
    table.add_row(name)
    console.print(Group(table, name))
    with Progress(console=console) as bar:
        bar.update(bar.add_task(name, total=1), completed=1)
    code = name[1:-1].encode("unicode_escape").decode()[:4]
    assert name not in out.getvalue() and out.getvalue().count(f"a{code}") >= 5


@pytest.mark.parametrize("columns", [(), (TextColumn("{task.description}"),)])
@pytest.mark.parametrize("name", NAMES)
def test_a_progress_bar_shows_names_as_they_are(name, columns):
    out = io.StringIO()
    with Progress(*columns, console=Console(file=out, width=80, force_terminal=True, no_color=True)) as bar:
        bar.update(bar.add_task(name, total=1), completed=1)
    assert name in out.getvalue()


def test_no_other_module_makes_a_console_of_its_own():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in ("rich", "rich.console", "rich.progress"):
                names = {alias.name for alias in node.names} & {"Console", "Progress", "TextColumn", "print"}
                wrong += [f"{path}: {name}" for name in names]
    assert not wrong
