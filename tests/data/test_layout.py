import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.base.errors import DataError
from dcae_bench.data.external import external_datasets, image_folder
from dcae_bench.data.layout import ANY, find_pattern, list_images
from dcae_bench.data.listing import find_images
from tests.data.image_files import LAYOUTS, write_images

CASES = [(name, split, kind) for (name, split), kinds in LAYOUTS.items() for kind in kinds]


@pytest.mark.parametrize(("name", "split", "kind"), CASES)
def test_every_layout_is_found_as_distributed(tmp_path, name, split, kind):
    dataset, paths = external_datasets()[name], LAYOUTS[name, split][kind]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = list(find_images(dataset, tmp_path, split))
    assert [image.path for image in found] == sorted(paths)
    if name == "imagenet":
        classes = [re.findall(r"n\d{8}", image.path)[:1] for image in found]
        assert [[image.label] if image.label else [] for image in found] == classes
    elif name == "mjhq":
        assert [image.label for image in found] == [image.path.split("/")[-2] for image in found]
    else:
        assert not any(image.label for image in found)


@pytest.mark.parametrize(("name", "split"), LAYOUTS)
def test_a_wrong_folder_is_told_what_was_looked_for_and_found(tmp_path, name, split):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").touch()
    dataset = external_datasets()[name]
    with pytest.raises(DataError) as caught:
        find_images(dataset, tmp_path, split)
    message = str(caught.value)
    for part in (
        f"{tmp_path}: holds no {split} images",
        *dataset.patterns(split),
        "found notes.txt, pictures/",
        "--root",
    ):
        assert part in message
    assert dataset.home in message and "\n" not in message


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match=r"'mjhq': has no train split .*; it has eval"):
        external_datasets()["mjhq"].patterns("train")


def test_splits_of_ffhq_do_not_overlap(tmp_path):
    write_images(tmp_path, [f"{number:05}.png" for number in (0, 59_999, 60_000, 69_999)])
    ffhq = external_datasets()["ffhq"]
    found = {split: [image.path for image in find_images(ffhq, tmp_path, split)] for split in ffhq.splits}
    assert found == {"train": ["00000.png", "59999.png"], "eval": ["60000.png", "69999.png"]}


def test_any_folder_takes_images_at_any_depth_and_counts_the_rest(tmp_path):
    for path in ("b.PNG", "a/z.jpg", "a/b/c.webp", "a/readme.txt", ".hidden.jpg", ".cache/x.jpg", "a-b/1.jpeg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    images = find_images(image_folder("own"), tmp_path, "eval")
    left_out, found = images.left_out, [image.path for image in images]
    assert found == ["a/b/c.webp", "a/z.jpg", "a-b/1.jpeg", "b.PNG"]
    assert (left_out.count, left_out.first) == (2, ".hidden.jpg")
    assert [image.path for image in find_images(image_folder("own"), tmp_path, "train")] == found


def test_files_that_the_layout_does_not_name_are_counted(tmp_path):
    write_images(tmp_path, ["val/ILSVRC2012_val_00000001.JPEG"])
    (tmp_path / "val" / "valprep.sh").touch()
    images = find_images(external_datasets()["imagenet"], tmp_path, "eval")
    left_out = images.left_out
    assert images.count == len(list(images)) == 1
    assert (left_out.count, left_out.first) == (1, "val/valprep.sh")


@pytest.mark.parametrize("place", ["train/n01440764", "train/n01440764/n01440764_1.JPEG"])
def test_links_out_of_the_root_are_refused(tmp_path, place):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_images(outside, ["n01440764/n01440764_1.JPEG"])
    (root / place).parent.mkdir(parents=True)
    (root / place).symlink_to(outside / place.removeprefix("train/"))
    with pytest.raises(DataError, match=rf"{place}: leads out of "):
        find_pattern(root, external_datasets()["imagenet"].patterns("train"))


def test_links_that_the_user_vouches_for_are_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_images(outside, ["val/n01440764/ILSVRC2012_val_00000001.JPEG", "other/a.JPEG"])
    root.mkdir()
    (root / "val").symlink_to(outside / "val")
    images = find_images(external_datasets()["imagenet"], root, "eval", follow_links=True)
    assert [image.path for image in images] == ["val/n01440764/ILSVRC2012_val_00000001.JPEG"]
    (root / "b.JPEG").symlink_to(outside / "other" / "a.JPEG")
    found = [image.path for image in list_images(root, ANY, follow_links=True)]
    assert found == ["b.JPEG", "val/n01440764/ILSVRC2012_val_00000001.JPEG"]


@pytest.mark.parametrize("target", ["root/a", "root", "", "outside", "outside/c"])
def test_a_linked_folder_would_count_twice(tmp_path, target):
    """Also one that leads round in a circle, even if the user vouches for links."""
    root = tmp_path / "root"
    write_images(tmp_path, ["root/a/1.png", "outside/c/1.png"])
    (root / "b").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match="b: is a link to a folder"):
        list(list_images(root, ANY))
    (root / "0").symlink_to(tmp_path / "outside" / "c")
    with pytest.raises(DataError, match=r"is a link to .*, whose images would count twice"):
        list(list_images(root, ANY, follow_links=True))


def test_a_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff.png")).touch()
    with pytest.raises(DataError, match="is not UTF-8; rename it"):
        list(list_images(tmp_path, ANY))


names = st.text(st.sampled_from("ab-. 0é"), min_size=1, max_size=4).filter(lambda name: name.strip(". ") == name)


@given(st.sets(st.lists(names, min_size=1, max_size=3).map(tuple), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_the_order_is_that_of_the_paths_parts(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("root")
    files = [(*parts[:-1], f"{parts[-1]}.png") for parts in sorted(paths)]
    for parts in reversed(files):
        root.joinpath(*parts).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(*parts).touch()
    assert [tuple(image.path.split("/")) for image in list_images(root, ANY)] == sorted(files)
