"""Files of the Hugging Face hub: downloaded and checked against the hub's hash. Each failure is a one-line error."""

import fcntl
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import read_bytes, sha256_file, sync_folder
from dcae_bench.base.known_hashes import known_sha256

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

COMMIT = re.compile(r"^[0-9a-f]{40}$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


class NoSuchFile(WeightsError):
    """The source exists but lacks the file."""


@dataclass(frozen=True)
class HubFile:
    """A file of the hub that is on this machine and has the hub's hash."""

    path: Path
    commit: str
    """Commit that the revision stands for."""
    sha256: str
    size: int


def download(
    repo: str, file: str, revision: str | None, *, by_hand: str = "get the file on another machine"
) -> HubFile:
    """Download one file, or take it from the hub's cache. An interrupted download goes on where it stopped.

    ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and ``HF_TOKEN`` have their usual meaning. The content must have
    the hash that the hub states for the file. ``by_hand`` is the advice in the error about an unreachable hub.
    Raises :class:`WeightsError` for an unknown repository, revision or file, for a damaged file, and when the file is
    not cached and there is no network.
    """
    from huggingface_hub import constants, errors

    name = f"{repo}/{file}" + (f" at revision {revision}" if revision else "")
    try:
        path = _get(repo, file, revision)
    except WeightsError:
        raise
    except errors.GatedRepoError as error:
        raise WeightsError(f"{name}: the repository wants its licence accepted; do so, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"{name}: the hub has no such repository, or it is private; correct the id") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{name}: the repository has no such revision; name another with --revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{name}: not in the hub cache {constants.HF_HUB_CACHE} and the hub cannot be reached; {by_hand}, or copy "
            "that machine's cache and set HF_HOME"
        ) from error
    except errors.EntryNotFoundError as error:
        raise NoSuchFile(f"{name}: the repository has no such file; correct the name") from error
    except errors.HFValidationError as error:
        raise WeightsError(f"{name}: is not a hub id ({str(error).splitlines()[0]}); write owner/name") from error
    except Exception as error:  # the HTTP client of the hub raises a different error for each way a download breaks off
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{name}: the download failed ({reason}); run the command again to go on") from error
    commit = _commit(path)
    sha256 = known_sha256(path)
    _require_hash(path, sha256, name, path.resolve().name if path.is_symlink() else _hub_hash(repo, file, revision))
    return HubFile(path, commit, sha256, path.stat().st_size)


def _get(repo: str, file: str, revision: str | None) -> Path:
    """Path of the file in the hub's cache; downloads the file if the cache lacks it.

    A pinned and cached file needs no network. A hub that does not answer is asked only once, because huggingface_hub
    alone would repeat the request for half a minute and print each failure.
    """
    from huggingface_hub import hf_hub_download

    if revision and COMMIT.match(revision) and (path := find_cached(repo, file, revision)):
        return path
    found = _ask_hub(repo, file, revision)
    if found and SHA256.match(found.etag or "") and not find_cached(repo, file, found.commit_hash):
        _fetch_blob(repo, file, revision, found)
    return Path(hf_hub_download(repo, file, revision=revision, local_files_only=found is None))


def find_cached(repo: str, file: str, revision: str | None) -> Path | None:
    """Path of the file in the hub's cache, or None. Does not contact the hub."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))
    except (
        errors.LocalEntryNotFoundError,
        errors.HFValidationError,
    ):  # HFValidationError: the id is invalid, so nothing is cached
        return None


def _fetch_blob(repo: str, file: str, revision: str | None, found: "HfFileMetadata") -> None:
    """Download a large file into the blobs of the hub's cache. huggingface_hub finds the blob there and links to it.

    huggingface_hub itself restarts an interrupted download from zero in every process (its issue 4196). This function
    appends to a partial file instead, one process at a time. It leaves the download to huggingface_hub if the cache
    cannot hold links, because the file would then be stored twice, and if files cannot be locked.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    if not are_symlinks_supported(constants.HF_HUB_CACHE):
        return
    blob = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs" / str(found.etag)
    part = blob.with_name(f"{blob.name}.dcae-bench.part")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX)
        except OSError:
            part.unlink(missing_ok=True)
            return
        if blob.exists():  # another process downloaded it while this one waited for the lock
            part.unlink(missing_ok=True)
            return
        done = out.seek(0, os.SEEK_END)
        if found.size is not None and done > found.size:
            done = out.truncate(0)
        url, headers = hf_hub_url(repo, file, revision=revision), build_hf_headers()
        http_get(url, out, resume_size=done, headers=headers, expected_size=found.size, displayed_filename=file)
        out.flush()
        os.fsync(out.fileno())
        if (sha256 := sha256_file(part)) != blob.name:
            out.truncate(0)
            raise WeightsError(
                f"{repo}/{file}: what came has hash {sha256}, the hub has {blob.name}; it was deleted, run the command "
                "again"
            )
        part.replace(blob)
        sync_folder(blob.parent)


def _ask_hub(repo: str, file: str, revision: str | None) -> "HfFileMetadata | None":
    """Metadata of a file from the hub; None if the hub does not answer. A refusal raises huggingface_hub's error."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        return get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
    except errors.HFValidationError:
        raise
    except errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        return None
    except Exception:  # the HTTP client raises a different error for each way a hub is out of reach
        return None


def _commit(path: Path) -> str:
    """Commit of a cached file: the name of the folder below ``snapshots``."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else "unknown"


def _hub_hash(repo: str, file: str, revision: str | None) -> str:
    """Hash of a file from the hub, for file systems without links, where no link's target names the hash."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        return get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).etag or ""
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError):
        return ""


def _require_hash(path: Path, sha256: str, name: str, wanted: str) -> None:
    """Check a file against the hub's hash: SHA-256 for a large file, git's SHA-1 for a small one."""
    if SHA256.match(wanted):
        found = sha256
    elif COMMIT.match(wanted):  # git's SHA-1 has as many digits as a commit
        content = read_bytes(path)
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        raise WeightsError(f"{name}: the hub gives no hash for {path}; get the file and name it with --path")
    if found != wanted:
        raise WeightsError(f"{name}: {path.resolve()} has hash {found}, the hub has {wanted}; delete it and fetch")
