import json

import numpy as np
import pytest
from PIL import Image

from dcae_bench.base.errors import DataError, ResultsError
from dcae_bench.base.sealed import read_sealed
from dcae_bench.data import packed
from dcae_bench.data.packed import PackedPhotos, PackIndex, index_path, pack, shrink, write_index
from dcae_bench.data.photos import load_manifest, read_photo

FEW = ("chelsea.png", "coffee.png", "butterfly.jpg", "flower.jpg", "rocket.jpg")


@pytest.fixture
def manifest():
    mixed = load_manifest("photos-mixed")
    few = tuple(photo for photo in mixed.photos if photo.name.split("/")[1] in FEW)
    return mixed.model_copy(update={"photos": few})


@pytest.fixture
def path(tmp_path, manifest):
    path = tmp_path / "eval.npy"
    pack(manifest, "eval", 256, path)
    return path


def test_pack_holds_the_photographs_of_the_split(path, manifest):
    photos = PackedPhotos.open(path)
    assert photos.names == tuple(photo.name for photo in manifest.photos if photo.split == "eval")
    assert len(photos) == 3
    for pixels, photo in zip(photos, manifest.split("eval"), strict=True):
        assert np.array_equal(pixels, shrink(read_photo(photo), 256))
        assert min(pixels.shape[:2]) == 256
    assert (photos.name, photos.split, photos.short_side) == ("photos-mixed", "eval", 256)
    assert photos.manifest_sha256 == manifest.sha256


def test_photographs_are_views_of_the_file_and_read_only(path):
    photos = PackedPhotos.open(path)
    assert isinstance(photos[0].base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        photos[0][0, 0, 0] = 1


def test_packing_again_gives_the_same_file(path, manifest):
    first = PackedPhotos.open(path).sha256
    assert pack(manifest, "eval", 256, path).sha256 == first
    assert pack(manifest, "eval", 128, path).sha256 != first


def test_photographs_are_reduced_by_halving_first():
    pixels = np.random.default_rng(0).integers(0, 256, (140, 200, 3), dtype=np.uint8)
    half = pixels.reshape(70, 2, 100, 2, 3).mean(axis=(1, 3))
    expected = Image.fromarray(np.floor(half + 0.5).astype(np.uint8)).resize((57, 40), Image.Resampling.BICUBIC)
    found = shrink(pixels, 40)
    assert found.shape == (40, 57, 3)
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 2  # the box filter rounds twice
    direct = Image.fromarray(pixels).resize((57, 40), Image.Resampling.BICUBIC)
    assert np.abs(found.astype(int) - np.asarray(direct).astype(int)).max() > 10


@pytest.mark.parametrize("side", [40, 41, 1000])
def test_photographs_are_never_enlarged(side):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    assert np.array_equal(shrink(pixels, side), pixels)


@pytest.mark.parametrize("damage", ["flip", "truncate", "exchange"])
def test_damaged_pack_is_refused(path, damage):
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes({"flip": content, "truncate": content[:-10], "exchange": b"other"}[damage])
    with pytest.raises(DataError, match=r"eval\.npy: sha256 is .* its index says .*; delete it and prepare"):
        PackedPhotos.open(path)


@pytest.mark.parametrize("missing", ["eval.npy", "eval.json"])
def test_missing_file_is_named(path, missing):
    path.with_name(missing).unlink()
    with pytest.raises(DataError, match=f"{missing}: cannot be read"):
        PackedPhotos.open(path)


def test_index_that_is_none_is_refused(path):
    index_path(path).write_text("{}")
    with pytest.raises(DataError, match=r"eval\.json: is not an index"):
        PackedPhotos.open(path)


def test_index_that_does_not_fit_is_refused(path):
    index = read_sealed(index_path(path), PackIndex)
    *photos, last = index.photos
    photos.append(last.model_copy(update={"width": last.width + 1}))
    write_index(index.model_copy(update={"photos": tuple(photos)}), path)
    with pytest.raises(DataError, match="does not fit its index"):
        PackedPhotos.open(path)


def test_an_edited_index_is_refused(path):
    content = json.loads(index_path(path).read_text())
    index_path(path).write_text(json.dumps(content | {"photos": content["photos"][::-1]}))
    with pytest.raises(DataError, match=r"eval\.json: is not an index \(it changed after it was written\); delete"):
        PackedPhotos.open(path)


def test_interrupted_packing_leaves_nothing_that_opens_as_new(path, manifest, monkeypatch):
    def stop(path, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(packed, "write_sealed", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(manifest, "eval", 128, path)
    with pytest.raises(DataError, match="its index says"):
        PackedPhotos.open(path)


def test_folder_that_cannot_be_written(tmp_path, manifest):
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot be written"):
        pack(manifest, "eval", 256, tmp_path / "file" / "eval.npy")


def test_a_pack_that_preparing_now_would_not_make_is_refused(tmp_path, manifest, monkeypatch):
    name, path = "photos-mixed", tmp_path / "photos-mixed" / "eval.npy"
    index = pack(manifest, "eval", 256, path)
    with pytest.raises(DataError, match=r"it holds photographs of manifest [0-9a-f]{12}, the profile needs"):
        PackedPhotos.open_split(tmp_path, name, "eval", 256)  # some of the photographs only
    monkeypatch.setattr(packed, "load_manifest", lambda dataset: manifest)
    assert len(PackedPhotos.open_split(tmp_path, name, "eval", 256)) == len(manifest.split("eval"))
    with pytest.raises(DataError, match=r"its photographs have a shorter side of 256, the profile needs 128; "):
        PackedPhotos.open_split(tmp_path, name, "eval", 128)
    for code in ("1" * 64, None):
        write_index(index.model_copy(update={"code_sha256": code}), path)
        remedy = rf"prepare {name} again \(dcae-bench prepare\)"
        with pytest.raises(DataError, match=rf"it was packed by code {str(code)[:12]}, the profile needs .*{remedy}"):
            PackedPhotos.open_split(tmp_path, name, "eval", 256)
