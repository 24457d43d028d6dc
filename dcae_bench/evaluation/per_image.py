"""Values of each image, in the file beside a record of reconstructions."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dcae_bench.base.files import write_with
from dcae_bench.data.images import Crops
from dcae_bench.data.native import sizes_of
from dcae_bench.evaluation.reconstruction import MeasuredSet


def write_images(path: Path, measured: MeasuredSet, crops: Crops) -> None:
    """Write a Parquet file with one row per image, in the order of the set: index, key and the value of each metric.

    Whole images have their height and width in px too.
    """
    columns: dict[str, Any] = {
        "index": np.arange(len(crops)),
        "key": [crops.key(index) for index in range(len(crops))],
    }
    if (sizes := sizes_of(crops)) is not None:
        columns |= dict(zip(("height", "width"), np.array(sizes).T, strict=True))
    columns |= {name: measured.column(name) for name in measured.value_names}
    write_with(path, lambda file: pq.write_table(pa.table(columns), file))
