"""Whole images: how they are reduced and trimmed, in what order they stand, and how they are batched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dcae_bench.base.errors import DataError
from dcae_bench.data.external import image_folder
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.native import NativeCrops, batches_by_size, native_crop, native_size
from dcae_bench.data.prepare import prepare_files

SIDES = st.integers(1, 200)


@given(height=SIDES, width=SIDES, limit=st.integers(1, 120), multiple=st.sampled_from([1, 2, 8, 32]))
def test_the_size_is_known_without_the_pixels(height, width, limit, multiple):
    found = native_crop(np.zeros((height, width, 3), np.uint8), limit, multiple).shape[:2]
    assert found == native_size(height, width, limit, multiple)
    assert not found[0] % multiple and not found[1] % multiple and min(found) <= max(limit, multiple)
    assert found[0] <= height and found[1] <= width


def test_the_middle_is_kept_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    assert np.array_equal(native_crop(pixels, 64, 8), pixels[2:42, 3:67])
    assert native_crop(pixels, 64, 1) is not None and np.array_equal(native_crop(pixels, 64, 1), pixels)


def test_a_large_image_is_reduced_as_the_adm_crop_reduces_it():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 170, 3), dtype=np.uint8)
    halved = Image.fromarray(pixels).resize((85, 45), Image.Resampling.BOX)
    wanted = np.asarray(halved.resize((round(85 * 40 / 45), 40), Image.Resampling.BICUBIC))
    assert np.array_equal(native_crop(pixels, 40, 4), wanted[:, (76 - 76) // 2 : 76])


@pytest.fixture
def manifest(tmp_path):
    """Makes the manifest of images of given sizes (width, height)."""

    def make(*sizes):
        for number, size in enumerate(sizes):
            pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            (tmp_path / "images").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        prepare_files(image_folder("own"), "eval", tmp_path / "images", tmp_path / "data")
        return FileManifest(tmp_path / "data" / "eval.parquet")

    return make


def test_images_stand_by_size_and_are_batched_by_it(manifest):
    images = manifest((64, 40), (40, 64), (70, 41), (64, 64), (65, 47), (40, 66))
    crops = NativeCrops(images, 64, 8)
    assert [crops.key(index) for index in range(6)] == ["0.png", "2.png", "4.png", "1.png", "5.png", "3.png"]
    assert crops.sizes == [(40, 64), (40, 64), (40, 64), (64, 40), (64, 40), (64, 64)]
    assert [tuple(crops[index].shape[1:]) for index in range(6)] == crops.sizes
    batches = batches_by_size(crops, 6, 2)
    assert batches == [range(0, 2), range(2, 3), range(3, 5), range(5, 6)]
    assert batches_by_size(object(), 5, 2) == [range(0, 2), range(2, 4), range(4, 5)], "squares are of one size"
    assert crops.settings["crop"] == "whole images, shorter side at most 64 px, sides multiples of 8 px"
    assert crops.settings["sizes"] == "3: 64x40 to 64x64"
    assert crops.sha256 != NativeCrops(images, 64, 4).sha256 != NativeCrops(images, 60, 4).sha256


def test_an_image_without_a_whole_multiple_is_named(manifest):
    images = manifest((64, 64), (500, 33))
    with pytest.raises(DataError, match=r"1.png: is 500x33, of which 448x0 remain as multiples of 64 px; 1 of 2"):
        NativeCrops(images, 64, 64)
    with pytest.raises(DataError, match="smaller than 32 px a side"):
        NativeCrops(images, 20, 4)
