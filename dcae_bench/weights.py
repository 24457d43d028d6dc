"""Released weights on this machine: of autoencoders and denoisers, fetched or put there by hand, hashes verified."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcae_bench import hub
from dcae_bench.denoiser_presets import denoiser_catalogue
from dcae_bench.errors import ConfigError, WeightsError
from dcae_bench.files import cache_dir, sha256_file, write_text
from dcae_bench.presets import ReleasedWeights, catalogue, close_names


class Receipt(BaseModel):
    """What was fetched for one name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int = Field(description="bytes")
    commit: str | None = Field(description="commit of the hub's repository; null for a file put there by hand")


class _Receipts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    receipts: dict[str, Receipt] = {}


@dataclass(frozen=True)
class Local:
    """Weights that are on this machine and have the hash they should have."""

    path: Path
    sha256: str
    size: int
    commit: str | None
    recorded: bool
    """Whether the catalogue or an earlier receipt named the hash; else this is its first record."""


def receipts_path() -> Path:
    """The file that records what was fetched."""
    return cache_dir() / "weights.json"


def released() -> dict[str, ReleasedWeights]:
    """Where the released weights of both catalogues are: autoencoders, then denoisers."""
    autoencoders = {name: preset.weights for name, preset in catalogue().autoencoders.items() if preset.weights}
    return autoencoders | {name: preset.weights for name, preset in denoiser_catalogue().denoisers.items()}


def fetch(name: str, *, revision: str | None = None, path: Path | None = None) -> Local:
    """Bring the weights of an autoencoder or denoiser here, check them, and record their commit and hash.

    ``path`` takes a file from there instead of the hub. Without ``revision`` the catalogue's pin counts, then an
    earlier receipt's commit, then the newest commit, which is recorded. Raises :class:`WeightsError` and
    :class:`ConfigError`.
    """
    source = _released(name)
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
    _write(name, Receipt(path=path, sha256=found, size=size, commit=commit))
    return Local(path, found, size, commit, recorded=expected is not None)


def locate(name: str) -> Local:
    """The weights of a name: those fetched before if they are the pinned ones or came by hand, else from the hub.

    Raises :class:`WeightsError` and :class:`ConfigError`.
    """
    return verify(name) if here(name) else fetch(name)


def here(name: str) -> bool:
    """Whether the weights of a name were fetched before and are the pinned ones or came by hand; nothing is read.

    Raises :class:`WeightsError` and :class:`ConfigError`.
    """
    source = _released(name)
    before = receipt(name)
    return bool(before and before.path.exists() and (before.commit is None or source.revision in (before.commit, None)))


def verify(name: str) -> Local:
    """Hash fetched weights again. Raises :class:`WeightsError` when they are missing or changed."""
    source = _released(name)
    receipt = _read().receipts.get(name)
    if receipt is None:
        raise WeightsError(f"{name}: was not fetched; run `dcae-bench weights fetch {name}`")
    try:
        found = sha256_file(receipt.path)
    except OSError as error:
        raise WeightsError(
            f"{receipt.path}: weights of {name} cannot be read ({error.strerror}); fetch them again"
        ) from error
    expected = _expected(source, receipt, receipt.commit) or receipt.sha256
    if found != expected:
        raise WeightsError(
            f"{receipt.path}: has SHA-256 {found}, but {expected} is recorded for {name}; fetch it again"
        )
    return Local(receipt.path, found, receipt.size, receipt.commit, recorded=True)


def receipt(name: str) -> Receipt | None:
    """What was fetched for a name, if anything; the file is not read."""
    return _read().receipts.get(name)


def _released(name: str) -> ReleasedWeights:
    known = released()
    if name in known:
        return known[name]
    if name in catalogue().autoencoders:
        raise WeightsError(f"{name}: has no released weights; train it, or pass your own with --weights")
    names = [*catalogue().autoencoders, *known]
    raise ConfigError(
        f"'{name}' has no weights in the catalogues{close_names(name, dict.fromkeys(names), 'dcae-bench weights list')}"
    )


def _expected(source: ReleasedWeights, before: Receipt | None, commit: str | None) -> str | None:
    """The hash that is already recorded for this commit; a file by hand must have the catalogue's, if there is one."""
    if source.sha256 and commit in (source.revision, None):
        return source.sha256
    return before.sha256 if before and before.commit == commit and commit is not None else None


def _read() -> _Receipts:
    path = receipts_path()
    try:
        return _Receipts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Receipts()
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{path}: is not a record of fetched weights; delete it and fetch again") from error


def _write(name: str, new: Receipt) -> None:
    before = _read()
    after = _Receipts(receipts={**before.receipts, name: new})
    if after != before:
        write_text(receipts_path(), after.model_dump_json(indent=2) + "\n")
