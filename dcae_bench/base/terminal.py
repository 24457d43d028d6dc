"""The terminal: rich's classes, which print names and paths from outside as they are.

Rich reads brackets as markup and ``:name:`` as an emoji. A path that holds them would be printed wrongly, or would end
the command with an error after its work is done.
"""

from typing import Any

from rich import console, progress


class Console(console.Console):
    """A console that reads no markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)


class TextColumn(progress.TextColumn):
    """A column of text in a progress bar that reads no markup."""

    def __init__(self, text_format: str, **options: Any) -> None:
        super().__init__(text_format, markup=False, **options)


class Progress(progress.Progress):
    """A progress bar, by default with columns that read no markup."""

    @classmethod
    def get_default_columns(cls) -> tuple[progress.ProgressColumn, ...]:
        """Name of the task, bar, percentage and remaining time."""
        return (
            TextColumn("{task.description}", style="progress.description"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
        )
