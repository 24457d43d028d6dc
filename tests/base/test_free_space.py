"""The check for room before any work."""

import os
import shutil
from collections import namedtuple

import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import require_free_space

Usage = namedtuple("Usage", "total used free")


def test_a_folder_that_is_not_there_yet_counts_as_its_parent(tmp_path):
    require_free_space(tmp_path / "a" / "b", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_with_what_is_free_and_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 20, 93 << 20, 7 << 20))
    with pytest.raises(ResultsError, match="only 7 MiB are free on its disk, 8 are needed") as caught:
        require_free_space(tmp_path, 8)
    assert str(tmp_path) in str(caught.value)
    require_free_space(tmp_path, 7)


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ResultsError, match="cannot be written"):
        require_free_space(tmp_path, 1)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(ResultsError, match="cannot be written"):
        require_free_space(tmp_path / "results", 1)
