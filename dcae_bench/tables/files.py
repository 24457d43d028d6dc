"""Files of a table: Markdown to read, CSV to plot, JSON with everything behind the numbers."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dcae_bench.base.files import write_text
from dcae_bench.records.record import Metric, Record

TWINS = (".md", ".csv", ".json")
"""Endings of the files of a table."""


def write_table(path: Path, *, page: str, lines: Iterable[Mapping[str, Any]], content: Mapping[str, Any]) -> None:
    """Write ``page`` to the Markdown file ``path``, ``lines`` to its ``.csv`` and ``content`` to its ``.json`` twin.

    Each file is written atomically, the page last. Raises :class:`ResultsError` when the folder cannot be written.
    """
    path = Path(path)
    write_text(path.with_suffix(".csv"), pd.DataFrame(list(lines), dtype=object).to_csv(index=False))
    write_text(path.with_suffix(".json"), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_text(path, page)


def interval_cells(metric: Metric | None) -> dict[str, float | None]:
    """CSV cells of a metric's interval; null without an interval."""
    interval = metric.interval if metric else None
    names = ("low", "high", "level")
    return {f"interval_{name}": getattr(interval, name) if interval else None for name in names}


def settings_cell(record: Record) -> str:
    """CSV cell with all switches of a record, e.g. ``posterior=sample; tf32=on``."""
    return "; ".join(f"{switch}={value}" for switch, value in record.settings.items())
