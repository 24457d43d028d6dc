"""Downloads of single files: https only, resumed after an interruption, renamed only after a check of the hash."""

import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file, sync_folder

SCHEMES = ("https",)
CHUNK = 1 << 20
TIMEOUT_S = 30
Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total, which is None if the server does not state it."""


def download(url: str, path: Path, *, sha256_prefix: str, progress: Progress = lambda done, total: None) -> str:
    """Download ``url`` to ``path`` and return the SHA-256 of the file, which must start with ``sha256_prefix``.

    The bytes go to ``<path>.part``; after an interruption the next call appends to that file. A rename creates ``path``
    once the hash is right. Raises :class:`WeightsError` for a server that does not answer, an interrupted or refused
    download, a wrong hash, a folder that cannot be written, or another download of the same file at the same time.
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
            sync_folder(path.parent)
            return found
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise WeightsError(
            f"{url}: the download failed ({reason}); run the command again to go on, or get the file on another "
            "machine and name it with --path"
        ) from error


def _receive(url: str, file: BinaryIO, progress: Progress) -> None:
    """Append the missing bytes to ``file``."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    _require_https(url)
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return  # the file is already complete; the hash decides
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
    """Whether the server sends only the missing bytes. Some servers send the whole file again."""
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
