"""Archives of strangers that would write elsewhere, never end, or hold what a bundle does not hold."""

import os
import zipfile

import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.tables.bundle import opened as module
from dcae_bench.tables.bundle.opened import opened, require_kinds


def zipped(path, *entries) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("../x.json", "lies outside"),
        ("a/../../x.json", "lies outside"),
        ("/etc/x.json", "lies outside"),
        ("c:/x.json", "lies outside"),
        ("a\\..\\x.json", "lies outside"),
        ("a\nb.json", "cannot be printed"),
        ("\x1b[31m.json", "cannot be printed"),
        ("x" * 500, "too long"),
        (link("x.json"), "is a link"),
    ],
)
def test_a_way_out_of_the_folder_is_refused(tmp_path, entry, text):
    path = tmp_path / "x.zip"
    zipped(path, ("bundle.json", "{}"), (entry, "/etc/passwd"))
    with pytest.raises(ResultsError, match=text), opened(path):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["x.zip"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    zipped(path, ("a.json", b"0" * 5000), ("b.json", b"0" * 5000))
    for limit, value, text in (("LARGEST_FILE", 4999, "has 5000 bytes"), ("LARGEST", 9999, "holds 10000 bytes")):
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, value)
            with pytest.raises(ResultsError, match=text), opened(path):
                pass
    monkeypatch.setattr(module, "MOST_FILES", 1)
    with pytest.raises(ResultsError, match="holds 2 files"), opened(path):
        pass


def test_a_file_that_is_larger_than_it_says_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    zipped(path, ("a.json", b"0" * 5000))
    content = path.read_bytes()
    path.write_bytes(content.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(ResultsError, match="is no zip that can be read"), opened(path):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_an_encrypted_file_and_rare_compression_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    zipped(path, ("a.json", "1"), ("a.json", "2"))
    with pytest.raises(ResultsError, match="is there twice"), opened(path):
        pass
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.json", "1")
    with pytest.raises(ResultsError, match="in another way than by deflate"), opened(path):
        pass
    zipped(path, ("a.json", "1"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="is encrypted"), opened(path):
        pass


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip"])
def test_what_is_no_zip_is_one_line(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ResultsError, match=r"x\.zip: is no zip"), opened(tmp_path / "x.zip"):
        pass


def test_links_pipes_and_programs_in_a_folder_are_refused(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, text, make in (
        ("a.json", "is a link", lambda path: path.symlink_to("/etc/passwd")),
        ("b", "is a link", lambda path: path.symlink_to("/")),
        ("c.json", "is no regular file", os.mkfifo),
    ):
        make(folder / name)
        with pytest.raises(ResultsError, match=text), opened(folder):
            pass
        (folder / name).unlink()
    for name in ("x.html", "x.svg", "x.pkl", "x.py", "x"):
        (folder / name).write_text("")
        with pytest.raises(ResultsError, match="is of a kind that no bundle holds"):
            require_kinds(folder)
        (folder / name).unlink()
    with pytest.raises(ResultsError, match="is no folder and no file"), opened(tmp_path / "nothing"):
        pass


def test_an_error_names_the_zip_and_not_where_it_was_unpacked(tmp_path):
    path = tmp_path / "x.zip"
    zipped(path, ("a.json", "1"))
    with pytest.raises(ResultsError, match=rf"^{path}/bundle\.json: no") as caught, opened(path) as folder:
        raise ResultsError(f"{folder}/bundle.json: no")
    assert "dcae-bench-bundle-" not in str(caught.value)
