"""What rich would make of names and paths from outside."""

import ast
import io

import pytest
from rich.console import Group
from rich.table import Table

from dcae_bench.base import terminal
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


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set forward."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_lines_with_the_time_that_is_left(clock):
    out = io.StringIO()
    console = Console(file=out, width=80)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("a\x1bb on photos", total=1000)
        bar.update(task, completed=400)  # done before an interruption
        for step in range(1, 7):
            clock[0] += 30
            bar.update(task, completed=400 + 50 * step)
        bar.update(task, completed=0, total=50)  # the next pass: no pace yet
        clock[0] += 61
        bar.advance(task, 5)
    assert out.getvalue().splitlines() == [
        "a\\x1bb on photos: 500 of 1,000, about 5 min left",
        "a\\x1bb on photos: 600 of 1,000, about 4 min left",
        "a\\x1bb on photos: 700 of 1,000, about 3 min left",
        "a\\x1bb on photos: 5 of 50, about 9 min left",
    ]


def test_lines_become_rare_and_short_work_prints_none(clock):
    out = io.StringIO()
    with Progress(console=Console(file=out, width=80), disable=True) as bar:
        task = bar.add_task("quick", total=None)
        bar.advance(task)
        clock[0] += 59
        bar.advance(task)
        assert not out.getvalue()
        for _ in range(24 * 60):
            clock[0] += 60
            bar.advance(task)
    assert 60 < out.getvalue().count("\n") < 120


def test_other_columns_print_no_lines(clock):
    out = io.StringIO()
    with Progress(TextColumn("{task.description}"), console=Console(file=out, width=80), disable=True) as bar:
        task = bar.add_task("own lines", total=2)
        clock[0] += 500
        bar.update(task, completed=1)
    assert not out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (99, "99 s"), (720, "12 min"), (7200, "2 h"), (180_000, "2.1 days")],
)
def test_time_left_is_told_in_a_unit_that_fits(seconds, words):
    assert terminal.time_left(seconds) == f"about {words} left"
