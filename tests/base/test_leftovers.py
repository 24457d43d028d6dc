import os
import signal
import subprocess
import sys

import pytest

from dcae_bench.base import leftovers
from dcae_bench.base.files import atomic_write, write_text
from dcae_bench.base.leftovers import LOCK, Hold, remove_folders
from dcae_bench.base.row_files import Layout, RowFiles

WRITER = """
import sys, time
from pathlib import Path
from dcae_bench.base.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def new_process():
    leftovers._swept.clear()


def start_writer(path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_write_into_the_folder_removes_what_a_kill_left(tmp_path):
    process = start_writer(tmp_path / "record.json")
    (part,) = names(tmp_path)
    write_text(tmp_path / "other", "of a living writer: stays")
    assert names(tmp_path) == [part, "other"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    leftovers._swept.clear()
    write_text(tmp_path / "log", "x")
    assert names(tmp_path) == ["log", "other"]


def test_files_of_others_stay(tmp_path):
    for name in (".download.part", "model.safetensors.part", ".x.0123456789abcdef.part.txt", ".hidden"):
        (tmp_path / name).write_text("x")
    before = names(tmp_path)
    write_text(tmp_path / "new", "x")
    assert names(tmp_path) == sorted([*before, "new"])


def test_a_writer_whose_file_was_swept_before_it_was_locked_takes_another(tmp_path, monkeypatch):
    seen, opened = [], os.open

    def swept(path, flags, *mode):
        descriptor = opened(path, flags, *mode)
        if str(path).endswith(".part") and flags & os.O_CREAT and not seen:
            seen.append(path)
            os.unlink(path)
        return descriptor

    monkeypatch.setattr(os, "open", swept)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    assert seen and names(tmp_path) == ["file"]


def test_folders_of_unfinished_work_stay_while_someone_holds_them(tmp_path):
    state = [tmp_path / f".set-{digit * 12}" for digit in "abc"]
    others = [tmp_path / ".set-more-aaaaaaaaaaaa", tmp_path / ".set", tmp_path / ".set-aaaa"]
    for folder in [*state, *others]:
        folder.mkdir()
    (state[0] / LOCK).write_text("")
    files = RowFiles(state[1] / "inner", 1, "x", {"a": Layout(1)})
    files.create_or_resume()
    remove_folders(tmp_path, "set", keep=state[2])
    assert not state[0].exists() and all(folder.exists() for folder in [*state[1:], *others])
    del files
    remove_folders(tmp_path, "set", keep=state[2])
    assert not state[1].exists() and state[2].exists()


def test_a_folder_that_is_removed_before_it_is_held_is_an_error(tmp_path, monkeypatch):
    folder = tmp_path / ".set-aaaaaaaaaaaa"
    folder.mkdir()
    locked = leftovers.fcntl.flock
    monkeypatch.setattr(leftovers.fcntl, "flock", lambda *how: ((folder / LOCK).unlink(), locked(*how)))
    with pytest.raises(FileNotFoundError, match="was removed by another command"):
        Hold(folder)
