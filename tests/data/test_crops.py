import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcae_bench.base.errors import DataError
from dcae_bench.data.crops import Window, cut, eval_crops, eval_windows, train_batch, train_crop, train_window
from dcae_bench.data.packed import Photos
from dcae_bench.data.pixels import normalise

EXPECTED_TRAIN = [
    Window(photo=0, top=122, left=126, side=79),
    Window(photo=4, top=90, left=100, side=75),
    Window(photo=4, top=122, left=80, side=247),
]
EXPECTED_EVAL = Window(photo=1, top=0, left=63, side=256)


def inside(window, photos):
    height, width, _ = photos[window.photo].shape
    return 0 <= window.top <= height - window.side and 0 <= window.left <= width - window.side


def test_batches_do_not_matter(photos):
    whole = train_batch(photos, 7, 20, 8, 64)
    assert torch.equal(whole, torch.cat([train_batch(photos, 7, 20, 4, 64), train_batch(photos, 7, 24, 4, 64)]))
    assert whole.shape == (8, 3, 64, 64)
    assert whole.dtype == torch.float32
    assert torch.equal(whole[5], normalise(train_crop(photos, 7, 25, 64)))


def test_seeds_and_indices_matter(photos):
    first = train_window(photos, 0, 3, 64)
    assert train_window(photos, 0, 3, 64) == first
    assert train_window(photos, 1, 3, 64) != first
    windows = {train_window(photos, 0, index, 64) for index in range(100)}
    assert len(windows) > 95


@pytest.mark.parametrize("crop", ["window", "random", "center"])
def test_flips_mirror_about_half_of_the_crops_and_change_nothing_else(photos, crop):
    mirrored = 0
    for index in range(64):
        plain, drawn = (train_crop(photos, 7, index, 64, crop, flips) for flips in (False, True))
        assert torch.equal(drawn, plain) or torch.equal(drawn, plain.flip(2))
        mirrored += not torch.equal(drawn, plain)
    assert 20 <= mirrored <= 44  # the draw is keyed, so the number is always the same
    whole = train_batch(photos, 7, 20, 8, 64, crop, True)
    assert torch.equal(whole[3], normalise(train_crop(photos, 7, 23, 64, crop, True)))


def test_windows_stay_what_they_were(photos):
    # A change here changes every training run: give the data's protocol a new version.
    assert [train_window(photos, 0, index, 64) for index in (0, 1, 1000)] == EXPECTED_TRAIN
    assert eval_windows(photos, 2, 0, 256)[3] == EXPECTED_EVAL


def test_every_photograph_is_used_once_in_each_pass(photos):
    orders = [tuple(train_window(photos, 0, 5 * epoch + k, 64).photo for k in range(5)) for epoch in range(20)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(orders)) > 10


@given(seed=st.integers(0, 2**63), index=st.integers(0, 10**9), resolution=st.integers(8, 600))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_lie_inside_and_are_not_enlarged(photos, seed, index, resolution):
    window = train_window(photos, seed, index, resolution)
    short = min(photos[window.photo].shape[:2])
    assert inside(window, photos)
    assert min(resolution, short) <= window.side <= short


def test_all_scales_count_alike(photos):
    sides = np.array([train_window(photos, 0, 5 * i + k, 32).side for i in range(400) for k in range(5)])
    shorts = [min(photo.shape[:2]) for photo in photos]
    # log-uniform between 32 and the short side: half of the windows lie below the geometric mean
    below = np.mean([(sides < np.sqrt(32 * short)).mean() for short in shorts])
    assert 0.45 < below < 0.55
    assert sides.min() < 36
    assert sides.max() > 330


def test_a_window_shows_its_part_of_the_photograph(photos):
    crop = cut(photos, Window(photo=2, top=100, left=30, side=64), 64)
    assert crop.dtype == torch.uint8
    assert crop[0, :, 0].tolist() == list(range(100, 164))
    assert crop[1, 0].tolist() == list(range(30, 94))
    assert crop[2].unique().tolist() == [80]
    reduced = cut(photos, Window(photo=2, top=100, left=30, side=64), 32)
    assert reduced.shape == (3, 32, 32)
    # away from the ends, the mean of each pair of rows
    assert (reduced[0, 4:-4, 0].int() - torch.arange(100, 164).view(32, 2).float().mean(1).int()[4:-4]).abs().max() <= 1


def test_a_strong_reduction_does_not_alias():
    board = ((np.indices((512, 512)).sum(axis=0) % 2) * 255).astype(np.uint8)
    photos = Photos([np.repeat(board[:, :, None], 3, axis=2)], ["board"])
    crop = cut(photos, Window(0, 0, 0, 512), 64).int()
    assert (crop - 127).abs().max() <= 1


def test_normalised_range(photos):
    images = torch.tensor([0, 255], dtype=torch.uint8)
    assert normalise(images).tolist() == [-1, 1]
    batch = train_batch(photos, 0, 0, 10, 64)
    assert -1 <= batch.min() < -0.9
    assert 0.9 < batch.max() <= 1


def test_evaluation_starts_with_the_middle(photos):
    windows = eval_windows(photos, 3, 0, 200)
    assert [window.photo for window in windows] == [n for n in range(5) for _ in range(3)]
    assert windows[0] == Window(photo=0, top=20, left=0, side=260)
    assert windows[3] == Window(photo=1, top=0, left=72, side=256)
    assert all(inside(window, photos) and window.side >= 200 for window in windows)
    assert len(set(windows)) == 15


def test_every_resolution_shows_the_same_content(photos):
    low, high = (eval_crops(photos, 2, 0, resolution, min_window=256) for resolution in (64, 256))
    assert high.shape == (10, 3, 256, 256)
    # the last channel is constant per photograph, the means of the others tell the place
    assert torch.equal(low[:, 2, 0, 0], high[:, 2, 0, 0])
    smooth = [crops.float().mean(dim=(2, 3)) for crops in (low, high)]
    torch.testing.assert_close(*smooth, atol=1.0, rtol=0)
    assert torch.equal(high, eval_crops(photos, 2, 0, 256))


def test_a_photograph_keeps_its_windows_in_other_company(photos):
    alone = Photos([photos[3]], [photos.names[3]])
    expected = [(w.top, w.left, w.side) for w in eval_windows(photos, 4, 0, 128) if w.photo == 3]
    assert [(w.top, w.left, w.side) for w in eval_windows(alone, 4, 0, 128)] == expected


def test_small_photographs_are_named(photos):
    with pytest.raises(DataError, match=r"photo-1: is 400x256, too small for windows of 257 px"):
        eval_crops(Photos(photos[1:], photos.names[1:]), 1, 0, 64, min_window=257)


def test_evaluation_never_enlarges(photos):
    with pytest.raises(ValueError, match="would be enlarged"):
        eval_crops(photos, 1, 0, 256, min_window=128)
