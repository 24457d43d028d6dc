"""Cached latents on disk: opened without being read, then read row by row in an order of one's own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcae_bench.diffusion_plan import TrainedPlan
from dcae_bench.errors import DataError
from dcae_bench.files import sha256_file
from dcae_bench.records import WeightsSource
from dcae_bench.specs import AutoencoderSpec

LATENTS, LABELS, MANIFEST = "latents.npy", "labels.npy", "manifest.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LatentSummary(_Frozen):
    """Statistics of the latents as they are on disk, before scaling."""

    mean: float
    rms: float
    std: float
    channel_mean: tuple[float, ...]
    channel_rms: tuple[float, ...]
    channel_std: tuple[float, ...]


class LatentManifest(_Frozen):
    """What stands beside cached latents, ``manifest.json``."""

    version: Literal[1] = 1
    autoencoder: str
    weights_source: WeightsSource
    weights_sha256: str
    model: AutoencoderSpec
    datasets: tuple[str, ...]
    split: Literal["train", "eval"]
    resolution: int
    crops_sha256: str = Field(description="identifies the pixels: photographs, crop, resolution")
    data_sha256: str = Field(description="hash of the photographs alone")
    posterior: Literal["sample", "mean"]
    seed: int = Field(description="of crops and of posterior samples")
    flips: bool = Field(description="rows of the second half are the images mirrored")
    classes: int | None
    count: int = Field(description="latents, mirrored ones included")
    shape: tuple[int, int, int] = Field(description="c, h, w of one latent")
    dtype: Literal["float16", "float32"]
    scaling_factor: float = Field(gt=0, description="a denoiser works on (latent - shift) * scaling_factor")
    shift: float = 0.0
    scaling: Literal["declared", "measured"] = Field(description="by the weights' authors, or 1/RMS of these latents")
    statistics: LatentSummary
    sha256: str = Field(description="of latents.npy")
    labels_sha256: str
    recipe_sha256: str = Field(description="of all that shaped the latents, code included")


class Latents:
    """Latents of one cache: opening reads no more than the manifest and the labels."""

    def __init__(self, folder: Path):
        """Open a cache. Raises :class:`DataError` when it is missing, unfinished or damaged."""
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.path = self.folder / LATENTS
        remedy = f"delete {self.folder} and encode again"
        try:
            mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
            self.labels: np.ndarray = np.load(self.folder / LABELS, allow_pickle=False)
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{error.filename or self.path}: cannot be read ({error.strerror}); {remedy}") from error
        except ValueError as error:
            raise DataError(f"{self.path}: is damaged ({error}); {remedy}") from error
        wanted = (self.manifest.count, *self.manifest.shape), np.dtype(self.manifest.dtype)
        if (mapped.shape, mapped.dtype) != wanted or self.labels.shape != (self.manifest.count,):
            raise DataError(
                f"{self.path}: holds {mapped.shape} {mapped.dtype}, its manifest says {wanted[0]} {wanted[1]}; {remedy}"
            )
        self._offset, self._dtype = mapped.offset, mapped.dtype
        self._row_bytes = mapped[0].nbytes

    def __len__(self) -> int:
        return self.manifest.count

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Scaled latents of some rows, float32 (n, c, h, w).

        Rows are read by their place on disk, and by reads and not through a mapping: memory stays flat, and a disk that
        fails is an error and not a signal. Raises :class:`DataError` for latents that are not finite.
        """
        rows = np.asarray(rows)
        raw = np.empty((len(rows), *self.manifest.shape), self._dtype)
        for place in np.argsort(rows, kind="stable"):
            offset = self._offset + int(rows[place]) * self._row_bytes
            view = memoryview(raw[place]).cast("B")
            while view:
                try:
                    count = os.preadv(self._file, [view], offset)
                except OSError as error:
                    raise DataError(f"{self.path}: cannot be read ({error.strerror}); check its disk") from error
                if not count:
                    raise DataError(f"{self.path}: ends early; delete {self.folder} and encode again")
                view, offset = view[count:], offset + count
        latents = raw.astype(np.float32)
        if not np.isfinite(latents).all():
            bad = rows[~np.isfinite(latents).all(axis=(1, 2, 3))]
            raise DataError(
                f"{self.path}: latent {bad[0]} is not finite; delete {self.folder} and encode again with other weights "
                "or dtype float32"
            )
        latents -= np.float32(self.manifest.shift)
        latents *= np.float32(self.manifest.scaling_factor)
        return latents

    def verify(self) -> None:
        """Read everything once and compare with the manifest's hashes. Raises :class:`DataError`."""
        for name, wanted in ((LATENTS, self.manifest.sha256), (LABELS, self.manifest.labels_sha256)):
            found = sha256_file(self.folder / name)
            if found != wanted:
                raise DataError(
                    f"{self.folder / name}: sha256 is {found}, its manifest says {wanted}; delete {self.folder} and "
                    "encode again"
                )


def read_manifest(folder: Path) -> LatentManifest:
    """The manifest of a finished cache. Raises :class:`DataError`."""
    path = Path(folder) / MANIFEST
    try:
        return LatentManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); encode the data first (dcae-bench encode)") from (
            error
        )
    except ValidationError as error:
        raise DataError(
            f"{path}: is not a manifest of latents ({error.errors()[0]['msg']}); delete {folder} and encode again"
        ) from error


def require_weights(manifest: LatentManifest, weights_sha256: str, folder: Path) -> None:
    """Check that latents are of some weights. Raises :class:`DataError` with both hashes."""
    if manifest.weights_sha256 != weights_sha256:
        raise DataError(
            f"{folder}: holds latents of {manifest.autoencoder} with weights {manifest.weights_sha256}, not of "
            f"{weights_sha256}; take another folder, or delete this one and encode again"
        )


def require_row(manifest: LatentManifest, plan: TrainedPlan, folder: Path) -> None:
    """Check that latents are those that a row learns from. Raises :class:`DataError` with both values."""
    data = plan.data
    for name, found, needed in (
        ("autoencoder", f"{manifest.autoencoder}@{manifest.weights_source}", plan.row.latent),
        ("model", manifest.model, plan.autoencoder),
        ("data sets", manifest.datasets, data.datasets),
        ("split", manifest.split, data.split),
        ("resolution", manifest.resolution, data.resolution),
        ("flips", manifest.flips, data.flips),
        ("number of classes", manifest.classes, data.class_count),
    ):
        if found != needed:
            raise DataError(
                f"{folder}: its {name} is {found}, row {plan.name} needs {needed}; take the latents of "
                f"{plan.row.latent} on '{plan.row.data}' (dcae-bench encode)"
            )
