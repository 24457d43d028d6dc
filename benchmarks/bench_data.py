"""Speed of drawing a training batch of crops."""

import pytest

from dcae_bench.data.crops import train_batch
from dcae_bench.data.packed import PackedPhotos, pack
from dcae_bench.data.photos import load_manifest


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "train.npy"
    pack(load_manifest("photos-indoor"), "train", 256, path)
    return PackedPhotos.open(path)


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_train_batch_of_8(benchmark, photos, resolution):
    batch = benchmark(train_batch, photos, 0, 0, 8, resolution)
    assert batch.shape == (8, 3, resolution, resolution)
