"""Data sets in containers, from `prepare` to pixels: as their folder would be, without unpacking."""

import csv
import pickle
import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcae_bench.base.errors import DataError
from dcae_bench.data import manifest as manifest_module
from dcae_bench.data import scan as scan_module
from dcae_bench.data.external import external_datasets, image_folder
from dcae_bench.data.images import FileCrops
from dcae_bench.data.listing import find_images
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.photo_sets import FilePhotos
from dcae_bench.data.prepare import prepare_files
from tests.data.containers import contents, write_parquet, write_tar, write_zip
from tests.data.image_files import LAYOUTS, write_images

OWN, IMAGENET = image_folder("own"), external_datasets()["imagenet"]
PATHS = ["cats/1.png", "cats/2.jpg", "dogs/a/1.png", "dogs/b.webp", "emus/1.png"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def shuffled(files):
    names = list(files)
    random.Random(2).shuffle(names)
    return {name: files[name] for name in names}


def rows(files):
    return [(name, content, None) for name, content in files.items()]


def write_rows(path, files):
    return write_parquet(path, rows(files))


def halves(folder, files, write, ending):
    for which in (0, 1):
        path = write(folder / f"half-{which}{ending}", dict(list(files.items())[which::2]))
    return path


PACKS = {
    "tar": lambda at, files: write_tar(at / "x.tar", files),
    "zip": lambda at, files: write_zip(at / "x.zip", files, zipfile.ZIP_DEFLATED),
    "Parquet": lambda at, files: write_rows(at / "x.parquet", files),
    "shards": lambda at, files: halves(at / "in", files, write_tar, ".tar").parent,
    "a pattern": lambda at, files: halves(at, files, write_rows, ".parquet").with_name("half-*.parquet"),
}


@pytest.mark.parametrize("kind", PACKS)
def test_a_container_is_prepared_as_its_folder_is(tmp_path, kind):
    files = contents(PATHS)
    write_images(tmp_path / "plain", PATHS)
    plain = prepare_files(OWN, "eval", tmp_path / "plain", tmp_path / "data")
    root = PACKS[kind](tmp_path, shuffled(files))
    info = prepare_files(OWN, "eval", root, tmp_path / "packed")
    same = ("count", "bytes", "problems", "tree_sha256", "pattern")
    assert [getattr(info, name) for name in same] == [getattr(plain, name) for name in same]
    assert not plain.containers and info.containers
    one, other = FileManifest(tmp_path / "data" / "eval.parquet"), FileManifest(tmp_path / "packed" / "eval.parquet")
    for index, (first, second) in enumerate(zip(one, other, strict=True)):
        assert first[:8] == second[:8] and first.location is None
        assert second == other[index] and second.container in info.containers
        assert np.array_equal(one.read(index), other.read(index))
    assert [row.label for row in other] == ["cats", "cats", "dogs", "dogs", "emus"]
    assert FileCrops(one, 32).sha256 == FileCrops(other, 32).sha256


def test_images_of_a_container_are_read_once_by_any_number_of_processes(tmp_path, monkeypatch):
    """After a stop, only what was not read; after a change of the container, all."""
    files = contents([f"{number:02}.png" for number in range(30)])
    root = write_tar(tmp_path / "x.tar", shuffled(files))
    read, stop = [], 13

    def reading(place, really=scan_module.read_image):
        if len(read) == stop:
            raise KeyboardInterrupt
        read.append(place.name)
        return really(place)

    monkeypatch.setattr(scan_module, "read_image", reading)
    monkeypatch.setattr(scan_module, "WRITE_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        prepare_files(OWN, "eval", root, tmp_path / "one")
    assert not list((tmp_path / "one").iterdir())
    stop = 1000
    info = prepare_files(OWN, "eval", root, tmp_path / "one")
    assert len(set(read)) == 30 and len(read) <= 30 + scan_module.CHUNK
    read.clear()
    assert prepare_files(OWN, "eval", root, tmp_path / "two") == info and not read
    write_tar(root, files)
    again = prepare_files(OWN, "eval", root, tmp_path / "two")
    assert len(read) == 30 and again.tree_sha256 == info.tree_sha256
    monkeypatch.undo()
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "other cache"))
    assert prepare_files(OWN, "eval", root, tmp_path / "three", workers=2) == again


@pytest.mark.parametrize("kind", ["zip", "Parquet"])
def test_threads_and_processes_read_one_container(tmp_path, kind):
    files = contents([f"{number:02}.png" for number in range(12)])
    prepare_files(OWN, "train", PACKS[kind](tmp_path, shuffled(files)), tmp_path / "data")
    photos = FilePhotos(FileManifest(tmp_path / "data" / "train.parquet"))
    one_by_one = [photos[index] for index in range(12)]
    order = [*range(11, -1, -1), *range(12)]
    copy = pickle.loads(pickle.dumps(photos))
    with ThreadPoolExecutor(8) as pool:
        for index, found in zip(order, pool.map(copy.__getitem__, order), strict=True):
            assert np.array_equal(found, one_by_one[index])
    assert photos.key(3).endswith(": 03.png") and photos.size(3) == (40, 48)


def test_no_two_threads_read_a_manifest_at_a_time(tmp_path, monkeypatch):
    """pyarrow's reader of a file does not bear it: it lost what it had read ahead, once in many runs."""
    prepare_files(OWN, "train", PACKS["zip"](tmp_path, contents(["1.png", "2.png"])), tmp_path / "data")
    manifest = FileManifest(tmp_path / "data" / "train.parquet")
    reading, together = [], []
    read = manifest._read

    def slowly(group):
        reading.append(group)
        time.sleep(0.02)
        together.append(len(reading))
        reading.remove(group)
        return read(group)

    monkeypatch.setattr(manifest, "_read", slowly)
    monkeypatch.setattr(manifest_module, "KEPT_GROUPS", 0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(manifest.__getitem__, [0, 1] * 4))
    assert len(together) == 8 and set(together) == {1}


def test_bad_images_of_a_container_are_all_listed(tmp_path):
    files = contents(["1.png", "2.png", "3.png"])
    files["2.png"] = files["2.png"][:-200]
    broken = write_parquet(tmp_path / "x.parquet", [*rows(files), ("4.png", None, None), ("5.png", b"text", None)])
    with pytest.raises(DataError) as caught:
        prepare_files(OWN, "eval", broken, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{broken}: 2.png: truncated (") and "3 of 5 files cannot be used" in message
    with open(tmp_path / "out" / "eval.problems.csv") as file:
        found = {path: problem for path, problem, _ in list(csv.reader(file))[1:]}
    assert found == {"2.png": "truncated", "4.png": "unreadable", "5.png": "not an image"}


def changed(path):
    write_tar(path, dict(zip(["a.png", "b.png"], reversed(contents(["a.png", "b.png"]).values()), strict=True)))


DAMAGES = {
    "changed": (changed, "x.tar: a.png: sha256 is "),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:600]), "x.tar: a.png: truncated"),
    "gone": (lambda path: path.unlink(), "x.tar: a.png: unreadable"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_container_that_changed_after_it_was_prepared_is_named(tmp_path, damage):
    root = write_tar(tmp_path / "root" / "x.tar", contents(["a.png", "b.png"]))
    prepare_files(OWN, "eval", root.parent, tmp_path / "data" / "own")
    manifest = FileManifest.open_split(tmp_path / "data", "own", "eval")
    change, message = DAMAGES[damage]
    change(root)
    with pytest.raises(DataError) as caught:
        manifest.read(0)
    assert message in str(caught.value)


def test_a_container_behind_a_link_is_read_only_if_vouched_for(tmp_path):
    write_tar(tmp_path / "elsewhere" / "x.tar", contents(["a.png"]))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x.tar").symlink_to(tmp_path / "elsewhere" / "x.tar")
    with pytest.raises(DataError, match=r"leads out of .*--follow-links"):
        prepare_files(OWN, "eval", tmp_path / "root", tmp_path / "out")
    assert prepare_files(OWN, "eval", tmp_path / "root", tmp_path / "out", follow_links=True).follow_links
    assert FileManifest(tmp_path / "out" / "eval.parquet").read(0).shape == (40, 48, 3)


def of_imagenet(split):
    return contents([path.rpartition("/")[2] for path in LAYOUTS["imagenet", split]["hugging face, flat"]])


def as_datasets_distributes(root):
    for split, word in (("train", "train"), ("eval", "validation")):
        write_parquet(root / "data" / f"{word}-00000-of-00001.parquet", rows(of_imagenet(split)))
    write_parquet(root / "data" / "test-00000-of-00001.parquet", rows(contents(["ILSVRC2012_test_00000001.JPEG"])))


def as_the_publisher_distributes(root):
    files = contents(["n01440764_10.JPEG", "n01443537_2.JPEG"])
    classes = {f"{name[:9]}.tar": write_tar(root / "made.tar", {name: files[name]}).read_bytes() for name in files}
    (root / "made.tar").unlink()
    write_tar(root / "ILSVRC2012_img_train.tar", classes)
    write_tar(root / "ILSVRC2012_img_val.tar", contents(LAYOUTS["imagenet", "eval"]["alone"]))


def as_kaggle_distributes(root):
    files = LAYOUTS["imagenet", "train"]["kaggle"] + LAYOUTS["imagenet", "eval"]["kaggle"]
    write_zip(root / "imagenet-object-localization-challenge.zip", contents(files))


def as_a_webdataset(root):
    for split in ("train", "validation"):
        files = contents([f"{split}_0.jpg", f"{split}_1.jpg"])
        write_tar(root / f"imagenet1k-{split}-00.tar", {**files, f"{split}_0.cls": b"7", f"{split}_1.cls": b"12"})


AS = {
    as_datasets_distributes: {
        "train": [("data/n01440764_101_n01440764.JPEG", "n01440764"), ("data/n01443537_2_n01443537.JPEG", "n01443537")],
        "eval": [
            ("data/ILSVRC2012_val_00000001_n01443537.JPEG", "n01443537"),
            ("data/ILSVRC2012_val_00000293_n01440764.JPEG", "n01440764"),
        ],
    },
    as_the_publisher_distributes: {
        "train": [("n01440764_10.JPEG", "n01440764"), ("n01443537_2.JPEG", "n01443537")],
        "eval": [("ILSVRC2012_val_00000001.JPEG", None)],
    },
    as_kaggle_distributes: {
        "train": [("ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10.JPEG", "n01440764")],
        "eval": [("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", None)],
    },
    as_a_webdataset: {
        "train": [("train_0.jpg", "7"), ("train_1.jpg", "12")],
        "eval": [("validation_0.jpg", "7"), ("validation_1.jpg", "12")],
    },
}


@pytest.mark.parametrize("write", AS, ids=lambda write: write.__name__)
def test_imagenet_is_found_in_containers_as_distributed(tmp_path, write):
    write(tmp_path)
    for split, images in AS[write].items():
        found = find_images(IMAGENET, tmp_path, split)
        assert [(image.path, image.label) for image in found] == images and found.containers


def test_a_split_that_no_container_holds_is_said(tmp_path):
    write_parquet(tmp_path / "validation-0.parquet", rows(of_imagenet("eval")))
    with pytest.raises(DataError) as caught:
        find_images(IMAGENET, tmp_path, "train")
    assert "holds no train images" in str(caught.value) and str(caught.value).endswith("(--split eval)")
    (tmp_path / "validation-0.parquet").rename(tmp_path / "x.parquet.gz")
    write_tar(tmp_path / "train.tar", {"a.txt": b"text"})
    (tmp_path / "train.tar").rename(tmp_path / "train.tar.gz")
    with pytest.raises(DataError, match=r"decompress train\.tar\.gz, whose members cannot be read in place, or get"):
        find_images(IMAGENET, tmp_path, "train")


def test_tables_beside_archives_are_left_out(tmp_path):
    """As img2dataset writes them: an archive, and a table of its addresses and captions."""
    write_tar(tmp_path / "00000.tar", contents(["000000000.jpg", "000000001.jpg"]))
    pq.write_table(pa.table({"url": ["a", "b"], "key": ["000000000", "000000001"]}), tmp_path / "00000.parquet")
    info = prepare_files(OWN, "train", tmp_path, tmp_path / "out")
    assert (info.count, info.containers, info.left_out) == (2, ("00000.tar",), 1)
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(
        DataError, match=r"00000\.parquet: has no column of images .*; it has url \(string\), key \(string\); take"
    ):
        find_images(OWN, tmp_path, "train")


def test_classes_that_are_numbers_are_sorted_by_value(tmp_path):
    files = contents([f"{number}.jpg" for number in (2, 10, 7)])
    root = write_tar(tmp_path / "x.tar", {**files, **{f"{n}.cls": str(n).encode() for n in (2, 10, 7)}})
    prepare_files(OWN, "train", root, tmp_path / "out")
    names, places = FileManifest(tmp_path / "out" / "train.parquet").labels()
    assert names == ["2", "7", "10"] and places.tolist() == [2, 0, 1], "the images are 10.jpg, 2.jpg and 7.jpg"


def test_a_missing_split_is_said_although_a_folder_is_a_link(tmp_path):
    write_images(tmp_path / "root", LAYOUTS["imagenet", "eval"]["flat"])
    (tmp_path / "root" / "validation").symlink_to(tmp_path / "root" / "val")
    with pytest.raises(DataError, match="holds no train images"):
        find_images(IMAGENET, tmp_path / "root", "train")


def test_a_missing_shard_is_named(tmp_path):
    for number in (0, 2):
        write_rows(tmp_path / "data" / f"train-{number:05}-of-00004.parquet", contents([f"{number}.png"]))
    with pytest.raises(DataError) as caught:
        prepare_files(OWN, "train", tmp_path, tmp_path / "out")
    for part in (
        "data/train-00001-of-00004.parquet: is missing, as 2 of 4 shards",
        "--partial",
        "data/train-*.parquet",
    ):
        assert part in str(caught.value)
    assert prepare_files(OWN, "train", tmp_path, tmp_path / "out", partial=True).count == 2
    assert find_images(OWN, tmp_path / "data" / "train-*.parquet", "train").count == 2


LABELS = {
    "numbers with gaps": (pa.array([2.0, None, 10.0, -1.0]), ["2", None, "10", None]),
    "texts with gaps": (pa.array(["a", "", None, "b"]), ["a", None, None, "b"]),
    "text": (pa.array(["b", None, "a", "b"]), ["b", None, "a", "b"]),
    "a dictionary": (pa.array(["b", None, "a", "b"]).dictionary_encode(), ["b", None, "a", "b"]),
    "lists": (pa.array([[1], [2], [3], [1, 2]]), [None] * 4),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_rows_are_read_as_they_are_written(tmp_path, kind):
    column, labels = LABELS[kind]
    content = list(contents(["1.png", "2.png", "3.png", "4.png"]).values())
    pq.write_table(pa.table({"jpg": content, "class": column}), tmp_path / "x.parquet")
    assert [image.label for image in find_images(OWN, tmp_path / "x.parquet", "train")] == labels
    pq.write_table(pa.table({"jpg": content, "label": [0.0, 0.5, 1.0, 2.0]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: row 1 has the label 0\.5; write classes"):
        find_images(OWN, tmp_path / "x.parquet", "train")


def test_containers_of_ones_own_are_of_the_splits_that_their_names_say(tmp_path):
    for word in ("train", "test"):
        write_tar(tmp_path / f"{word}-000.tar", contents([f"{word}.png"]))
    found = {split: [image.path for image in find_images(OWN, tmp_path, split)] for split in ("train", "eval")}
    assert found == {"train": ["train.png"], "eval": ["test.png"]}
    undivided = find_images(image_folder("own", ("eval",)), tmp_path, "eval")
    assert [image.path for image in undivided] == ["test.png", "train.png"]
    (tmp_path / "train-000.tar").unlink()
    assert [image.path for image in find_images(OWN, tmp_path, "train")] == ["test.png"], "it is the only one"


def test_files_go_before_containers(tmp_path):
    write_images(tmp_path / "root", ["a.png"])
    write_zip(tmp_path / "root" / "all.zip", contents(["b.png"]))
    found = find_images(OWN, tmp_path / "root", "eval")
    assert [image.path for image in found] == ["a.png"] and found.left_out.containers == ["all.zip"]


CLASSES = {
    "folders": (["cats/1.png", "dogs/x/2.png"], ["cats", "dogs"]),
    "folders in one folder": (["all/in/cats/1.png", "all/in/dogs/2.png"], ["cats", "dogs"]),
    "one class": (["all/cats/1.png", "all/cats/2.png"], ["cats", "cats"]),
    "one below another": (["cats/1.png", "cats/x/2.png"], ["cats", "cats"]),
    "none": (["1.png", "cats/2.png"], [None, "cats"]),
}


@pytest.mark.parametrize("case", CLASSES)
@pytest.mark.parametrize("packed", [False, True])
def test_the_class_is_the_first_folder_that_not_all_share(tmp_path, case, packed):
    paths, labels = CLASSES[case]
    if packed:
        write_zip(tmp_path / "root" / "x.zip", contents(paths))
    else:
        write_images(tmp_path / "root", paths)
    assert [image.label for image in find_images(OWN, tmp_path / "root", "train")] == labels
