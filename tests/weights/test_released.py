"""Released weights, fetched from a hub on the loopback interface."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from dcae_bench.base import known_hashes
from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.catalogue.autoencoders import CATALOGUE, catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.weights import hub
from dcae_bench.weights import released as weights

CONTENT = bytes(range(256)) * 4096
COMMITS = ["a" * 40, "b" * 40]
UNCHECKED = """
from dcae_bench.cli.main import main
from dcae_bench.subjects import released

released.check_released = lambda name, path: None
main()
"""
"""The command, for a hub whose small files are no weights of the catalogue's large models."""
PIN = catalogue().preset("dc-ae-f32c32-in-1.0").weights.revision


class Hub:
    """A hub of one repository per name that answers as the real one does; its faults are switches."""

    def __init__(self):
        self.files = {"model.safetensors": CONTENT, "config.json": b"{}"}
        self.revisions = {"main": COMMITS[1], **{commit: commit for commit in [*COMMITS, PIN]}}
        self.repos: set[str] | None = None
        self.lie_about_hash = False
        self.break_after: int | None = None
        self.stall_after: int | None = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.seen: list[tuple[str, str | None]] = []
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        owner, name, verb, revision, *path = self.path.lstrip("/").split("/")
        file = "/".join(path)
        if verb != "resolve" or (self.hub.repos is not None and f"{owner}/{name}" not in self.hub.repos):
            return self.refuse(404, "RepoNotFound")
        if revision not in self.hub.revisions:
            return self.refuse(404, "RevisionNotFound")
        if file not in self.hub.files:
            return self.refuse(404, "EntryNotFound")
        content, wanted = self.hub.files[file], self.headers.get("Range")
        self.hub.seen.append((self.command, wanted))
        etag = "0" * 64 if self.hub.lie_about_hash else hashlib.sha256(content).hexdigest()
        if len(content) < 100:
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.hub.revisions[revision])
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return None
        part = content[start:]
        if self.hub.stall_after is not None:
            self.wfile.write(part[: self.hub.stall_after])
            self.hub.stalled.set()
            self.hub.go_on.wait(30)
            self.close_connection = True
            return None
        if self.hub.break_after is not None:
            part, self.hub.break_after, self.close_connection = part[: self.hub.break_after], None, True
        self.wfile.write(part)
        return None


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A running hub that huggingface_hub takes for the real one, with an empty cache."""
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    yield server
    server.close()


@pytest.fixture
def unpinned(monkeypatch, tmp_path):
    """A catalogue whose dc-ae-f32c32-in-1.0 has no pinned revision, and a way to record its hash."""

    def write(sha256: str | None = None) -> None:
        text = CATALOGUE.read_text().replace(
            f"      revision: {PIN}\n", f"      sha256: '{sha256}'\n" if sha256 else "", 1
        )
        path = tmp_path / f"catalogue-{sha256}.yaml"
        path.write_text(text)
        monkeypatch.setattr(weights, "catalogue", lambda: catalogue(path))

    write()
    return write


NAME = "dc-ae-f32c32-in-1.0"


def test_a_pinned_file_is_fetched_checked_recorded_and_verified(remote):
    local = weights.fetch(NAME)
    assert local.path.read_bytes() == CONTENT and local.commit == PIN and not local.recorded
    assert local.sha256 == sha256_file(local.path) and local.size == len(CONTENT)
    assert weights.receipt(NAME).sha256 == local.sha256
    assert weights.fetch(NAME).recorded and weights.verify(NAME).path == local.path
    assert [verb for verb, _ in remote.seen].count("GET") == 1, "the second fetch takes the cached file"


def test_without_a_pin_the_newest_commit_is_recorded_and_kept(remote, unpinned):
    assert weights.fetch(NAME).commit == COMMITS[1]
    remote.revisions["main"] = COMMITS[0]
    assert weights.fetch(NAME).commit == COMMITS[1]
    assert weights.fetch(NAME, revision=COMMITS[0]).commit == COMMITS[0]


DENOISER = "dc-ae-f64c128-in-1.0-uvit-h-in-512px"


def test_denoisers_are_fetched_and_verified_the_same_way(remote, tmp_path):
    with pytest.raises(WeightsError, match=f"run `dcae-bench weights fetch {DENOISER}`"):
        weights.verify(DENOISER)
    local = weights.fetch(DENOISER)
    assert local.path.read_bytes() == CONTENT and local.commit == COMMITS[1] and not local.recorded
    assert f"mit-han-lab--{DENOISER}" in str(local.path) and weights.is_fetched(DENOISER)
    assert weights.verify(DENOISER).recorded and weights.locate(DENOISER).path == local.path
    by_hand = tmp_path / "pipeline.safetensors"
    by_hand.write_bytes(b"from another machine")
    assert weights.fetch(DENOISER, path=by_hand).path == by_hand and weights.receipt(DENOISER).commit is None


def test_denoisers_without_network_say_what_to_put_where(remote, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        weights.fetch(DENOISER)
    message = str(caught.value)
    assert f"mit-han-lab/{DENOISER}/model.safetensors" in message and "--path" in message and "\n" not in message


def test_names_of_both_catalogues_are_different_and_suggested():
    known = weights.released_weights()
    denoisers = denoiser_catalogue().denoisers
    assert set(denoisers) < set(known) and not set(denoisers) & set(catalogue().autoencoders)
    assert NAME in known and "sd-vae-f32c32-retrained" not in known
    with pytest.raises(ConfigError, match=f"did you mean {DENOISER} or"):
        weights.fetch(DENOISER.removesuffix("px"))


def test_small_files_have_gits_hash(remote):
    assert hub.download("a/b", "config.json", None).path.read_bytes() == b"{}"


def test_an_interrupted_download_goes_on_where_it_stopped(remote, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    remote.break_after = 300_000
    assert weights.fetch(NAME).path.read_bytes() == CONTENT
    starts = [int(wanted.split("=")[1].split("-")[0]) for verb, wanted in remote.seen if verb == "GET" and wanted]
    assert starts and 0 < max(starts) <= 300_000


def parts() -> list[Path]:
    """Unfinished downloads in the hub's cache."""
    return list(Path(constants.HF_HUB_CACHE).rglob("*.part"))


def test_a_file_that_is_not_the_hubs_is_refused_and_fetched_anew(remote):
    remote.lie_about_hash = True
    for _ in range(2):
        with pytest.raises(WeightsError, match=f"has hash [0-9a-f]{{64}}, the hub has {'0' * 64}; it was deleted"):
            weights.fetch(NAME)
    assert weights.receipt(NAME) is None
    assert not [wanted for verb, wanted in remote.seen if verb == "GET" and wanted], "nothing of it is gone on with"


def test_a_damaged_part_is_not_trusted(remote):
    blob = Path(constants.HF_HUB_CACHE) / "models--a--b" / "blobs" / hashlib.sha256(CONTENT).hexdigest()
    blob.parent.mkdir(parents=True)
    part = blob.with_name(f"{blob.name}.dcae-bench.part")
    part.write_bytes(bytes(1000))
    with pytest.raises(WeightsError, match="it was deleted, run the command again"):
        hub.download("a/b", "model.safetensors", None)
    assert hub.download("a/b", "model.safetensors", None).path.read_bytes() == CONTENT
    shutil.rmtree(constants.HF_HUB_CACHE)
    blob.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + b"more")
    assert hub.download("a/b", "model.safetensors", None).path.read_bytes() == CONTENT and not parts()


def test_a_truncated_file_in_the_cache_is_refused(remote):
    path = weights.fetch(NAME).path
    path.resolve().write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"has hash [0-9a-f]{64}, the hub has [0-9a-f]{64}; delete it and fetch"):
        weights.fetch(NAME)


def test_two_at_once_fetch_a_file_once(remote):
    found = []

    def fetch():
        found.append(hub.download("a/b", "model.safetensors", None))

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 2 and all(file.path.read_bytes() == CONTENT for file in found)
    assert [verb for verb, _ in remote.seen].count("GET") == 1 and not parts()


def test_a_cache_whose_files_cannot_be_locked_is_filled_all_the_same(remote, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(hub.fcntl, "flock", unsupported)
    monkeypatch.setattr("huggingface_hub.file_download.WeakFileLock", lambda *arguments, **options: nullcontext())
    assert weights.fetch(NAME).path.read_bytes() == CONTENT and not parts()


def test_a_connection_that_is_lost_for_good_is_one_line(remote, monkeypatch):
    def lost(*arguments, **options):
        raise RuntimeError("peer closed connection\nwithout a word")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", lost)
    with pytest.raises(WeightsError, match=r"the download failed \(peer closed connection\); run the command again"):
        weights.fetch(NAME)


def test_a_recorded_hash_binds(remote, unpinned):
    unpinned("1" * 64)
    source = remote.files["model.safetensors"]
    path = weights.receipts_path().parent / "by-hand"
    path.parent.mkdir(parents=True)
    path.write_bytes(source)
    with pytest.raises(WeightsError, match=f"but {'1' * 64} is recorded for {NAME}"):
        weights.fetch(NAME, path=path)
    unpinned(hashlib.sha256(source).hexdigest())
    assert weights.fetch(NAME, path=path).recorded


def test_a_commit_whose_content_changed_is_refused(remote, unpinned):
    weights.fetch(NAME)
    remote.files["model.safetensors"] = CONTENT[::-1]
    shutil.rmtree(constants.HF_HUB_CACHE)
    with pytest.raises(WeightsError, match="fetch it again or correct the record"):
        weights.fetch(NAME)


def test_verify_sees_a_changed_or_lost_file(remote, tmp_path):
    with pytest.raises(WeightsError, match=f"run `dcae-bench weights fetch {NAME}`"):
        weights.verify(NAME)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"some weights")
    assert not weights.fetch(NAME, path=file).recorded
    file.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="is recorded for"):
        weights.verify(NAME)
    file.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.verify(NAME)
    weights.receipts_path().write_text("{")
    with pytest.raises(WeightsError, match="delete it and fetch again"):
        weights.verify(NAME)


def test_fetched_weights_are_read_for_their_hash_once_for_each_content(remote, tmp_path, monkeypatch):
    """Gigabytes are not read again for each command; `weights verify` reads them all the same."""
    read = []
    monkeypatch.setattr(known_hashes, "LARGE", 0)
    monkeypatch.setattr(known_hashes, "SETTLED_S", -3600)
    monkeypatch.setattr(known_hashes, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"some weights")
    sha256 = weights.fetch(NAME, path=file).sha256
    assert [weights.locate(NAME).sha256 for _ in range(3)] == [sha256] * 3 and read == [file]
    file.write_bytes(b"other weight")
    with pytest.raises(WeightsError, match="is recorded for"):
        weights.locate(NAME)
    assert read == [file, file]
    with pytest.raises(WeightsError, match="is recorded for"):
        weights.verify(NAME)
    assert read == [file, file], "not by what is remembered"


@pytest.mark.parametrize(
    ("repo", "file", "revision", "words"),
    [
        ("a/b", "model.safetensors", "c" * 40, "no such revision; name another with --revision"),
        ("a/b", "other.safetensors", None, "no such file; correct the name"),
        ("a/none", "model.safetensors", None, "no such repository, or it is private"),
        ("a//b", "model.safetensors", None, "write owner/name"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(remote, repo, file, revision, words):
    remote.repos = {"a/b"}
    with pytest.raises(WeightsError) as caught:
        hub.download(repo, file, revision)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_no_network_says_what_to_put_where(remote, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        weights.fetch(NAME)
    message = str(caught.value)
    assert "mit-han-lab/dc-ae-f32c32-in-1.0/model.safetensors" in message and "\n" not in message
    assert "--path" in message and str(tmp_path / "hub") in message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    weights.fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights.fetch(NAME).path.read_bytes() == CONTENT, "what is cached needs no network"


def test_a_hub_that_cannot_be_reached_is_asked_once(remote, monkeypatch, capfd, caplog):
    weights.fetch(NAME)
    closed = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed)
    capfd.readouterr()
    with pytest.raises(WeightsError, match=r"not in the hub cache .* and the hub cannot be reached"):
        hub.download("a/b", "model.safetensors", None)
    assert not caplog.records and not capfd.readouterr().err
    assert weights.fetch(NAME).commit == PIN, "a pinned file that is cached needs no hub"


def test_weights_that_no_hub_has(remote, tmp_path):
    with pytest.raises(
        WeightsError, match=r"get model\.ckpt from .*kl-f16\.zip, then `dcae-bench weights fetch ldm-kl-f16 --path"
    ):
        weights.fetch("ldm-kl-f16")
    with pytest.raises(WeightsError, match="has no released weights"):
        weights.fetch("sd-vae-f32c32-retrained")
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.fetch("ldm-kl-f16", path=tmp_path / "none")
    with pytest.raises(ConfigError, match="did you mean"):
        weights.fetch("dc-ae-f32c32-in")


def test_evaluation_takes_what_was_fetched_before(remote, tmp_path, monkeypatch):
    by_hand = tmp_path / "model.ckpt"
    by_hand.write_bytes(b"weights by hand")
    weights.fetch("ldm-kl-f16", path=by_hand)
    assert weights.locate("ldm-kl-f16").path == by_hand
    first = weights.locate(NAME)
    assert first.commit == PIN and weights.locate(NAME).path == first.path
    first.path.unlink()
    assert weights.locate(NAME).path.exists(), "lost files are fetched again"
    by_hand.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="is recorded for ldm-kl-f16"):
        weights.locate("ldm-kl-f16")


def test_a_cache_without_links_is_checked_against_the_hub(remote, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda cache_dir=None: False)
    file = hub.download("a/b", "model.safetensors", None)
    assert not file.path.is_symlink() and file.path.read_bytes() == CONTENT
    file.path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="has hash"):
        hub.download("a/b", "model.safetensors", None)


@pytest.fixture
def command(tmp_path):
    """Runs `dcae-bench weights` in a process of its own, against a hub on the loopback interface.

    HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are read when huggingface_hub is imported.
    """
    server = Hub()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "DCAE_BENCH_CACHE": str(tmp_path / "cache")}

    def start(*arguments: str, **variables: str) -> subprocess.Popen:
        words = [sys.executable, "-c", UNCHECKED, "weights", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, env=kept | own | variables, **pipes)

    yield server, start
    server.go_on.set()
    server.close()


def test_a_killed_download_goes_on_in_the_next_process(command, tmp_path):
    server, start = command
    content = server.files["model.safetensors"] = os.urandom(25 << 20)  # huggingface_hub writes 10 MiB at a time
    server.stall_after = 22 << 20
    first = start("fetch", NAME)
    assert server.stalled.wait(60)
    try:
        deadline = time.monotonic() + 30
        while not (found := [path for path in tmp_path.rglob("*.part") if path.stat().st_size >= 20 << 20]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        first.kill()
        first.communicate()
    server.stall_after = None
    server.seen.clear()
    second = start("fetch", NAME)
    assert second.wait(60) == 0, second.communicate()
    second.communicate()
    assert [wanted for verb, wanted in server.seen if verb == "GET"] == [f"bytes={20 << 20}-"]
    receipts = json.loads((tmp_path / "cache" / "weights.json").read_text())
    assert Path(receipts["receipts"][NAME]["path"]).read_bytes() == content
    assert not found[0].exists()


@pytest.mark.long
def test_the_command_honours_the_hubs_variables(command, tmp_path):
    _, start = command

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        process = start(*arguments, **variables)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    offline = run("fetch", NAME, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and offline.stderr.count("\n") == 1 and "--path" in offline.stderr
    fetched = run("fetch", NAME)
    assert fetched.returncode == 0, fetched.stderr
    assert f"revision: {PIN}, sha256: {hashlib.sha256(CONTENT).hexdigest()}" in fetched.stderr
    denoiser = run("fetch", DENOISER)
    assert denoiser.returncode == 0 and "for baselines/denoisers.yaml: revision: " in denoiser.stderr
    wrong = run("fetch", NAME, "--revision", "f" * 40)
    assert wrong.returncode == 2 and "no such revision" in wrong.stderr and "Traceback" not in wrong.stderr
    assert run("verify").returncode == 0
    listed = run("list").stdout
    assert NAME in listed and str(tmp_path / "home")[:20] in listed
    receipts = json.loads((tmp_path / "cache" / "weights.json").read_text())
    assert str(tmp_path / "home") in receipts["receipts"][NAME]["path"]
