"""Labelled crops, the images behind latents: the crops of one or more data sets in order, each with its label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.data.images import Crops, FileCrops, PackedCrops
from dcae_bench.data.layout import enumerate_names
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.packed import PackedPhotos
from dcae_bench.data.photo_sets import is_packed
from dcae_bench.profile.diffusion import LatentDataSpec
from dcae_bench.profile.profile import Profile

NO_LABEL = -1
"""Label of an image without a class."""


class LabelledCrops:
    """Several sets of crops joined into one (:class:`~dcae_bench.data.images.Crops`), with int64 ``labels`` (n,)."""

    def __init__(self, sets: Sequence[Crops], labels: np.ndarray):
        """Join ``sets`` of one split and resolution. The label of an image without a class is :data:`NO_LABEL`."""
        self._sets = list(sets)
        self._starts = np.cumsum([0, *map(len, self._sets)])
        if len(labels) != len(self):
            raise ValueError(f"{len(self)} crops have {len(labels)} labels")
        self.labels = labels
        self.name = "+".join(crops.name for crops in self._sets)
        self.split, self.resolution = self._sets[0].split, self._sets[0].resolution
        self.manifest_sha256 = _join_hashes([crops.manifest_sha256 for crops in self._sets])
        self.sha256 = _join_hashes([crops.sha256 for crops in self._sets])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def key(self, index: int) -> str:
        """Unique name of a crop: its key in its own set, with the set's name before it if several sets are joined."""
        crops, inner = self._find(index)
        return crops.key(inner) if len(self._sets) == 1 else f"{crops.name}/{crops.key(inner)}"

    def __getitem__(self, index: int) -> Tensor:
        crops, inner = self._find(index)
        return crops[inner]

    def _find(self, index: int) -> tuple[Crops, int]:
        number = int(np.searchsorted(self._starts, range(len(self))[index], side="right")) - 1
        return self._sets[number], index - int(self._starts[number])


class Mirrored:
    """All crops, followed by the same crops mirrored."""

    def __init__(self, crops: LabelledCrops):
        """Double ``crops``: image ``len(crops) + i`` is crop ``i`` mirrored."""
        self._crops = crops

    def key(self, index: int) -> str:
        """Name of the crop that an image was made of."""
        return self._crops.key(index % len(self._crops))

    def __getitem__(self, index: int) -> Tensor:
        flip, inner = divmod(index, len(self._crops))
        return self._crops[inner].flip(-1) if flip else self._crops[inner]


def open_labelled(profile: Profile, spec: LatentDataSpec, data: Path) -> LabelledCrops:
    """Open the images of a profile's latents: centre crops of files, windows of packed photographs.

    ``spec`` is one of the profile's. ``data`` is the folder of prepared data. Generated images are
    compared with the same crops. Raises :class:`DataError` for missing data, for images that are too small, and where
    the number of labels is not that of ``spec``.
    """
    sets: list[Crops] = []
    labels: list[np.ndarray] = []
    for place, dataset in enumerate(spec.datasets):
        if is_packed(dataset, spec.split, data):
            if spec.labels == "folder":
                raise DataError(f"{dataset}: photographs of a pack have no folders; take labels 'dataset' or none")
            pack = PackedPhotos.open_split(data, dataset, spec.split, profile.pack_short_side)
            shape = {"resolution": spec.resolution, "min_window": spec.resolution}
            crops: Crops = PackedCrops(pack, per_photo=spec.crops_per_photo, seed=profile.seed, **shape)
            found = None
        else:
            manifest = FileManifest.open_split(data, dataset, spec.split)
            crops = FileCrops(manifest, spec.resolution, upscale=spec.upscale)
            found = _folder_labels(manifest, spec.classes) if spec.labels == "folder" else None
        if found is None:
            found = np.full(len(crops), place if spec.labels == "dataset" else NO_LABEL, np.int64)
        sets.append(crops)
        labels.append(found)
    return LabelledCrops(sets, np.concatenate(labels))


def _folder_labels(manifest: FileManifest, classes: int | None) -> np.ndarray:
    """Label of every file, as the label's place in the sorted list of labels. Raises :class:`DataError`."""
    names, labels = manifest.labels()
    if None in names:
        without = np.flatnonzero(labels == names.index(None))
        # Manifests of folders did not hold labels before version 2 of their layout.
        raise DataError(
            f"{manifest.path}: {len(without):,} of {len(manifest):,} images have no class, the first of them "
            f"{manifest.describe(int(without[0]))}; lay images out in one folder per class, or give each row of a "
            "container a label, and prepare them again"
        )
    if len(names) != classes:
        found = enumerate_names([str(name) for name in names])
        raise DataError(
            f"{manifest.path}: has {len(names)} classes ({found}), the profile says {classes}; correct 'classes' or "
            "the data"
        )
    return labels


def _join_hashes(hashes: list[str]) -> str:
    # A single set keeps its own hash.
    return hashes[0] if len(hashes) == 1 else sha256_json(hashes)
