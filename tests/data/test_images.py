import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import PIL
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import CONFIG
from dcae_bench.data import adm
from dcae_bench.data.adm import dm_crop
from dcae_bench.data.batches import TrainBatches
from dcae_bench.data.crops import eval_crops, train_batch, train_crop, train_photo, train_unscaled_window
from dcae_bench.data.decode import read_rgb
from dcae_bench.data.external import image_folder
from dcae_bench.data.images import FileCrops, PackedCrops, open_crops
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.packed import PackedPhotos, Photos, pack
from dcae_bench.data.photo_sets import FilePhotos, JoinedPhotos, open_training_set
from dcae_bench.data.photos import load_manifest
from dcae_bench.data.prepare import prepare_files
from dcae_bench.profile.profile import EvaluationSet, load_profile, parse_profile
from dcae_bench.profile.recipes import evaluation_recipe, training_recipe
from tests.data.image_files import encoded, write_images


def gradient(width, height):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x % 256, y % 256, (x + y) // 3 % 256], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("shape", "size", "pixels"),
    [
        ((500, 375), 256, 24_532_369),
        ((500, 375), 512, 98_186_797),
        ((1200, 800), 256, 25_086_583),
        ((1200, 800), 512, 100_000_115),
    ],
)
def test_the_centre_crop_has_the_known_sums(shape, size, pixels):
    """Taken with Pillow 13; others may round otherwise."""
    found = np.asarray(dm_crop(gradient(*shape), size, upscale=True))
    assert found.shape == (size, size, 3)
    tolerance = 0 if PIL.__version__.startswith("13.") else 1e-4 * pixels
    assert found.sum(dtype=np.int64) == pytest.approx(pixels, abs=tolerance)


def test_the_centre_crop_leaves_an_image_of_its_size_alone():
    image = gradient(64, 64)
    assert np.array_equal(np.asarray(dm_crop(image, 64)), np.asarray(image))
    wide = gradient(101, 64)
    assert np.array_equal(np.asarray(dm_crop(wide, 64)), np.asarray(wide)[:, 18:82])


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_the_centre_crop_is_square_and_enlarges_only_if_allowed(width, height, size):
    image = gradient(width, height)
    assert dm_crop(image, size, upscale=True).size == (size, size)
    if min(width, height) < size:
        with pytest.raises(ValueError, match="would be enlarged"):
            dm_crop(image, size)
    else:
        assert dm_crop(image, size).size == (size, size)


@pytest.mark.parametrize("shape", [(20_000, 1), (1, 20_000), (3_001, 2), (9_000, 7)])
def test_a_long_and_thin_image_is_enlarged_in_its_middle_alone(shape, monkeypatch):
    """In a memory of the crop's size, and to the same pixels as by enlarging all of a part around the middle."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), dtype=np.uint8))
    size = 512
    monkeypatch.setattr(adm, "MAX_PIXELS", 2**21)
    tracemalloc.start()
    found = np.asarray(dm_crop(image, size, upscale=True))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    long, thin = max(shape), min(shape)
    margin = (long - 40 * thin) // 2
    part = (margin, 0, long - margin, thin) if shape[0] > shape[1] else (0, margin, thin, long - margin)
    monkeypatch.setattr(adm, "MAX_PIXELS", 2**30)
    expected = np.asarray(dm_crop(image.crop(part), size, upscale=True))
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, patch):
    """(root, data folder) of seven files, one of them small."""
    patch.setenv("DCAE_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    root, data = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("data")
    write_images(root, [f"{folder}/{number}.png" for folder in "ab" for number in range(3)], size=(96, 70))
    (root / "c.jpg").write_bytes(encoded(9, ".jpg", size=(40, 50)))
    for split in ("train", "eval"):
        prepare_files(image_folder("own"), split, root, data / "own")
    return root, data


@pytest.fixture
def crops(prepared):
    return FileCrops(FileManifest(prepared[1] / "own" / "eval.parquet"), 32)


def test_file_crops_are_the_centres_of_the_files(prepared, crops):
    root, _ = prepared
    assert (crops.name, crops.split, crops.resolution, len(crops)) == ("own", "eval", 32, 7)
    keys = [crops.key(index) for index in range(7)]
    assert keys == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    for index, key in enumerate(keys):
        expected = np.asarray(dm_crop(Image.open(root / key), 32))
        assert torch.equal(crops[index], torch.from_numpy(expected.transpose(2, 0, 1).copy()))
    assert torch.equal(crops[-1], crops[6])
    with pytest.raises(IndexError):
        crops[7]


def test_file_crops_can_be_read_by_threads_and_processes(crops):
    expected = torch.stack([crops[index] for index in range(7)])
    with ThreadPoolExecutor(4) as pool:
        assert torch.equal(torch.stack(list(pool.map(crops.__getitem__, range(7)))), expected)
    copy = pickle.loads(pickle.dumps(crops))
    assert torch.equal(copy[6], expected[6]) and copy.sha256 == crops.sha256
    context = get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(crops[3].numpy()))
    child.start()
    assert np.array_equal(queue.get(), expected[3].numpy())
    child.join()


def test_images_are_not_enlarged_unless_the_set_says_so(prepared):
    root, data = prepared
    manifest = FileManifest(data / "own" / "eval.parquet")
    with pytest.raises(DataError) as caught:
        FileCrops(manifest, 64)
    message = str(caught.value)
    for part in (f"{root / 'c.jpg'}: is 40x50 and would be enlarged to 64 px", "1 of 7 images", "'upscale: true'"):
        assert part in message
    assert FileCrops(manifest, 64, upscale=True)[6].shape == (3, 64, 64)


def test_identities_tell_pixels_apart(prepared):
    manifest = FileManifest(prepared[1] / "own" / "eval.parquet")
    low, high = FileCrops(manifest, 32), FileCrops(manifest, 40)
    assert low.manifest_sha256 == high.manifest_sha256 == manifest.info.tree_sha256
    assert low.sha256 != high.sha256 == FileCrops(manifest, 40, upscale=True).sha256


@pytest.mark.parametrize("change", ["other", "gone", "link"])
def test_a_file_that_changed_is_named(tmp_path, monkeypatch, change):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    write_images(root, ["a.png", "b.png"])
    prepare_files(image_folder("own"), "eval", root, tmp_path)
    crops = FileCrops(FileManifest(tmp_path / "eval.parquet"), 32)
    crops[0]
    (root / "b.png").unlink()
    if change == "other":
        (root / "b.png").write_bytes(encoded(77, ".png"))
    if change == "link":
        (tmp_path / "b.png").write_bytes(encoded(1, ".png"))
        (root / "b.png").symlink_to(tmp_path / "b.png")
    reason = {"other": "sha256 is .*, the manifest says", "gone": "unreadable", "link": "leads out of"}[change]
    with pytest.raises(DataError, match=rf"b\.png: {reason}"):
        crops[1]


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """The demo's evaluation packs."""
    data = tmp_path_factory.mktemp("packs")
    for name in ("photos-indoor", "photos-mixed"):
        pack(load_manifest(name), "eval", 256, data / name / "eval.npy")
    return data


@pytest.mark.parametrize("number", range(4))
def test_packed_crops_are_the_demos(packs, number):
    profile = load_profile("demo")
    item = profile.evaluation.sets[number]
    crops = open_crops(profile, item, packs)
    photos = PackedPhotos.open(packs / item.dataset / "eval.npy")
    assert isinstance(crops, PackedCrops)
    expected = eval_crops(photos, 6, profile.seed, item.resolution, 128)
    assert torch.equal(torch.stack([crops[index] for index in range(len(crops))]), expected)
    keys = [crops.key(index) for index in range(len(crops))]
    assert len(set(keys)) == len(expected) and keys[0] == f"{photos.names[0]}#0" and keys[7] == f"{photos.names[1]}#1"
    assert (crops.name, crops.split, crops.manifest_sha256) == (item.dataset, "eval", photos.manifest_sha256)


def test_packed_identities_tell_windows_apart(packs):
    photos = PackedPhotos.open(packs / "photos-indoor" / "eval.npy")
    usual = {"per_photo": 2, "seed": 0, "resolution": 64, "min_window": 128}
    changes = [{}, {"per_photo": 3}, {"seed": 1}, {"resolution": 32}, {"min_window": 64}]
    assert len({PackedCrops(photos, **usual | change).sha256 for change in changes}) == len(changes)
    with pytest.raises(ValueError, match="would be enlarged"):
        PackedCrops(photos, **usual | {"resolution": 256})


def test_the_kind_of_data_set_chooses_the_crops(prepared, packs):
    content = yaml.safe_load((CONFIG / "demo.yaml").read_text())
    del content["ablations"]
    content["evaluation"]["sets"] = [{"dataset": "own", "resolution": 64, "upscale": True}]
    profile = parse_profile(content, "demo")
    crops = open_crops(profile, profile.evaluation.sets[0], prepared[1])
    assert isinstance(crops, FileCrops) and crops[6].shape == (3, 64, 64)
    with pytest.raises(DataError, match=r"ffhq/eval\.json: cannot be read .*prepare"):
        open_crops(profile, EvaluationSet(dataset="ffhq", resolution=64), prepared[1])
    with pytest.raises(DataError, match=r"photos-indoor/eval\.json: cannot be read"):
        open_crops(profile, EvaluationSet(dataset="photos-indoor", resolution=64), prepared[1])


def test_files_are_trained_on_as_if_they_were_packed(prepared):
    root, data = prepared
    files = open_training_set("own", data, 256)
    arrays = [read_rgb(path) for path in sorted(root.rglob("*.*"))]
    packed = Photos(arrays, [str(number) for number in range(7)])
    assert isinstance(files, FilePhotos) and [files.size(n) for n in range(7)] == [packed.size(n) for n in range(7)]
    for crop in ("window", "center", "random"):
        expected = train_batch(packed, 3, 5, 16, 32, crop)
        assert torch.equal(train_batch(files, 3, 5, 16, 32, crop), expected)
        ahead = TrainBatches(files, 3, share=8, stride=8, end=21, resolution=32, crop=crop, threads=3)
        assert torch.equal(torch.cat([ahead(5), ahead(13)]), expected)
        ahead.close()


def test_training_crops_of_each_kind(prepared):
    photos = Photos([np.asarray(gradient(96, 70)), np.asarray(gradient(80, 80))], ["first", "second"])
    for index in range(20):
        photo = photos[train_photo(photos, 0, index)]
        centre = dm_crop(Image.fromarray(photo), 64)
        assert np.array_equal(train_crop(photos, 0, index, 64, "center"), np.asarray(centre).transpose(2, 0, 1))
        place = train_unscaled_window(photos, 0, index, 64)
        assert place.side == 64
        part = photo[place.top : place.top + 64, place.left : place.left + 64]
        assert np.array_equal(train_crop(photos, 0, index, 64, "random"), part.transpose(2, 0, 1))
    assert len({train_unscaled_window(photos, 0, index, 64) for index in range(20)}) > 15


@pytest.mark.parametrize("crop", ["center", "random"])
def test_small_photographs_are_left_out_or_named(prepared, crop):
    root, data = prepared
    files = open_training_set("own", data, 256)
    reason = "is 40x50, too small for a crop of 64 px; .* min_side to 64"
    with pytest.raises(DataError, match=rf"{root / 'c.jpg'}: {reason}"):
        train_batch(files, 0, 0, 7, 64, crop)
    large = JoinedPhotos([files, files], min_side=64)
    assert len(large) == 12
    assert train_batch(large, 0, 0, 12, 64, crop).shape == (12, 3, 64, 64)
    assert [large.key(index) for index in range(12)] == [files.key(index) for index in range(6)] * 2
    with pytest.raises(DataError, match="no photograph has a shorter side of 71 px"):
        JoinedPhotos([files], min_side=71)


def test_sets_are_joined_in_order(prepared, packs):
    files = open_training_set("own", prepared[1], 256)
    photos = PackedPhotos.open(packs / "photos-indoor" / "eval.npy")
    both = JoinedPhotos([photos, files])
    assert len(both) == 9 + 7
    assert both[4] is photos[4] and both.key(4) == photos.names[4]
    assert np.array_equal(both[9], files[0]) and both.size(15) == (50, 40)
    with pytest.raises(IndexError):
        both[16]


def test_a_plan_from_files_changes_no_recipe_but_its_own():
    content = yaml.safe_load((CONFIG / "demo.yaml").read_text())
    del content["ablations"]
    before = training_recipe(parse_profile(content, "demo"), "dc-ae-f32c32", 1)
    assert not {"crop", "min_side"} & before["plan"].keys()
    content["training"]["phases"][1] |= {"crop": "center", "min_side": 64}
    after = training_recipe(parse_profile(content, "demo"), "dc-ae-f32c32", 1)
    assert after["plan"] == before["plan"] | {"crop": "center", "min_side": 64}
    sets = evaluation_recipe(parse_profile(content, "demo"))["sets"]
    assert all("upscale" not in item for item in sets)
