import gzip
import io
import random
import sqlite3
import tarfile
import zipfile

import numpy as np
import pytest

from dcae_bench.base.errors import DataError
from dcae_bench.data.containers import parquet as parquet_module
from tests.data.containers import Opened, contents, write_parquet, write_tar, write_zip
from tests.data.image_files import write_images

PATHS = ["a/1.png", "a/2.jpg", "b/1.png", "b/c/3.webp", "d.png"]


def shuffled(files: dict) -> dict:
    names = list(files)
    random.Random(1).shuffle(names)
    return {name: files[name] for name in names}


def as_tar(folder, files):
    return write_tar(folder / "x.tar", files)


def as_zip(folder, files):
    return write_zip(folder / "x.zip", files)


def as_deflated(folder, files):
    return write_zip(folder / "x.zip", files, zipfile.ZIP_DEFLATED)


def as_parquet(folder, files):
    return write_parquet(folder / "x.parquet", [(name, content, None) for name, content in files.items()])


def as_tars_in_a_tar(folder, files):
    inner = {}
    for name, content in files.items():
        inner.setdefault(name[0], {})[name] = content
    packed = {f"{key}.tar": write_tar(folder / "inner" / f"{key}.tar", part) for key, part in inner.items()}
    return write_tar(folder / "x.tar", {name: path.read_bytes() for name, path in packed.items()})


def as_shards(folder, files):
    names = list(files)
    write_tar(folder / "shards" / "x-0.tar", {name: files[name] for name in names[::2]})
    write_zip(folder / "shards" / "x-1.zip", {name: files[name] for name in names[1::2]})
    return folder / "shards"


@pytest.mark.parametrize(
    "pack", [as_tar, as_zip, as_deflated, as_parquet, as_tars_in_a_tar, as_shards], ids=lambda pack: pack.__name__
)
def test_a_container_holds_what_its_folder_would_in_any_order(tmp_path, pack):
    write_images(tmp_path / "plain", PATHS)
    plain = Opened(tmp_path / "plain")
    packed = Opened(pack(tmp_path, shuffled(contents(PATHS))))
    assert packed.names == plain.names == PATHS
    for index in range(len(plain)):
        assert packed.content(index) == plain.content(index)
        assert np.array_equal(packed[index], plain[index])


def test_a_folder_that_holds_containers_names_their_images_as_unpacking_would(tmp_path):
    write_tar(tmp_path / "a" / "x.tar", contents(["./1.png"]))
    write_zip(tmp_path / "b" / "x.zip", contents(["1.png", "__MACOSX/._1.png", "notes.txt"]))
    write_parquet(tmp_path / "c" / "x.parquet", [(None, content, 0) for content in contents(PATHS[:2]).values()])
    found = Opened(tmp_path)
    assert found.names == ["a/1.png", "b/1.png", "c/x/00000000", "c/x/00000001"]
    assert found[3].shape == (40, 48, 3)
    assert found.describe(0) == f"{tmp_path / 'a' / 'x.tar'}: a/1.png"


def test_classes_of_a_webdataset_lie_in_any_order(tmp_path):
    files = {**contents(["s/000.jpg", "s/001.seg.png"]), "s/001.cls": b"12\n", "s/000.cls": b"7", "s/000.json": b"{}"}
    path = write_tar(tmp_path / "x.tar", shuffled(files))
    assert Opened(path).labelled == [("s/000.jpg", "7"), ("s/001.seg.png", "12")]


def test_rows_of_one_name_bear_their_numbers(tmp_path):
    one, two, three = contents(["1.png", "2.png", "3.png"]).values()
    write_parquet(tmp_path / "x-0.parquet", [("1.png", one, 0), ("2.png", two, -1)])
    write_parquet(tmp_path / "x-1.parquet", [("1.png", three, 1)])
    found = Opened(tmp_path)
    assert found.labelled == [
        ("x-0/00000000", "0"),
        ("x-0/00000001", None),
        ("x-1/00000000", "1"),
    ]
    assert found.content(2) == three


def test_a_large_row_group_is_read_in_steps(tmp_path, monkeypatch):
    files = contents([f"{number:02}.png" for number in range(40)])
    path = write_parquet(tmp_path / "x.parquet", [(name, content, None) for name, content in files.items()], group=40)
    monkeypatch.setattr(parquet_module, "GROUP_BYTES", 1)
    found = Opened(path)
    assert [found.content(index) for index in (0, 15, 16, 39)] == [list(files.values())[n] for n in (0, 15, 16, 39)]


@pytest.mark.parametrize("limit", [10, 2**31])
@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n"])
def test_members_of_any_zip_archive_are_those_that_zipfile_finds(tmp_path, monkeypatch, limit, before):
    """In archives of more than 4 GiB numbers have 64 bits; a low limit makes small archives such ones."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    files = contents([*PATHS, "\u00e9/\u4e2d.png"])
    with zipfile.ZipFile(tmp_path / "plain.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"of some length"
        archive.mkdir("a")
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.undo()
    path = tmp_path / "x.zip"
    path.write_bytes(before + (tmp_path / "plain.zip").read_bytes())
    found = Opened(path)
    with zipfile.ZipFile(path) as archive:
        assert set(found.names) == {name for name in archive.namelist() if not name.endswith("/")} == set(files)
        assert all(found.content(index) == archive.read(name) for index, name in enumerate(found.names))


PNG = contents(["1.png"])["1.png"]


def changed(path, place, value):
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    return path


def flipped(path, place):
    return changed(path, place, path.read_bytes()[place] ^ 0xFF)


def concatenated(folder):
    both = [write_tar(folder / f"{name}.tar", {f"{name}.png": PNG}).read_bytes() for name in "ab"]
    (folder / "x.tar").write_bytes(b"".join(both))
    return folder / "x.tar"


def cut(path, length):
    part = length if isinstance(length, slice) else slice(length)
    path.write_bytes(path.read_bytes()[part])
    return path


def zipped(folder):
    path = write_tar(folder / "x.tar", {"1.png": PNG})
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def linked(folder):
    with tarfile.open(folder / "x.tar", "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "2.png"
        archive.addfile(info, io.BytesIO())
    return folder / "x.tar"


def linked_in_zip(folder):
    info = zipfile.ZipInfo("1.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr(info, "2.png")
    return folder / "x.zip"


def locked(folder):
    """:mod:`zipfile` writes no passwords; the flag alone tells."""
    path = write_zip(folder / "x.zip", {"1.png": PNG})
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


DAMAGED = {
    "tar cut in a member": (
        lambda folder: cut(write_tar(folder / "x.tar", {"1.png": PNG, "2.png": PNG}), 700),
        "x.tar",
    ),
    "tar with a damaged header": (
        lambda folder: flipped(write_tar(folder / "x.tar", {"1.png": PNG[:90], "2.png": PNG}), 1030),
        "a damaged header at byte 1,024",
    ),
    "tar cut between members": (
        lambda folder: cut(write_tar(folder / "x.tar", {"1.png": PNG[:90], "2.png": PNG}), 1024),
        "no mark at its end",
    ),
    "zip of fewer members than it has": (
        lambda folder: changed(write_zip(folder / "x.zip", {"1.png": PNG, "2.png": PNG}), -12, 1),
        "its directory holds more than it says",
    ),
    "tars one after another": (concatenated, "several archives one after another"),
    "tar compressed": (zipped, "is compressed by gzip, so that no member can be read in place; decompress it"),
    "tar with a link": (linked, "1.png is a link"),
    "tar that leads out": (lambda folder: write_tar(folder / "x.tar", {"../1.png": PNG}), "leads out of a folder"),
    "tar with one name twice": (
        lambda folder: write_tar(folder / "x.tar", {"1.png": PNG, "./1.png": PNG}),
        "1.png lies twice in x.tar",
    ),
    "zip cut": (lambda folder: cut(write_zip(folder / "x.zip", {"1.png": PNG}), 300), "no whole zip archive"),
    "zip packed by LZMA": (
        lambda folder: write_zip(folder / "x.zip", {"1.png": PNG}, zipfile.ZIP_LZMA),
        "1.png is compressed by LZMA",
    ),
    "zip with a link": (linked_in_zip, "1.png is a link"),
    "zip with a password": (locked, "1.png is encrypted"),
    "zip without its beginning": (
        lambda folder: cut(write_zip(folder / "x.zip", {"1.png": PNG}), slice(9, None)),
        "its directory is not where it says",
    ),
    "zip with a damaged header": (
        lambda folder: flipped(write_zip(folder / "x.zip", {"1.png": PNG}), 0),
        "no header of 1.png at byte 0",
    ),
    "Parquet cut": (
        lambda folder: cut(write_parquet(folder / "x.parquet", [("1.png", PNG, 0)]), 300),
        "no whole Parquet file",
    ),
    "Parquet without images": (
        lambda folder: write_parquet(folder / "x.parquet", [("1.png", PNG, 0)], column="label"),
        "has no column of images",
    ),
    "no container": (lambda folder: (folder / "x.txt").write_text("") or folder / "x.txt", "is no container"),
    "nothing": (lambda folder: folder / "none", "is not there"),
    "an empty folder": (lambda folder: folder, "holds no eval images"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_container_is_one_line(tmp_path, case):
    make, message = DAMAGED[case]
    path = make(tmp_path)
    with pytest.raises(DataError) as caught:
        Opened(path)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_byte_in_a_zip_archive_is_found(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"1.png": PNG})
    flipped(path, 200)
    with pytest.raises(DataError, match=r"x\.zip: 1\.png: corrupt \(its checksum is not that of the archive\)"):
        Opened(path)[0]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    """The index lies in a temporary file; a limit of its pages stands for the disk."""
    connect = sqlite3.connect

    def limited(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 3")
        return connection

    path = write_tar(tmp_path / "x.tar", {f"{number}.png": PNG for number in range(300)})
    monkeypatch.setattr(sqlite3, "connect", limited)
    with pytest.raises(
        DataError, match=r"x\.tar: the list of its images cannot be written \(.*full\); free some space"
    ):
        Opened(path)


def test_a_row_without_bytes_is_named(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [("1.png", PNG, 0), ("2.png", None, 0)])
    with pytest.raises(DataError, match=r"x\.parquet: row 1 has no bytes"):
        Opened(path)[1]
