"""Single files from the web: https only, resumed where they stopped, hash checked before they get their name."""

import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from dcae_bench.errors import WeightsError
from dcae_bench.files import sha256_file

SCHEMES = ("https",)
CHUNK = 1 << 20
TIMEOUT_S = 30
Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and the bytes there will be, null where the server does not say."""


def download(url: str, path: Path, *, sha256_prefix: str, progress: Progress = lambda done, total: None) -> str:
    """Fetch ``url`` to ``path`` and return its SHA-256, whose first digits are known.

    The bytes go to ``<path>.part``, where the next call goes on after an interruption; ``path`` appears only when the
    hash fits, by a rename. Raises :class:`WeightsError`: no answer, an interrupted or refused download, another hash, a
    folder that cannot be written, or a second download of the same file at the same time.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WeightsError(f"{part}: another process is fetching it; wait for it to end") from error
            _receive(url, file, progress)
            file.flush()
            os.fsync(file.fileno())
            found = sha256_file(part)
            if not found.startswith(sha256_prefix):
                part.unlink()
                raise WeightsError(
                    f"{url}: what came has SHA-256 {found}, expected {sha256_prefix}…; it was deleted, run the command "
                    "again"
                )
            part.replace(path)
            return found
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise WeightsError(
            f"{url}: the download failed ({reason}); run the command again to go on, or get the file on another "
            "machine and name it with --path"
        ) from error


def _receive(url: str, file: BinaryIO, progress: Progress) -> None:
    """Append to ``file`` what it lacks."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    _require_https(url)
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return  # everything is there already; the hash decides
        raise
    with response:
        if start and not _continues(response, start):
            file.truncate(0)
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        done = start
        while chunk := response.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether the server sends the rest; some send the whole file again."""
    return response.status == http.client.PARTIAL_CONTENT and response.headers.get("Content-Range", "").startswith(
        f"bytes {start}-"
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise WeightsError(f"{url}: is not https; get the file yourself and name it with --path")
