"""Hashes of files, remembered: a large file is read for its hash only once, and again after a change."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cache_dir, open_regular, read_text, sha256_file, sha256_json, write_text

LARGE = 64 << 20
"""Bytes from which on a hash is remembered. A smaller file is hashed in a tenth of a second."""
SETTLED_S = 2.0
"""A file that changed more recently is not remembered: a second change might get the same time."""


def known_sha256(path: Path) -> str:
    """SHA-256 of a regular file, hashed again only if size, times or inode are not those of the remembered hash.

    The hashes are kept in the user's cache directory; deleting them is safe. Raises :class:`OSError` as
    :func:`~dcae_bench.base.files.open_regular` does.
    """
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
    if before.st_size < LARGE:
        return sha256_file(path)
    name = os.path.realpath(path)
    state = [name, before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino, before.st_dev]
    memory = cache_dir() / "hashes" / f"{sha256_json(name)[:24]}.json"
    try:
        known = json.loads(read_text(memory))
        if known["state"] == state and isinstance(known["sha256"], str):
            return known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never hashed, or a damaged note: hash the file
    found = sha256_file(path)
    after = os.stat(path)
    unchanged = (after.st_size, after.st_mtime_ns, after.st_ctime_ns, after.st_ino) == (*state[1:4], state[4])
    if unchanged and time.time() - max(after.st_mtime, after.st_ctime) > SETTLED_S:
        with suppress(ResultsError):  # a cache that cannot be written only costs time
            write_text(memory, json.dumps({"state": state, "sha256": found}) + "\n")
    return found
