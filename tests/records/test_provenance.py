import re
import shutil
import subprocess
import time
from datetime import UTC, datetime

import pytest

from dcae_bench.base.files import sha256_json
from dcae_bench.records import provenance
from dcae_bench.records.provenance import Device, Stopwatch, collect, git_state


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder that counts as the checkout, and caches that forget between tests."""
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "other.py").write_text("x = 1\n")
    git_state.cache_clear()
    yield tmp_path
    git_state.cache_clear()


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
    found = collect(code="c" * 64, config={"lr": 0.5}, seed=7, device=device, clock=clock)
    assert found.config_sha256 == sha256_json({"lr": 0.5}) and found.seed == 7 and found.device == device
    assert found.command == "dcae-bench train --output 'a folder/x'"
    assert clock.started == found.started <= found.finished <= datetime.now(UTC)
    assert 5 <= found.seconds <= clock.seconds + 1e-3
    assert {"python", "torch", "numpy", "diffusers"} <= found.versions.keys()
    assert re.fullmatch("[0-9a-f]{64}", found.code_sha256)
