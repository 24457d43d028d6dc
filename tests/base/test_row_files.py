import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base import row_files
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.row_files import STATE, Layout, RowFiles

ROWS, HEADER = 10, b"header"
LAYOUTS = {"a": Layout(4, HEADER), "b": Layout(16)}
A, B = np.arange(1, ROWS + 1, dtype=np.int32)[:, None], np.arange(1.0, 2 * ROWS + 1).reshape(ROWS, 2)
BATCHES = [range(start, min(start + 3, ROWS)) for start in range(0, ROWS, 3)]


def open_files(folder, identity="x"):
    return RowFiles(folder, ROWS, identity, LAYOUTS)


def write(files, batches):
    with files:
        for rows in batches:
            files.write(rows, {"a": A[rows.start : rows.stop], "b": B[rows.start : rows.stop]})


def resume(folder):
    files = open_files(folder)
    files.create_or_resume()
    return files


@pytest.fixture
def folder(tmp_path):
    """Files with the first three of four batches."""
    files = resume(tmp_path / "state")
    write(files, BATCHES[:2])
    write(files, BATCHES[2:3])
    return files.folder


def check_whole(folder):
    files = resume(folder)
    write(files, files.unfinished(BATCHES))
    assert files.written().all()
    assert (folder / "a").read_bytes() == HEADER + A.tobytes() and (folder / "b").read_bytes() == B.tobytes()


def test_written_rows_are_kept_and_the_others_are_named(folder):
    files = resume(folder)
    assert files.written().tolist() == [True] * 9 + [False]
    assert files.unfinished(BATCHES) == BATCHES[3:]
    check_whole(folder)


def test_rows_count_once_they_are_committed_and_a_commit_comes_every_few_seconds(tmp_path, monkeypatch):
    files = resume(tmp_path / "state")
    files.write(BATCHES[0], {"a": A[:3], "b": B[:3]})
    assert not files.written().any()
    monkeypatch.setattr(row_files, "COMMIT_S", 0.0)
    files.write(BATCHES[1], {"a": A[3:6], "b": B[3:6]})
    assert files.written().tolist() == [True] * 6 + [False] * 4


@given(name=st.sampled_from(["a", "b", "done"]), at=st.floats(0, 0.999), cut=st.booleans(), byte=st.integers(0, 255))
def test_what_does_not_fit_its_checksum_is_done_again(tmp_path_factory, name, at, cut, byte):
    folder = tmp_path_factory.mktemp("rows") / "state"
    write(resume(folder), BATCHES[:3])
    (path,) = folder.glob(f"{name}*")
    content = bytearray(path.read_bytes())
    place = int(at * len(content))
    if cut:
        del content[place:]
    else:
        content[place] = byte
    path.write_bytes(content)
    check_whole(folder)


@pytest.mark.parametrize("name", ["a", "b", "done", STATE])
def test_an_empty_file_and_a_missing_one_are_nothing_done(folder, name):
    for damage in (lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        for path in folder.glob(f"{name}*"):
            damage(path)
        files = resume(folder)
        assert not files.written().any()
        write(files, BATCHES[:3])
        del files  # a living owner would keep the next one from checking


def test_zeros_in_place_of_rows_are_found(folder):
    content = (folder / "b").read_bytes()
    (folder / "b").write_bytes(content[:48] + bytes(48) + content[96:])
    assert resume(folder).unfinished(BATCHES) == [BATCHES[1], BATCHES[3]]


def test_state_of_another_identity_is_removed_and_its_journal_fits_no_other(folder):
    (journal,) = folder.glob("done-*")
    kept = journal.read_bytes()
    files = open_files(folder, "y")
    files.create_or_resume()
    (folder / journal.name).write_bytes(kept)
    assert not files.written().any()


def test_others_join_and_share_the_rows(tmp_path):
    first, second = open_files(tmp_path / "state"), open_files(tmp_path / "state")
    with pytest.raises(ResultsError, match="is missing; run the same command again"):
        second.join()
    first.create_or_resume()
    second.join()
    write(first, BATCHES[::2])
    write(second, BATCHES[1::2])
    assert first.written().all() and second.written().all()
    check_whole(tmp_path / "state")


def test_a_second_command_leaves_the_journal_of_a_living_one_alone(tmp_path):
    first = resume(tmp_path / "state")
    write(first, BATCHES[:1])
    second = resume(tmp_path / "state")
    write(first, BATCHES[1:2])
    write(second, BATCHES[2:3])
    assert first.unfinished(BATCHES) == second.unfinished(BATCHES) == BATCHES[3:]
    check_whole(tmp_path / "state")


def test_rows_are_on_disk_before_the_journal_says_so(tmp_path, monkeypatch):
    files, events = resume(tmp_path / "state"), []
    monkeypatch.setattr(row_files, "sync_file", lambda path: events.append(path.name))
    monkeypatch.setattr(row_files.os, "fsync", lambda descriptor: events.append("journal"))
    files.write(BATCHES[0], {"a": A[:3], "b": B[:3]})
    assert events == [] and not [*files.folder.glob("done-*")]
    files.commit()
    assert events[:3] == ["a", "b", "journal"]
