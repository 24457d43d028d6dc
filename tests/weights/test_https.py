"""Downloads from a server on the loopback interface, which speaks http: only the tests admit that."""

import fcntl
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dcae_bench.base.errors import WeightsError
from dcae_bench.weights import https as module
from dcae_bench.weights.https import download

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    break_after: int | None = None
    ranges = True
    redirect: str | None = None

    def __init__(self):
        self.seen = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        wanted = self.headers.get("Range") if server.ranges else None
        server.seen.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) if server.break_after is None else start + server.break_after
        server.break_after = None
        self.wfile.write(CONTENT[start:end])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "SCHEMES", ("http", "https"))
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "weights.pth"


def test_a_file_is_fetched_and_its_hash_told(server, path):
    told = []
    found = download(server.url, path, sha256_prefix=SHA256[:8], progress=lambda *state: told.append(state))
    assert found == SHA256 and path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "starts again"])
def test_an_interrupted_download_goes_on(server, path, ranges):
    server.ranges, server.break_after = ranges, 3_000_000
    with pytest.raises(WeightsError, match="run the command again to go on"):
        download(server.url, path, sha256_prefix=SHA256[:8])
    assert not path.exists()
    assert download(server.url, path, sha256_prefix=SHA256[:8]) == SHA256
    assert path.read_bytes() == CONTENT
    assert server.seen == [None, "bytes=3000000-" if ranges else None]


def test_a_finished_part_only_needs_its_hash(server, path):
    path.parent.mkdir()
    part = path.with_name("weights.pth.part")
    part.write_bytes(CONTENT)
    assert download(server.url, path, sha256_prefix=SHA256[:8]) == SHA256
    assert not part.exists()


def test_another_content_never_gets_the_name(server, path):
    with pytest.raises(WeightsError, match=f"has SHA-256 {SHA256}, expected 00000000…; it was deleted"):
        download(server.url, path, sha256_prefix="00000000")
    assert list(path.parent.iterdir()) == []


def test_only_one_download_at_a_time(server, path):
    path.parent.mkdir()
    with open(path.with_name("weights.pth.part"), "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another process is fetching it"):
            download(server.url, path, sha256_prefix=SHA256[:8])


def test_only_https(server, path, monkeypatch):
    server.redirect = "ftp://127.0.0.1/file"
    with pytest.raises(WeightsError, match=r"ftp://127\.0\.0\.1/file: is not https"):
        download(server.url, path, sha256_prefix=SHA256[:8])
    monkeypatch.setattr(module, "SCHEMES", ("https",))
    with pytest.raises(WeightsError, match="is not https"):
        download(server.url, path, sha256_prefix=SHA256[:8])
    assert server.seen == []


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/none", "https://"])
def test_no_answer_is_one_line(path, url):
    with pytest.raises(WeightsError) as caught:
        download(url, path, sha256_prefix="0")
    assert str(caught.value).startswith(f"{url}: the download failed") and "\n" not in str(caught.value)
