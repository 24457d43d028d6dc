"""External data sets, which do not come with the harness: what they are, where to get them, and where they lie."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.base.errors import DataError
from dcae_bench.base.typed import Strict
from dcae_bench.data.containers.kinds import COMPRESSED, KINDS, is_container
from dcae_bench.data.layout import ANY, FileSplit
from dcae_bench.data.photos import DATASETS

ROOT_VARIABLE = "DCAE_BENCH_DATA"


class Layout(Strict):
    """Where the images of each split may lie: patterns of :mod:`dcae_bench.data.layout`; the first that fits counts."""

    version: PositiveInt = Field(description="increased when the same folder would be listed differently than before")
    train: tuple[str, ...] = ()
    eval: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


class ExternalDataset(Strict):
    """A data set of image files in a folder that the user names."""

    name: str
    title: str
    home: str | None = Field(
        default=None, description="page that explains how to get the data set; null: the user's own folder"
    )
    access: str = Field(default="", description="what the publisher asks for before the download")
    images: dict[FileSplit, PositiveInt | None] = Field(
        description="expected number of images of each split; null: not checked"
    )
    split: str = Field(description="origin of the division into splits")
    layout: Layout
    megapixels: PositiveFloat | None = Field(default=None, description="mean pixels of an image / 1e6, for estimates")
    download_gib: PositiveFloat | None = Field(
        default=None, description="size of the publisher's archives, for estimates"
    )

    @model_validator(mode="after")
    def _every_split_lies_somewhere(self) -> Self:
        if missing := [split for split in self.images if not getattr(self.layout, split)]:
            raise ValueError(f"split {missing[0]} of {self.name} has no pattern")
        return self

    @property
    def is_own(self) -> bool:
        """Whether this is the user's own folder or container, without a layout."""
        return self.home is None

    @property
    def splits(self) -> tuple[FileSplit, ...]:
        """Names of the data set's splits."""
        return tuple(self.images)

    def patterns(self, split: str) -> tuple[str, ...]:
        """Patterns of a split's images. Raises :class:`DataError` for a split that the data set does not have."""
        layout = self.layout
        return {"train": layout.train, "eval": layout.eval, "test": layout.test}[self._require_split(split)]

    def expected_count(self, split: str) -> int | None:
        """Number of images that a split should have; None: not stated.

        Raises :class:`DataError` for a split that the data set does not have.
        """
        return self.images[self._require_split(split)]

    def root(self, roots: Mapping[str, str]) -> Path | None:
        """Folder or containers of the data set: the entry of ``roots``, else ``$DCAE_BENCH_DATA/<name>``.

        ``roots`` are the profile's data_roots. None if neither is given.
        """
        if self.name in roots:
            return Path(roots[self.name]).expanduser()
        base = os.environ.get(ROOT_VARIABLE)
        return Path(base).expanduser() / self.name if base else None

    def require_root(self, roots: Mapping[str, str]) -> Path:
        """Existing folder of the data set, or its container, or a pattern of containers.

        Raises :class:`DataError`, which says how to get the data set.
        """
        root = self.root(roots)
        if root is not None and is_there(root):
            return root
        if root is None:
            place = "its folder is not known"
        elif root.is_file():
            place = f"{root} is a file and no container ({', '.join(KINDS)})"
            place += ", decompress it first" if root.name.lower().endswith(COMPRESSED) else ""
        else:
            place = f"{root} is not a folder"
        remedy = f"set --root, data_roots.{self.name} of the profile, or ${ROOT_VARIABLE} (which holds {self.name}/)"
        raise DataError(f"data set '{self.name}': {place}; {self.how_to_get()}{remedy}")

    def _require_split(self, name: str) -> FileSplit:
        for split in self.images:
            if split == name:
                return split
        raise DataError(f"data set '{self.name}': has no {name} split ({self.split}); it has {', '.join(self.images)}")

    def how_to_get(self) -> str:
        """Beginning of a remedy for a message: where to get the data set; empty for the user's own."""
        if self.home is None:
            return ""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items() if count)
        return f"get {self.title} from {self.home} ({self.access}; {counts or self.split}) and "


def is_there(root: Path) -> bool:
    """Whether ``root`` is a folder, a container, or a pattern that containers in a folder fit (``train-*.tar``)."""
    if root.is_dir():
        return True
    return is_container(root) and (root.is_file() or next(root.parent.glob(root.name), None) is not None)


@cache
def external_datasets() -> dict[str, ExternalDataset]:
    """Every external data set that the harness knows, by name."""
    content = yaml.safe_load(Path(__file__).with_name("external.yaml").read_text())
    return {name: ExternalDataset(name=name, **fields) for name, fields in content.items()}


def image_folder(name: str, splits: Sequence[FileSplit] = ("train", "eval")) -> ExternalDataset:
    """A data set of all images in a folder, whatever their number: each split holds every image.

    Only where there are several splits and containers say in their names of which they are, each split holds its own.
    """
    return ExternalDataset(
        name=name,
        title="images of a folder",
        images=dict.fromkeys(splits),
        split="every image of the folder, for training as for evaluation",
        layout=Layout(version=2, train=(ANY,), eval=(ANY,)),
    )


def find_dataset(name: str, roots: Mapping[str, str]) -> ExternalDataset:
    """Find a data set of files: a known one, else the folder of this name in ``roots``. Raises :class:`DataError`."""
    if name in external_datasets():
        return external_datasets()[name]
    if name in roots:
        return image_folder(name)
    known = ", ".join([*DATASETS, *external_datasets(), *roots])
    raise DataError(f"data set '{name}' does not exist; choose one of {known}, or name its folder in data_roots")
