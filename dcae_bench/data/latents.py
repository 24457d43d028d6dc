"""Cached latents on disk: a folder with the latents, their labels and a manifest, read row by row in any order."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.reading import load_array, map_array
from dcae_bench.base.sealed import read_sealed, write_sealed
from dcae_bench.base.typed import Strict
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import latents_recipe
from dcae_bench.profile.rows import TrainedRow
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.path import ComputePath
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.specs.latent_scale import Factor, Offset, over_cells
from dcae_bench.specs.protocols import WeightsSource

LATENTS, LABELS, MANIFEST = "latents.npy", "labels.npy", "manifest.json"
"""Files of a cache; the manifest is written last."""
ENCODER = "dcae_bench.generation.encode"
"""Module that makes caches; its code is part of their recipe."""


class LatentSummary(Strict):
    """Statistics of the latents on disk, before scaling: over all values, and of each channel."""

    mean: float
    rms: float
    std: float
    channel_mean: tuple[float, ...]
    channel_rms: tuple[float, ...]
    channel_std: tuple[float, ...]


class LatentManifest(Strict):
    """Description of cached latents, stored beside them as ``manifest.json``."""

    version: Literal[1] = 1
    autoencoder: str
    weights_source: WeightsSource
    weights_sha256: str
    model: AutoencoderSpec
    datasets: tuple[str, ...]
    split: Literal["train", "eval"]
    resolution: int
    crops_sha256: str = Field(description="hash of what shapes the pixels: photographs, crop, resolution")
    data_sha256: str = Field(description="hash of the photographs alone")
    posterior: Literal["sample", "mean"]
    seed: int = Field(description="seed of crops and of posterior samples")
    flips: bool = Field(description="whether the second half of the rows are the mirrored images")
    classes: int | None
    count: int = Field(description="number of latents, mirrored ones included")
    shape: tuple[int, int, int] = Field(description="c, h, w of one latent")
    dtype: Literal["float16", "float32"]
    scaling_factor: Factor = Field(
        description="a denoiser works on (latent - shift) * scaling_factor; a list has a number for each channel"
    )
    shift: Offset = 0.0
    scaling: Literal["declared", "measured"] = Field(
        description="declared: stated by the authors of the weights; measured: 1/RMS of these latents"
    )
    statistics: LatentSummary
    path: ComputePath | None = Field(default=None, description="how the autoencoder was computed; null: not stated")
    seconds: float | None = Field(
        default=None,
        description="wall-clock seconds of encoding, summed over resumed runs; left out: an older version wrote it",
        exclude_if=lambda seconds: seconds is None,
    )
    notes: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda notes: not notes,
        description="what a reader must know of the autoencoder, e.g. that the encode of a user's class draws noise",
    )
    sha256: str = Field(description="hash of latents.npy")
    labels_sha256: str
    recipe_sha256: str = Field(description="hash of everything that shaped the latents, code included")


class Latents:
    """The latents of one cache. Opening checks the hashes of latents and labels, and reads only the labels."""

    def __init__(self, folder: Path):
        """Open the cache in ``folder``.

        Raises :class:`DataError`, which names the file that is missing, unfinished or not what the manifest says.
        """
        self.folder = Path(folder)
        self.manifest = read_latent_manifest(self.folder)
        self.path = self.folder / LATENTS
        remedy = f"delete {self.folder} and encode again"
        try:
            mapped = map_array(self.path)
            self.labels: np.ndarray = load_array(self.folder / LABELS)
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
        self._verify()

    def __len__(self) -> int:
        return self.manifest.count

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read some rows and scale them, float32 (n, c, h, w).

        Rows are read in their order on disk. Reads replace a memory mapping: memory use stays constant, and a failing
        disk raises an error instead of killing the process. Raises :class:`DataError` for latents that are not finite,
        and for a file that cannot be read.
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
        latents -= over_cells(self.manifest.shift, self.manifest.shape)
        latents *= over_cells(self.manifest.scaling_factor, self.manifest.shape)
        return latents

    def _verify(self) -> None:
        """Compare the hashes of latents and labels with those in the manifest. Raises :class:`DataError`."""
        for name, wanted in ((LATENTS, self.manifest.sha256), (LABELS, self.manifest.labels_sha256)):
            found = known_sha256(self.folder / name)
            if found != wanted:
                raise DataError(
                    f"{self.folder / name}: sha256 is {found}, its manifest says {wanted}; delete {self.folder} and "
                    "encode again"
                )


def read_latent_manifest(folder: Path) -> LatentManifest:
    """Read the manifest of a finished cache. Raises :class:`DataError`."""
    path = Path(folder) / MANIFEST
    try:
        return read_sealed(path, LatentManifest)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); encode the data first (dcae-bench encode)") from (
            error
        )
    except ValueError as error:
        raise DataError(f"{path}: is not a manifest of latents ({error}); delete {folder} and encode again") from error


def write_latent_manifest(manifest: LatentManifest, folder: Path) -> None:
    """Write the manifest of a cache whose other files are complete. Raises :class:`ResultsError`."""
    write_sealed(Path(folder) / MANIFEST, manifest)


def require_latents_of_weights(manifest: LatentManifest, weights_sha256: str, folder: Path) -> None:
    """Check that an autoencoder with these weights made the latents. Raises :class:`DataError` with both hashes."""
    if manifest.weights_sha256 != weights_sha256:
        raise DataError(
            f"{folder}: holds latents of {manifest.autoencoder} with weights {manifest.weights_sha256}, not of "
            f"{weights_sha256}; take another folder, or delete this one and encode again"
        )


def latents_recipe_sha256(profile: Profile, latent: str, images: str, *, crops_sha256: str, weights_sha256: str) -> str:
    """Hash of everything that shapes the latents that the profile asks for now, code included.

    ``latent`` is ``autoencoder@weights``; ``images`` is a name in the diffusion part's ``data``. Raises
    :class:`ConfigError` for names that the profile does not have.
    """
    return sha256_json([latents_recipe(profile, latent, images), crops_sha256, weights_sha256, fingerprint(ENCODER)])


def require_latents_of_row(manifest: LatentManifest, profile: Profile, resolved: TrainedRow, folder: Path) -> None:
    """Check that a row learns from these latents, and that the profile and the code would make the same ones now.

    The recipe is computed for the images and the weights that the manifest states. Raises :class:`DataError` with both
    values.
    """
    data = resolved.data
    for name, found, needed in (
        ("autoencoder", f"{manifest.autoencoder}@{manifest.weights_source}", resolved.spec.latent),
        ("model", manifest.model, resolved.autoencoder),
        ("data sets", manifest.datasets, data.datasets),
        ("split", manifest.split, data.split),
        ("resolution", manifest.resolution, data.resolution),
        ("flips", manifest.flips, data.flips),
        ("type", manifest.dtype, data.dtype),
        ("number of classes", manifest.classes, data.class_count),
        ("seed", manifest.seed, profile.seed),
        ("shift", manifest.shift, manifest.shift if data.shift else 0.0),
    ):
        if found != needed:
            raise DataError(
                f"{folder}: its {name} is {found}, row {resolved.name} needs {needed}; take the latents of "
                f"{resolved.spec.latent} on '{resolved.spec.data}' (dcae-bench encode)"
            )
    asked = latents_recipe_sha256(
        profile,
        resolved.spec.latent,
        resolved.spec.data,
        crops_sha256=manifest.crops_sha256,
        weights_sha256=manifest.weights_sha256,
    )
    if manifest.recipe_sha256 != asked:
        raise DataError(
            f"{folder}: holds latents of recipe {manifest.recipe_sha256[:12]}, row {resolved.name} needs "
            f"{asked[:12]}: the settings or the code that make latents have changed since; delete the folder and "
            "encode again"
        )
