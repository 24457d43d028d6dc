import numpy as np
import pytest

from dcae_bench.data.packed import Photos


@pytest.fixture
def photos():
    """Five photographs of different shapes, each pixel of which tells its photograph and place."""
    shapes = [(300, 260), (256, 400), (640, 256), (270, 270), (512, 380)]
    arrays = []
    for number, (height, width) in enumerate(shapes):
        rows, columns = np.mgrid[:height, :width]
        arrays.append(np.stack([rows % 256, columns % 256, np.full_like(rows, 40 * number)], axis=2).astype(np.uint8))
    return Photos(arrays, [f"photo-{number}" for number in range(len(shapes))])
