"""Samples, the generated images on disk: ``samples.npy``, ``labels.npy`` and ``samples.json`` in one folder."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import read_bytes, require_regular_file
from dcae_bench.base.typed import Strict
from dcae_bench.specs.diffusion import SamplerSpec

SAMPLES, LABELS, MANIFEST = "samples.npy", "labels.npy", "samples.json"
"""Files of a folder of samples; the manifest is written last."""
REMEDY = "run `dcae-bench sample` again"


class ArrayImages:
    """Images of an array by index: the array is uint8 (n, R, R, 3) and may be a mapped file, an image is (3, R, R)."""

    def __init__(self, images: np.ndarray, *, name: str, sha256: str, split: Literal["train", "eval"] = "eval"):
        """``sha256`` identifies the pixels. Raises :class:`DataError` for anything but square 8-bit colour images."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
            raise DataError(f"{name}: holds {images.dtype} {images.shape}, not uint8 (n, side, side, 3); {REMEDY}")
        self._images, self.name, self.split = images, name, split
        self.resolution = int(images.shape[1])
        self.sha256 = self.manifest_sha256 = sha256

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """Name of the array and index of the image."""
        return f"{self.name}#{index}"

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self._images[index])).permute(2, 0, 1)


class Samples(ArrayImages):
    """The generated images of one folder, with their labels (n,). The pixels stay on disk until they are read."""

    def __init__(self, folder: Path, sha256: str):
        """Open ``folder``; ``sha256`` identifies the pixels.

        Raises :class:`DataError`, which names the file that is missing or damaged.
        """
        images = _open_array(folder / SAMPLES)
        self.labels = _open_array(folder / LABELS)
        if self.labels.shape != (len(images),) or self.labels.dtype.kind != "i":
            found = f"{self.labels.dtype} {self.labels.shape} for {len(images)} images"
            raise DataError(f"{folder / LABELS}: holds {found}; {REMEDY}")
        super().__init__(images, name=str(folder / SAMPLES), sha256=sha256)


def _open_array(path: Path) -> np.ndarray:
    try:
        require_regular_file(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a NumPy array ({error}); {REMEDY}") from error


class SampleManifest(Strict):
    """Description of samples, stored beside them as ``samples.json``."""

    version: Literal[1] = 1
    row: str = Field(description="name of the row in the profile")
    released: str | None = Field(
        default=None, description="catalogue name of the denoiser's released weights; null: trained by the profile"
    )
    denoiser_sha256: str
    autoencoder: str = Field(description="autoencoder behind the latents, as autoencoder@weights")
    autoencoder_sha256: str
    latents_sha256: str | None = Field(
        description="hash of the latents that the denoiser learned from; null for a released denoiser"
    )
    crops_sha256: str | None = Field(
        description="hash of the images behind those latents, the reference set; null for a released denoiser"
    )
    data_sha256: str | None
    sampler: SamplerSpec
    nfe: int | None = Field(
        description="network evaluations per sample; guidance's doubled batch counts once; null: adaptive"
    )
    guidance_scale: float = Field(description="guidance scale s; at 1 the conditional model is used alone")
    count: int
    shape: tuple[int, int, int] = Field(description="H, W, 3 of one image")
    classes: int | None
    seed: int
    seed_policy: Literal["sample", "paper_8gpu"]
    precision: Literal["fp32"] = "fp32"
    tf32: bool = False
    seconds: float = Field(description="wall-clock seconds of sampling, summed over resumed runs")
    sha256: str = Field(description="hash of samples.npy")
    labels_sha256: str
    recipe_sha256: str = Field(description="hash of everything that shaped the samples, code included")


def read_sample_manifest(folder: Path) -> SampleManifest:
    """Read the manifest of finished samples. Raises :class:`DataError`."""
    path = Path(folder) / MANIFEST
    try:
        return SampleManifest.model_validate_json(read_bytes(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); sample first (dcae-bench sample)") from error
    except ValidationError as error:
        raise DataError(
            f"{path}: is not a manifest of samples ({error.errors()[0]['msg']}); delete {folder} and sample again"
        ) from error
