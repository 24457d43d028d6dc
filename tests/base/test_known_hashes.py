"""Hashes of files are remembered, and hashed again after any change."""

import os
import time

import pytest

from dcae_bench.base import known_hashes
from dcae_bench.base.files import cache_dir, sha256_file
from dcae_bench.base.known_hashes import known_sha256


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """Every file counts as large and settled; the list receives the files that are read for their hash."""
    read = []
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_hashes, "LARGE", 0)
    monkeypatch.setattr(known_hashes, "SETTLED_S", -3600)
    monkeypatch.setattr(known_hashes, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    return read


def test_a_file_is_read_once_for_each_content(tmp_path, hashed):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    first = known_sha256(path)
    (tmp_path / "link").symlink_to(path)
    assert known_sha256(path) == first == known_sha256(tmp_path / "link") == sha256_file(path) and len(hashed) == 1
    times = path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # size and time of modification are as before
    assert known_sha256(path) == sha256_file(path) != first and len(hashed) == 2
    (tmp_path / "new").write_bytes(b"third")
    os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new").replace(path)
    assert known_sha256(path) == sha256_file(path) and len(hashed) == 3


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path, hashed, monkeypatch):
    """A second change within the clock's resolution would leave size and time as they are."""
    monkeypatch.setattr(known_hashes, "SETTLED_S", 2.0)
    path = tmp_path / "file"
    path.write_bytes(b"first")
    assert known_sha256(path) == known_sha256(path) and len(hashed) == 2
    now = time.time()
    monkeypatch.setattr(known_hashes.time, "time", lambda: now + 10)
    assert known_sha256(path) == known_sha256(path) and len(hashed) == 3


def test_small_files_are_always_hashed(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(known_hashes, "LARGE", 6)
    (tmp_path / "file").write_bytes(b"small")
    assert known_sha256(tmp_path / "file") == known_sha256(tmp_path / "file") and len(hashed) == 2
    assert not cache_dir().exists()


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"state": [], "sha256": "0"}', "\ud800"])
def test_a_damaged_note_costs_only_time(tmp_path, hashed, note):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    known_sha256(path)
    (memory,) = cache_dir().glob("hashes/*.json")
    memory.write_bytes(note.encode(errors="surrogatepass"))
    assert known_sha256(path) == sha256_file(path) and len(hashed) == 2
    assert known_sha256(path) == sha256_file(path) and len(hashed) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, hashed):
    (tmp_path / "cache").write_text("in the way")
    (tmp_path / "file").write_bytes(b"first")
    assert known_sha256(tmp_path / "file") == known_sha256(tmp_path / "file") and len(hashed) == 2
