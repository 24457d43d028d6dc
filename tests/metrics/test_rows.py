"""Features in parts: everything once, and mapped files unchanged by being released."""

import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base.errors import ResultsError
from dcae_bench.metrics.intervals import frechet_interval
from dcae_bench.metrics.kernel import kernel_distance
from dcae_bench.metrics.rows import ROWS, chunks, mapped_copy, release_pages, take_rows


@given(st.sampled_from([0, 1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5]))
def test_parts_are_everything_once(count):
    features = np.arange(2.0 * count).reshape(count, 2)
    found = list(chunks(features))
    assert all(len(part) <= ROWS and np.array_equal(part, features[place]) for place, part in found)
    assert sum(len(part) for _, part in found) == count


@pytest.mark.long
def test_a_mapped_file_gives_the_same_as_memory(tmp_path):
    random = np.random.default_rng(0)
    sides = [random.normal(shift, 1, (2300, 6)).astype(np.float32) for shift in (0, 0.2)]
    mapped = []
    for number, side in enumerate(sides):
        side.tofile(tmp_path / str(number))
        mapped.append(np.memmap(tmp_path / str(number), np.float32, "r", shape=side.shape))
    assert kernel_distance(*mapped) == kernel_distance(*sides)
    assert frechet_interval(*mapped) == frechet_interval(*sides)
    rows = take_rows(mapped[0], np.array([5, 2299, 0]))
    release_pages(mapped[0])
    np.testing.assert_array_equal(rows, sides[0][[5, 2299, 0]])
    np.testing.assert_array_equal(mapped[0], sides[0])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 5), (4, 1), (4, 0)])
def test_what_is_set_aside_stays(shape, order):
    matrix = np.asarray(np.random.default_rng(0).normal(size=shape), order=order)
    found = mapped_copy(matrix)
    for _ in range(2):
        np.testing.assert_array_equal(found, matrix)
        assert not shape[1] or found.flags.writeable is False
        release_pages(found)


def test_no_room_to_set_aside(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ResultsError, match="missing: cannot be written"):
        mapped_copy(np.zeros((2, 2)))
