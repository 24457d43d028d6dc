import sys

import numpy as np
import pytest
from PIL import Image

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_file
from dcae_bench.data import photos as module
from dcae_bench.data.photos import DATASETS, load_manifest, locate, read_photo


@pytest.fixture(params=DATASETS)
def manifest(request):
    return load_manifest(request.param)


def stored(tmp_path, monkeypatch, save):
    """A manifest entry for a file of ours."""
    path = tmp_path / "photo.png"
    save(path)
    monkeypatch.setattr(module, "locate", lambda photo: path)
    photo = load_manifest("photos-mixed").photos[0]
    return path, photo.model_copy(update={"sha256": sha256_file(path), "width": 40, "height": 30})


def test_installed_photographs_are_the_ones_of_the_manifest(manifest):
    for photo in manifest.photos:
        assert sha256_file(locate(photo)) == photo.sha256, photo.name
        with Image.open(locate(photo)) as image:
            assert image.size == (photo.width, photo.height), photo.name
            assert image.getexif().get(0x0112, 1) == 1
            assert image.mode in ("RGB", "RGBA")
        assert min(photo.width, photo.height) >= 256


def test_alpha_channels_are_opaque_so_that_dropping_them_changes_nothing():
    count = 0
    for photo in load_manifest("photos-mixed").photos:
        with Image.open(locate(photo)) as image:
            if image.mode == "RGBA":
                assert image.getchannel("A").getextrema() == (255, 255), photo.name
                count += 1
    assert count > 0


def test_packages_are_not_imported(manifest):
    read_photo(manifest.photos[0])
    assert not {"mvtbdata", "interior_photos"} & set(sys.modules)


def test_scenes_are_not_split(manifest):
    train, evaluation = manifest.split("train"), manifest.split("eval")
    assert len(train) + len(evaluation) == len(manifest.photos)
    assert not {photo.group for photo in train} & {photo.group for photo in evaluation}
    assert 0.2 < len(evaluation) / len(manifest.photos) < 0.3


def test_no_photograph_stands_twice():
    photos = [photo for name in DATASETS for photo in load_manifest(name).photos]
    assert len({photo.sha256 for photo in photos}) == len(photos)
    assert len({photo.name for photo in photos}) == len(photos)


@pytest.mark.parametrize(
    "scene",
    [
        ("eiffel-1.png", "eiffel-2.png"),
        ("rocks2-l.png", "rocks2-r.png"),
        ("walls-l.png", "walls-r.png"),
        ("aerial-08.png", "aerial-10.png", "aerialphoto.png"),
        ("flowers1.png", "flowers8.png"),
        ("pexels-7303992.jpg", "pexels-7303994.jpg", "pexels-7303995.jpg"),
        ("pexels-7303773.jpg", "pexels-cup-of-couple-7303788.jpg"),
        ("pexels-7303800.jpg", "pexels-7303842.jpg"),
        ("pexels-6963783.jpg", "pexels-cup-of-couple-6963787.jpg"),
    ],
)
def test_views_of_one_scene_share_a_group(scene):
    groups = {photo.name.split("/")[1]: photo.group for name in DATASETS for photo in load_manifest(name).photos}
    assert len({groups[name] for name in scene}) == 1


def test_neighbouring_campus_views_are_not_split():
    views = sorted(
        (int(photo.name[-7:-4]), photo.split) for photo in load_manifest("photos-mixed").photos if "P1070" in photo.path
    )
    splits = dict(views)
    assert set(splits.values()) == {"train", "eval"}
    for number, split in views:
        assert splits.get(number + 1, split) == split


def test_every_package_has_its_licence(manifest):
    assert {photo.package for photo in manifest.photos} == set(manifest.packages)
    assert all(package.licence for package in manifest.packages.values())


def test_identity_follows_what_shapes_the_data(manifest):
    photo, *rest = manifest.photos
    credited = photo.model_copy(update={"credit": "somebody"})
    assert manifest.model_copy(update={"photos": (credited, *rest)}).sha256 == manifest.sha256
    for change in ({"sha256": "0" * 64}, {"split": "eval" if photo.split == "train" else "train"}):
        changed = photo.model_copy(update=change)
        assert manifest.model_copy(update={"photos": (changed, *rest)}).sha256 != manifest.sha256


def test_unknown_data_set():
    with pytest.raises(DataError, match="'imagenet' does not exist; choose one of photos-indoor, photos-mixed"):
        load_manifest("imagenet")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_photographs_are_read_as_rgb(tmp_path, monkeypatch, mode):
    colour = (51, 51, 51)  # one of the palette's
    image = Image.new("RGB", (40, 30), colour).convert(mode)
    _, photo = stored(tmp_path, monkeypatch, image.save)
    pixels = read_photo(photo)
    assert pixels.shape == (30, 40, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == colour).all()


def test_photographs_are_turned_upright(tmp_path, monkeypatch):
    image = Image.new("RGB", (30, 40))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    _, photo = stored(tmp_path, monkeypatch, lambda path: image.save(path, exif=exif))
    assert read_photo(photo)[0, -1].tolist() == [255, 0, 0]


def test_missing_package(monkeypatch):
    photo = load_manifest("photos-indoor").photos[0].model_copy(update={"package": "no-such-package"})
    with pytest.raises(DataError, match=r"package no-such-package is not installed; run: pip install"):
        read_photo(photo)


def test_missing_file_names_the_pinned_package():
    photo = load_manifest("photos-mixed").photos[0].model_copy(update={"path": "mvtbdata/none.png"})
    with pytest.raises(DataError, match=r"none\.png: cannot be read.*mvtb-data==1\.6\.1"):
        read_photo(photo)


def test_another_photograph_is_refused(tmp_path, monkeypatch):
    path, photo = stored(tmp_path, monkeypatch, Image.new("RGB", (40, 30)).save)
    Image.new("RGB", (40, 30), "white").save(path)
    with pytest.raises(DataError, match=rf"photo\.png: sha256 is {sha256_file(path)}, expected {photo.sha256}"):
        read_photo(photo)


def noise(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)


def truncated(path):
    noise(path)
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize("save", [truncated, lambda path: path.write_bytes(b"not an image")], ids=["truncated", "text"])
def test_photographs_that_cannot_be_decoded_are_named(tmp_path, monkeypatch, save):
    _, photo = stored(tmp_path, monkeypatch, save)
    with pytest.raises(DataError, match=r"photo\.png: cannot be decoded .*; run: pip install") as error:
        read_photo(photo)
    assert "\n" not in str(error.value)


def test_another_size_is_refused(tmp_path, monkeypatch):
    _, photo = stored(tmp_path, monkeypatch, Image.new("RGB", (41, 30)).save)
    with pytest.raises(DataError, match="is 41x30, expected 40x30"):
        read_photo(photo)
