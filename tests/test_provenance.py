import re
import shutil
import subprocess
import time
from datetime import UTC, datetime

import pytest

from dcae_bench import provenance
from dcae_bench.files import sha256_json
from dcae_bench.provenance import Device, Stopwatch, collect, fingerprint, git_state

CODE = '''
"""Module."""

def f(x):
    """Function."""
    return x + 1


class C:
    """Class."""

    limit: int = 3
'''


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of its own with one package, and caches that forget between edits."""
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner" / "code.py").write_text(CODE)
    (tmp_path / "package" / "other.py").write_text("x = 1\n")
    fingerprint.cache_clear()
    git_state.cache_clear()
    yield tmp_path
    fingerprint.cache_clear()
    git_state.cache_clear()


def of(repository, code: str, *modules: str) -> str:
    (repository / "package" / "inner" / "code.py").write_text(code)
    fingerprint.cache_clear()
    return fingerprint(*(modules or ("package",)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module."""', '"""Another docstring."""'),
        ('    """Function."""\n', ""),
        ('    """Class."""\n', ""),
        ("return x + 1", "return x + 1  # one more"),
        ("return x + 1", "return (x\n            + 1)"),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(repository, old, new):
    assert old in CODE
    assert of(repository, CODE.replace(old, new)) == of(repository, CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x + 1", "x + 2"),
        ("x + 1", "x - 1"),
        ("def f(x)", "def f(x, y=0)"),
        ("def f(x)", "@cached\ndef f(x)"),
        ("limit: int = 3", "limit: int = 4"),
        ("limit: int", "limit: float"),
        ("return x + 1", "'not a docstring'\n    return 'text'"),
    ],
)
def test_code_counts(repository, old, new):
    assert old in CODE
    assert of(repository, CODE.replace(old, new)) != of(repository, CODE)


def test_only_the_named_modules_count(repository):
    modules = ("package.other", "package.inner")
    before = {name: of(repository, CODE, name) for name in (*modules, "package")}
    after = {name: of(repository, CODE + "y = 2\n", name) for name in (*modules, "package")}
    assert [name for name in before if before[name] != after[name]] == ["package.inner", "package"]


def test_files_added_and_moved_count(repository):
    before = of(repository, CODE)
    (repository / "package" / "new.py").write_text("")
    added = of(repository, CODE)
    (repository / "package" / "new.py").rename(repository / "package" / "newer.py")
    assert len({before, added, of(repository, CODE)}) == 3


def test_a_module_that_is_not_there_is_an_error(repository):
    with pytest.raises(FileNotFoundError):
        fingerprint("package.missing")


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_git_state_outside_git(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert git_state() == (None, None)


def test_git_state_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() == (None, None)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_state_tells_a_clean_checkout_from_a_changed_one(repository):
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert git_state() == (commit, False)
    (repository / "result.json").write_text("untracked files are no change of the code")
    git_state.cache_clear()
    assert git_state() == (commit, False)
    (repository / "package" / "other.py").write_text("x = 2\n")
    git_state.cache_clear()
    assert git_state() == (commit, True)


def test_stopwatch_adds_up_interrupted_runs():
    before = time.monotonic()
    clock = Stopwatch(100.0)
    seconds = clock.seconds
    assert 100 <= seconds <= 100 + time.monotonic() - before


def test_collect_says_what_made_a_number(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/dcae-bench", "train", "--output", "a folder/x"])
    clock = Stopwatch(5.0)
    device = Device(kind="cpu", name="cpu", threads=1, precision="fp32")
    found = collect(config={"lr": 0.5}, seed=7, device=device, clock=clock)
    assert found.config_sha256 == sha256_json({"lr": 0.5}) and found.seed == 7 and found.device == device
    assert found.command == "dcae-bench train --output 'a folder/x'"
    assert clock.started == found.started <= found.finished <= datetime.now(UTC)
    assert 5 <= found.seconds <= clock.seconds + 1e-3
    assert {"python", "torch", "numpy", "diffusers"} <= found.versions.keys()
    assert re.fullmatch("[0-9a-f]{64}", found.code_sha256)
