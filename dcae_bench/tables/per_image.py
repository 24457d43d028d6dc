"""Values of each image: the file beside a reconstruction record that its means must follow from."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dcae_bench.base.errors import ResultsError
from dcae_bench.metrics.intervals import mean_interval
from dcae_bench.records.places import PER_IMAGE
from dcae_bench.records.record import Metric, Record

TOLERANCE = 1e-6
"""Largest relative difference between a number and the same number computed again by another version of numpy."""


def check_per_image(path: Path, record: Record) -> bool:
    """Hold a record's means and their intervals against the values of each image; False if there is no such file.

    Raises :class:`ResultsError` for a record that its values do not give, and for a file that cannot be read.
    """
    beside = per_image_path(path)
    if record.kind != "reconstruction" or not beside.is_file():
        return False
    try:
        values = pq.read_table(beside)
        problem = next(_problems(values, record), None)
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"{beside}: cannot be read ({reason}); restore it, or evaluate again") from error
    if problem is not None:
        raise ResultsError(f"{path}: {problem} ({beside.name}); restore the files, or delete them and evaluate again")
    return True


def per_image_path(record: Path) -> Path:
    """Path of the values of each image beside a record."""
    return Path(str(record).removesuffix(".json") + PER_IMAGE)


def _problems(values: pa.Table, record: Record) -> Iterator[str]:
    if values.num_rows != record.data.images:
        yield f"it tells of {record.data.images} images, the file beside it of {values.num_rows}"
        return
    for name in values.column_names:
        if name in ("index", "key", "height", "width"):
            continue
        column = values[name].to_numpy()
        column = column[~np.isposinf(column)]  # images that were reproduced exactly have no PSNR
        if (metric := record.metrics.get(name)) is None:
            if len(column):
                yield f"it holds no {name}, the file beside it does"
            continue
        if not len(column):
            yield f"it holds {name}, the file beside it no finite value"
            continue
        mean = float(np.mean(column))
        if not math.isclose(metric.value, mean, rel_tol=TOLERANCE):
            yield f"its {name} {metric.value:.6g} is not the mean of its images, {mean:.6g}"
        elif not _interval_follows(metric, column):
            yield f"the interval of its {name} does not follow from its images"


def _interval_follows(metric: Metric, column: np.ndarray) -> bool:
    """Whether an interval is the one that the values give, up to rounding; true without an interval."""
    if metric.interval is None:
        return True
    if len(column) < 2:
        return False
    again = mean_interval(column)
    scale = max(abs(again.low), abs(again.high), 1e-300)
    ends = ((metric.interval.low, again.low), (metric.interval.high, again.high))
    return all(abs(told - found) <= TOLERANCE * scale for told, found in ends)
