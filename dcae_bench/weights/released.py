"""Released weights of autoencoders and denoisers: downloaded or copied by hand, and verified by hash."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.base.files import cache_dir, read_bytes, sha256_file, write_text
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.typed import Sha256, Strict
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.catalogue.entries import ReleasedWeights, suggest_names
from dcae_bench.weights import hub


class Receipt(Strict):
    """Note of the file that was fetched for one name."""

    path: Path
    sha256: Sha256
    size: int = Field(description="bytes")
    commit: str | None = Field(description="commit of the hub's repository; null: a file copied by hand")


class _Receipts(Strict):
    version: int = 1
    receipts: dict[str, Receipt] = Field(default={})


@dataclass(frozen=True)
class VerifiedWeights:
    """A weights file on this machine that has the expected hash."""

    path: Path
    sha256: str
    size: int
    commit: str | None
    recorded: bool
    """Whether the catalogue or an earlier receipt states the hash; if not, the hash is recorded for the first time."""


def receipts_path() -> Path:
    """File that holds the receipts of all fetched weights."""
    return cache_dir() / "weights.json"


def released_weights() -> dict[str, ReleasedWeights]:
    """Released weights of both catalogues by name: autoencoders, then denoisers."""
    autoencoders = {name: preset.weights for name, preset in catalogue().autoencoders.items() if preset.weights}
    return autoencoders | {name: preset.weights for name, preset in denoiser_catalogue().denoisers.items()}


def fetch(
    name: str,
    *,
    revision: str | None = None,
    path: Path | None = None,
    check: Callable[[Path], None] = lambda path: None,
) -> VerifiedWeights:
    """Download the weights of an autoencoder or denoiser, check their hash, and write a receipt.

    ``path`` names a file to use instead of the hub's. Without ``revision`` the function takes the commit of the
    catalogue, else of an earlier receipt, else the newest commit. ``check`` is called with the file before the receipt
    is written, and raises :class:`WeightsError` for a file that must not be believed. Raises :class:`WeightsError` and
    :class:`ConfigError`.
    """
    source = _require_released(name)
    before = _read().receipts.get(name)
    if path is not None:
        path = path.expanduser().resolve()
        try:
            found, size, commit = sha256_file(path), path.stat().st_size, None
        except OSError as error:
            raise WeightsError(f"--path {path}: cannot be read ({error.strerror}); name the downloaded file") from error
    elif source.repo is None:
        raise WeightsError(
            f"{name}: its weights are not on the hub; get {source.file} from {source.address}, then "
            f"`dcae-bench weights fetch {name} --path FILE`"
        )
    else:
        wanted = revision or source.revision or (before.commit if before else None)
        by_hand = f"get the file on another machine and name it with `dcae-bench weights fetch {name} --path FILE`"
        file = hub.download(source.repo, source.file, wanted, by_hand=by_hand)
        path, found, size, commit = file.path, file.sha256, file.size, file.commit
    expected = _expected(source, before, commit)
    if expected is not None and found != expected:
        raise WeightsError(
            f"{path}: has SHA-256 {found}, but {expected} is recorded for {name}; fetch it again or correct the record"
        )
    check(path)
    _write(name, Receipt(path=path, sha256=found, size=size, commit=commit))
    return VerifiedWeights(path, found, size, commit, recorded=expected is not None)


def locate(name: str) -> VerifiedWeights:
    """Weights of a name: the fetched file if :func:`is_fetched`, otherwise a new download. Verifies the hash.

    A large file is read for its hash once, and again after a change. Raises :class:`WeightsError` and
    :class:`ConfigError`.
    """
    return _verify(name, known_sha256) if is_fetched(name) else fetch(name)


def is_fetched(name: str) -> bool:
    """Whether there is a fetched file for a name that has the catalogue's commit or was copied by hand.

    Does not read the file. Raises :class:`WeightsError` and :class:`ConfigError`.
    """
    source = _require_released(name)
    before = receipt(name)
    return bool(before and before.path.exists() and (before.commit is None or source.revision in (before.commit, None)))


def verify(name: str) -> VerifiedWeights:
    """Hash the fetched file again. Raises :class:`WeightsError` when the file is missing or has changed."""
    return _verify(name, sha256_file)


def _verify(name: str, hashed: Callable[[Path], str]) -> VerifiedWeights:
    source = _require_released(name)
    before = _read().receipts.get(name)
    if before is None:
        raise WeightsError(f"{name}: was not fetched; run `dcae-bench weights fetch {name}`")
    try:
        found = hashed(before.path)
    except OSError as error:
        raise WeightsError(
            f"{before.path}: weights of {name} cannot be read ({error.strerror}); fetch them again"
        ) from error
    expected = _expected(source, before, before.commit) or before.sha256
    if found != expected:
        raise WeightsError(f"{before.path}: has SHA-256 {found}, but {expected} is recorded for {name}; fetch it again")
    return VerifiedWeights(before.path, found, before.size, before.commit, recorded=True)


def commit_of(name: str, sha256: str) -> str | None:
    """Commit of the hub at which the weights of a name have a hash; None where this machine does not know it."""
    source, before = released_weights().get(name), receipt(name)
    if before is not None and before.commit is not None and before.sha256 == sha256:
        return before.commit
    return source.revision if source is not None and source.sha256 == sha256 else None


def other_weights(name: str, sha256: str, commit: str | None) -> str | None:
    """In what weights that were once used are not those of a name now; None if they are, or if nobody can tell.

    ``sha256`` is their hash and ``commit`` their commit of the hub, where it is known. Those of now are the
    catalogue's, and the fetched file's where the catalogue states no hash. Raises :class:`WeightsError`.
    """
    source, before = released_weights().get(name), receipt(name)
    if source is None:
        return f"the catalogue has no released weights of {name} now"
    if source.sha256 is not None:
        known, where = source.sha256, "in the catalogue"
    elif before is not None and (before.commit is None or source.revision in (None, before.commit)):
        known, where = before.sha256, "that were fetched"
    elif None not in (source.revision, commit) and source.revision != commit:
        return f"its weights of {name} are of revision {commit}, the catalogue's of {source.revision}"
    elif before is not None and before.sha256 == sha256:  # of another commit than the catalogue's
        return f"its weights of {name} are of revision {before.commit}, the catalogue's of {source.revision}"
    else:
        return None
    return None if known == sha256 else f"its weights of {name} are {sha256[:12]}, those {where} are {known[:12]}"


def receipt(name: str) -> Receipt | None:
    """Receipt of a name, or None. Does not read the weights."""
    return _read().receipts.get(name)


def _require_released(name: str) -> ReleasedWeights:
    """Catalogue entry of the weights of a name. Raises :class:`WeightsError` and :class:`ConfigError`."""
    known = released_weights()
    if name in known:
        return known[name]
    if name in catalogue().autoencoders:
        raise WeightsError(f"{name}: has no released weights; train it, or pass your own with --weights")
    names = dict.fromkeys([*catalogue().autoencoders, *known])
    raise ConfigError(
        f"'{name}' has no weights in the catalogues{suggest_names(name, names, 'dcae-bench weights list')}"
    )


def _expected(source: ReleasedWeights, before: Receipt | None, commit: str | None) -> str | None:
    """Recorded hash for a commit, or None. A file copied by hand (no commit) must have the catalogue's hash, if any."""
    if source.sha256 and commit in (source.revision, None):
        return source.sha256
    return before.sha256 if before and before.commit == commit and commit is not None else None


def _read() -> _Receipts:
    path = receipts_path()
    try:
        return _Receipts.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        return _Receipts()
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{path}: is not a record of fetched weights; delete it and fetch again") from error


def _write(name: str, new: Receipt) -> None:
    before = _read()
    after = _Receipts(receipts={**before.receipts, name: new})
    if after != before:
        write_text(receipts_path(), after.model_dump_json(indent=2) + "\n")
