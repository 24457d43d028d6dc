"""The terminal: rich's classes, which print names and paths from outside as they are.

Rich reads brackets as markup and ``:name:`` as an emoji. A path that holds them would be printed wrongly, or would end
the command with an error after its work is done.
"""

import time
from typing import Any

from rich import console, progress
from rich.text import Text

LINE_S, LINES = 60.0, 20
"""Without a terminal: seconds until the first line, and a part of the time so far (a 20th) until each later one."""


def printable(text: str, keep: str = "") -> str:
    """The text with each control character as its code: a terminal would obey it. Those in ``keep`` stay."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class Console(console.Console):
    """A console that reads no markup and sends no control character of a name to the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a string printable, in a cell of a table too."""
        return super().render_str(printable(text, keep="\n\t"), **options)


class TextColumn(progress.TextColumn):
    """A column of text in a progress bar that reads no markup."""

    def __init__(self, text_format: str, **options: Any) -> None:
        super().__init__(text_format, markup=False, **options)


def time_left(seconds: float) -> str:
    """How long work will still take, in words, e.g. ``about 12 min left``."""
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"about {seconds / unit:.0f} {name} left"
    return f"about {seconds / 86400:.1f} days left"


class _Pace:
    """How fast a task comes forward, from its first number on: a pass that goes on has done a part already."""

    def __init__(self, done: float) -> None:
        self.begun = self.said = time.monotonic()
        self.first = self.last = done

    def due(self) -> bool:
        """Whether a line is due: after a minute, and then ever more rarely, so that days of work fill no disk."""
        now = time.monotonic()
        if now - self.said < max(LINE_S, (now - self.begun) / LINES):
            return False
        self.said = now
        return True

    def seconds_left(self, done: float, total: float | None) -> float | None:
        """Seconds that the rest takes at this pace; None while nobody can tell."""
        if not total or done <= self.first:
            return None
        return (time.monotonic() - self.begun) * max(total - done, 0) / (done - self.first)


class Progress(progress.Progress):
    """A progress bar, by default with columns that read no markup.

    Without a terminal, as in the log of a job, the bar with the default columns prints a line at times instead: what is
    running, how far it is, and how long it will still take. Whoever names other columns prints lines of their own.
    """

    def __init__(self, *columns: str | progress.ProgressColumn, disable: bool = False, **options: Any) -> None:
        super().__init__(*columns, disable=disable, **options)
        self._lines = disable and not columns
        self._paces: dict[progress.TaskID, _Pace] = {}

    def add_task(self, description: str, *arguments: Any, **options: Any) -> progress.TaskID:
        """Add a task, whose name is made printable."""
        return super().add_task(printable(description), *arguments, **options)

    def update(self, task_id: progress.TaskID, **options: Any) -> None:
        """Change a task: ``completed``, ``total``, ``advance``, ``description``, ..."""
        super().update(task_id, **options)
        self._tell(task_id)

    def advance(self, task_id: progress.TaskID, advance: float = 1) -> None:
        """Bring a task forward."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: progress.TaskID) -> None:
        if not self._lines:
            return
        (task,) = (one for one in self.tasks if one.id == task_id)
        pace = self._paces.get(task_id)
        if pace is None or task.completed < pace.last:  # another pass of the same task begins
            pace = self._paces[task_id] = _Pace(task.completed)
        pace.last = task.completed
        if not pace.due():
            return
        left = pace.seconds_left(task.completed, task.total)
        total = "" if task.total is None else f" of {task.total:,.0f}"
        words = "" if left is None else f", {time_left(left)}"
        self.console.print(f"{task.description}: {task.completed:,.0f}{total}{words}", soft_wrap=True)

    @classmethod
    def get_default_columns(cls) -> tuple[progress.ProgressColumn, ...]:
        """Name of the task, bar, percentage and remaining time."""
        return (
            TextColumn("{task.description}", style="progress.description"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
        )
