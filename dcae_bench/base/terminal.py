"""The terminal: rich's classes, which print names and paths from outside as they are.

Rich reads brackets as markup and ``:name:`` as an emoji. A path that holds them would be printed wrongly, or would end
the command with an error after its work is done.
"""

from typing import Any

from rich import console, progress
from rich.text import Text


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


class Progress(progress.Progress):
    """A progress bar, by default with columns that read no markup."""

    def add_task(self, description: str, *arguments: Any, **options: Any) -> progress.TaskID:
        """Add a task, whose name is made printable."""
        return super().add_task(printable(description), *arguments, **options)

    @classmethod
    def get_default_columns(cls) -> tuple[progress.ProgressColumn, ...]:
        """Name of the task, bar, percentage and remaining time."""
        return (
            TextColumn("{task.description}", style="progress.description"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
        )
