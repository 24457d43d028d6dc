import errno
import json
import os
import resource
import stat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import (
    atomic_write,
    cache_dir,
    open_regular,
    read_bytes,
    read_text,
    require_regular_file,
    sha256_file,
    sha256_json,
    write_bytes,
    write_text,
    write_with,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def fail(number: int):
    def raising(*_arguments, **_keywords):
        raise OSError(number, os.strerror(number))

    return raising


def test_content_replaces_the_old_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    write_text(path.with_name("text"), "Fréchet\n")
    assert path.read_bytes() == b"new"
    assert path.with_name("text").read_bytes() == "Fréchet\n".encode()
    assert {item.name for item in path.parent.iterdir()} == {"file.bin", "text"}


def test_readers_see_the_old_content_until_the_end(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_inside_leaves_the_old_content(error, tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(type(error)), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("call", "number"), [("os.fsync", errno.ENOSPC), ("os.fsync", errno.EIO), ("pathlib.Path.replace", errno.EROFS)]
)
def test_a_disk_that_fails_leaves_the_old_content_and_one_clear_line(call, number, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(call, fail(number))
    with pytest.raises(ResultsError, match=f"file: cannot be written .{os.strerror(number)}.; free some space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_while_torch_saves_is_the_same_error(tmp_path, monkeypatch):
    """torch turns a failed write into an error of its own."""

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        write = staticmethod(fail(errno.ENOSPC))

    opened = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *arguments: Full(opened(*arguments)))
    with pytest.raises(ResultsError, match="cannot be written"):
        write_with(tmp_path / "file", lambda file: torch.save({"x": torch.zeros(10)}, file))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_or_written_is_a_results_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "below", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResultsError, match=r"cannot be written \(Is a directory"):
        write_bytes(tmp_path / "folder", b"x")
    monkeypatch.setattr("os.open", fail(errno.EACCES))
    with pytest.raises(ResultsError, match=r"cannot be written \(Permission denied"):
        write_bytes(tmp_path / "other", b"x")
    assert {item.name for item in tmp_path.iterdir()} == {"file", "folder"}


def test_data_are_on_disk_before_the_rename_and_the_rename_at_the_end(tmp_path, monkeypatch):
    path, events = tmp_path / "file", []
    fsync, replace = os.fsync, type(path).replace

    def watched_fsync(descriptor):
        found = os.fstat(descriptor)
        events.append(("fsync", "folder" if stat.S_ISDIR(found.st_mode) else found.st_size))
        fsync(descriptor)

    def watched_replace(source, target):
        events.append(("replace", source.stat().st_size))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(type(path), "replace", watched_replace)
    write_bytes(path, b"x" * 1000)
    assert events == [("fsync", 1000), ("replace", 1000), ("fsync", "folder")]
    events.clear()
    write_bytes(tmp_path / "new" / "folder" / "file", b"x")
    made = [("fsync", "folder")] * 2
    assert events == [*made, ("fsync", 1), ("replace", 1), ("fsync", "folder")]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_get_the_users_usual_permissions(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "file", b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == known
    # printf '%s' '{"a":[1,2.5,null],"b":"x"}' | sha256sum
    known = "6739d783db2ab3fd0e308ed566ca042752f3cab5f9516e0e6d9e411041c24c13"
    assert sha256_json({"b": "x", "a": (1, 2.5, None)}) == known


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_json_hash_depends_on_values_and_not_on_order_or_a_round_trip(value):
    backwards = dict(reversed(list(value.items())))
    assert sha256_json(backwards) == sha256_json(value) == sha256_json(json.loads(json.dumps(value)))
    assert sha256_json({**value, "\0new": 1}) != sha256_json({**value, "\0new": 2})


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    for name in ("DCAE_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "dcae-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "dcae-bench"
    monkeypatch.setenv("DCAE_BENCH_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"
    monkeypatch.setenv("DCAE_BENCH_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir() == tmp_path / ".cache" / "dcae-bench"


def test_threads_that_write_leave_the_umask_alone(tmp_path, monkeypatch):
    """It belongs to the process: one thread would read what another set for a moment, and set that for good."""
    asked, umask = [], os.umask
    monkeypatch.setattr(os, "umask", lambda mask: asked.append(mask) or umask(mask))
    write_bytes(tmp_path / "file", b"x")
    assert not asked


@pytest.mark.parametrize("read", [open_regular, require_regular_file, read_bytes, read_text, sha256_file])
def test_only_regular_files_are_opened(tmp_path, read):
    """A named pipe would wait for a writer, and /dev/zero would fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(OSError, match="is a named pipe, not a regular file") as caught:
            read(path)
        assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="is a device, not a regular file"):
        read("/dev/zero")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes("Fréchet\r\nsecond\rthird\n".encode())
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "Fréchet\nsecond\nthird\n" == (tmp_path / "file").read_text()


def test_a_disk_that_fills_inside_a_library_is_told_as_such(tmp_path):
    """Torch hides the system's error; a limit on the size of files stands for the full disk."""
    path, before = tmp_path / "state.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_bytes(b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ResultsError, match=r"state\.pt: cannot be written \(File too large\)"):
            write_with(path, lambda file: torch.save({"weights": torch.zeros(100, 1000)}, file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"] and path.read_bytes() == b"old"


def test_an_error_of_the_library_itself_is_not_replaced(tmp_path):
    def broken(_file):
        raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        write_with(tmp_path / "x", broken)
