"""Single files of the Hugging Face hub: fetched, checked against the hub's own hash, every failure one line."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from dcae_bench.errors import WeightsError
from dcae_bench.files import sha256_file

COMMIT = re.compile(r"^[0-9a-f]{40}$")
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


class NoSuchFile(WeightsError):
    """A source that is there, without the file that was looked for."""


@dataclass(frozen=True)
class HubFile:
    """A file of the hub on this machine, checked."""

    path: Path
    commit: str
    """Commit the revision resolved to."""
    sha256: str
    size: int


def download(repo: str, file: str, revision: str | None) -> HubFile:
    """Fetch one file, or take it from the hub's cache; an interrupted download goes on where it stopped.

    ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and ``HF_TOKEN`` have their usual meaning. The content is compared
    with the hash that the hub keeps beside the file. Raises :class:`WeightsError` for an unknown repository, revision
    or file, no network and nothing cached, and for a damaged file.
    """
    from huggingface_hub import constants, errors

    name = f"{repo}/{file}" + (f" at revision {revision}" if revision else "")
    try:
        path = _get(repo, file, revision)
    except errors.GatedRepoError as error:
        raise WeightsError(f"{name}: the repository wants its licence accepted; do so, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"{name}: the hub has no such repository, or it is private; correct the id") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{name}: the repository has no such revision; name another with --revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{name}: not in the hub cache {constants.HF_HUB_CACHE} and the hub cannot be reached; get the file on "
            "another machine and name it with `dcae-bench weights fetch NAME --path FILE` (or --weights), or copy that "
            "machine's cache and set HF_HOME"
        ) from error
    except errors.EntryNotFoundError as error:
        raise NoSuchFile(f"{name}: the repository has no such file; correct the name") from error
    except errors.HFValidationError as error:
        raise WeightsError(f"{name}: is not a hub id ({str(error).splitlines()[0]}); write owner/name") from error
    except (errors.HfHubHTTPError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{name}: the download failed ({reason}); run the command again to go on") from error
    commit = _commit(path)
    sha256 = sha256_file(path)
    _check(path, sha256, name, path.resolve().name if path.is_symlink() else _hash_of(repo, file, revision))
    return HubFile(path, commit, sha256, path.stat().st_size)


def _get(repo: str, file: str, revision: str | None) -> Path:
    """The file in the hub's cache, downloaded if need be.

    A pinned file that is cached needs no network. A hub that does not answer is asked once: huggingface_hub would try
    for half a minute and say so each time.
    """
    from huggingface_hub import errors, hf_hub_download

    if revision and COMMIT.match(revision):
        try:
            return Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            pass
    return Path(hf_hub_download(repo, file, revision=revision, local_files_only=not _answers(repo, file, revision)))


def _answers(repo: str, file: str, revision: str | None) -> bool:
    """Whether the hub answers for a file; its refusals are raised as huggingface_hub's errors."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
    except errors.HFValidationError:
        raise
    except errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        return False
    except Exception:  # its HTTP client has errors of its own for each way of being out of reach
        return False
    return True


def _commit(path: Path) -> str:
    """Commit of a cached file: the folder below ``snapshots``."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else "unknown"


def _hash_of(repo: str, file: str, revision: str | None) -> str:
    """The hub's hash where the cache keeps no link to a blob that it names (file systems without links)."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        return get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).etag or ""
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError):
        return ""


def _check(path: Path, sha256: str, name: str, wanted: str) -> None:
    """Compare with the hub's hash, which names the cached blob: SHA-256 of large files, git's SHA-1 of small ones."""
    if re.fullmatch(r"[0-9a-f]{64}", wanted):
        found = sha256
    elif re.fullmatch(r"[0-9a-f]{40}", wanted):
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        raise WeightsError(f"{name}: the hub gives no hash for {path}; get the file and name it with --path")
    if found != wanted:
        raise WeightsError(f"{name}: {path.resolve()} has hash {found}, the hub has {wanted}; delete it and fetch")
