"""Evaluation sets on disk: square uint8 crops by index, cut from packed photographs or from files."""

from pathlib import Path
from typing import Literal, Protocol

import PIL
from PIL import Image
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.data import adm
from dcae_bench.data.crops import cut, eval_windows, to_tensor
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.native import NativeCrops
from dcae_bench.data.packed import PackedPhotos
from dcae_bench.data.photo_sets import is_packed
from dcae_bench.profile.profile import EvaluationSet, Profile
from dcae_bench.specs.protocols import NATIVE


class Crops(Protocol):
    """Images of one data set and split, by index: squares, or whole images (:mod:`.native`)."""

    name: str
    split: Literal["train", "eval"]
    resolution: int
    manifest_sha256: str
    """Hash of the photographs' manifest; every record holds it."""
    sha256: str
    """Hash of everything that shapes the pixels: photographs, crop, resolution, and the version of Pillow's filters."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Unique name of a crop: its file, or its photograph with the crop's number."""
        ...

    def __getitem__(self, index: int) -> Tensor:
        """Return a crop as uint8 (3, height, width). Raises :class:`DataError`, which names the file."""
        ...


class PackedCrops:
    """Windows of packed photographs (protocol photos-v1), the same at every resolution up to ``min_window`` pixels."""

    def __init__(self, pack: PackedPhotos, *, per_photo: int, seed: int, resolution: int, min_window: int):
        """Cut ``per_photo`` windows of each photograph, resized to ``resolution`` pixels.

        Raises :class:`DataError` for a photograph smaller than ``min_window``.
        """
        if min_window < resolution:
            raise ValueError(f"windows of {min_window} px would be enlarged to {resolution} px")
        self._pack, self._per_photo = pack, per_photo
        self._windows = eval_windows(pack, per_photo, seed, min_window)
        self.name, self.split, self.resolution = pack.name, pack.split, resolution
        self.manifest_sha256 = pack.manifest_sha256
        self.sha256 = sha256_json(
            {
                "crop": "eval-window/1",
                "pack": pack.sha256,
                "per_photo": per_photo,
                "seed": seed,
                "min_window": min_window,
                "resolution": resolution,
                "pillow": PIL.__version__,
            }
        )

    def __len__(self) -> int:
        return len(self._windows)

    def key(self, index: int) -> str:
        """Name of the photograph and number of the window, as ``photograph#number``."""
        photo, number = divmod(range(len(self))[index], self._per_photo)
        return f"{self._pack.names[photo]}#{number}"

    def __getitem__(self, index: int) -> Tensor:
        return cut(self._pack, self._windows[index], self.resolution)


class FileCrops:
    """ADM centre crops of the files of a manifest (protocol paper-v1), decoded on access.

    Every read of a file checks the file's hash against the manifest.
    """

    def __init__(self, manifest: FileManifest, resolution: int, *, upscale: bool = False):
        """Crop to ``resolution`` pixels; ``upscale`` enlarges smaller images.

        Raises :class:`DataError` for an image smaller than ``resolution`` if ``upscale`` is false.
        """
        if manifest.info.split == "test":
            raise ValueError(f"{manifest.path}: no evaluation set is made of a test split")
        self._manifest, self._upscale = manifest, upscale
        self.name, self.split, self.resolution = manifest.info.name, manifest.info.split, resolution
        self.manifest_sha256 = manifest.info.tree_sha256
        self.sha256 = sha256_json(
            {
                "crop": adm.VERSION,
                "manifest": self.manifest_sha256,
                "resolution": resolution,
                "pillow": PIL.__version__,
            }
        )
        if not upscale and manifest.shortest_side() < resolution:
            small = (manifest.sizes.min(axis=1) < resolution).nonzero()[0]
            first = int(small[0])
            row = manifest[first]
            raise DataError(
                f"{manifest.describe(first)}: is {row.width}x{row.height} and would be enlarged to {resolution} px, as "
                f"{len(small):,} of {len(manifest):,} images of {self.name}; set 'upscale: true' on evaluation set "
                f"{self.name}-{resolution} if that is what the protocol asks for, or lower its resolution"
            )

    def __len__(self) -> int:
        return len(self._manifest)

    def key(self, index: int) -> str:
        """Path of the file below the data set's root."""
        return self._manifest[range(len(self))[index]].path

    def __getitem__(self, index: int) -> Tensor:
        pixels = self._manifest.read(range(len(self))[index])
        return to_tensor(adm.dm_crop(Image.fromarray(pixels), self.resolution, upscale=self._upscale))


def open_crops(profile: Profile, item: EvaluationSet, data: Path) -> Crops:
    """Open an evaluation set of a profile. Raises :class:`DataError`.

    ``data`` is the folder of prepared data: it holds ``<dataset>/eval.npy`` (a pack) or ``<dataset>/eval.parquet`` (a
    manifest), each with a ``.json`` file beside it.
    """
    if profile.evaluation.protocol == NATIVE:
        images = (
            PackedPhotos.open_split(data, item.dataset, "eval", profile.pack_short_side)
            if is_packed(item.dataset, "eval", data)
            else FileManifest.open_split(data, item.dataset, "eval")
        )
        return NativeCrops(images, item.resolution, profile.evaluation.trimmed_to)
    if not is_packed(item.dataset, "eval", data):
        manifest = FileManifest.open_split(data, item.dataset, "eval")
        return FileCrops(manifest, item.resolution, upscale=item.upscale)
    return PackedCrops(
        PackedPhotos.open_split(data, item.dataset, "eval", profile.pack_short_side),
        per_photo=profile.evaluation.crops_per_photo,
        seed=profile.seed,
        resolution=item.resolution,
        # With windows no smaller than the largest resolution, every resolution shows the same content.
        min_window=max(other.resolution for other in profile.evaluation.sets),
    )
