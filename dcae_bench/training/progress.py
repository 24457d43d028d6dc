"""The progress of a training, as a user sees it."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from dcae_bench.base.terminal import Console, Progress, TextColumn, time_left
from dcae_bench.records.provenance import Stopwatch
from dcae_bench.training.loop import Loop


def train_with_progress(trainer: Loop, clock: Stopwatch, console: Console) -> None:
    """Train. A terminal shows a progress bar; a log file gets one line per tenth of the images."""
    total = trainer.spec.images
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[parts]}"),
        TimeRemainingColumn(),
    )
    begun, first, printed = time.monotonic(), trainer.images, trainer.images * 10 // total
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        name = trainer.spec.name
        task = bar.add_task(name, total=total, completed=trainer.images, parts="")

        def progress(images: int, parts: dict[str, float]) -> None:
            nonlocal printed
            shown = ", ".join(f"{key} {value:.4g}" for key, value in parts.items() if key != "lr")
            bar.update(task, completed=images, parts=shown)
            if not console.is_terminal and images * 10 // total > printed:
                printed = images * 10 // total
                left = time_left((time.monotonic() - begun) * (total - images) / max(images - first, 1))
                line = f"{name}: {images}/{total} images, {clock.seconds:.0f} s, {left}, {shown}"
                console.print(line, soft_wrap=True)

        trainer.train(lambda: clock.seconds, progress)
