"""Data sets that do not come with the harness: what they are, where they are got, and where they lie."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.data.layout import ANY, FileSplit, choose, contents, shown
from dcae_bench.data.photos import DATASETS
from dcae_bench.errors import DataError

ROOT_VARIABLE = "DCAE_BENCH_DATA"


class Layout(BaseModel):
    """Where each split may lie: patterns of :mod:`dcae_bench.data.layout`, of which the first that fits is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: PositiveInt = Field(description="goes up when another listing comes out of the same folder")
    train: tuple[str, ...] = ()
    eval: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


class ExternalDataset(BaseModel):
    """A data set of files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    home: str | None = Field(default=None, description="page that explains how to get it; null: the user's own folder")
    access: str = Field(default="", description="what its publisher asks for first")
    images: dict[FileSplit, PositiveInt | None] = Field(description="expected counts by split; null: not checked")
    split: str = Field(description="where our split comes from")
    layout: Layout
    megapixels: PositiveFloat | None = Field(default=None, description="mean size of an image, for estimates")
    download_gib: PositiveFloat | None = Field(
        default=None, description="size of the publisher's archives, for estimates"
    )

    @model_validator(mode="after")
    def _every_split_lies_somewhere(self) -> Self:
        if missing := [split for split in self.images if not getattr(self.layout, split)]:
            raise ValueError(f"split {missing[0]} of {self.name} has no pattern")
        return self

    @property
    def splits(self) -> tuple[FileSplit, ...]:
        """The splits there are."""
        return tuple(self.images)

    def patterns(self, split: str) -> tuple[str, ...]:
        """Where a split may lie. Raises :class:`DataError` for a split that the data set does not have."""
        if split not in self.images:
            raise DataError(
                f"data set '{self.name}': has no {split} split ({self.split}); it has {', '.join(self.images)}"
            )
        return getattr(self.layout, split)

    def count(self, split: str) -> int | None:
        """Number of images of a split, None: not stated. Raises :class:`DataError` for a split that is not there."""
        self.patterns(split)
        return self.images[split]

    def root(self, roots: Mapping[str, str]) -> Path | None:
        """Folder of the data set: the profile's data_roots, else ``$DCAE_BENCH_DATA/<name>``, else None."""
        if self.name in roots:
            return Path(roots[self.name]).expanduser()
        base = os.environ.get(ROOT_VARIABLE)
        return Path(base).expanduser() / self.name if base else None

    def require_root(self, roots: Mapping[str, str]) -> Path:
        """Folder of the data set. Raises :class:`DataError` that says how to get it where there is none."""
        root = self.root(roots)
        if root is not None and root.is_dir():
            return root
        place = f"{root} is not a folder" if root else "its folder is not known"
        remedy = f"set --root, data_roots.{self.name} of the profile, or ${ROOT_VARIABLE} (which holds {self.name}/)"
        raise DataError(f"data set '{self.name}': {place}; {self._how_to_get()}{remedy}")

    def choose(self, root: Path, split: str) -> str:
        """Pattern by which ``root`` holds a split. Raises :class:`DataError` that says what was looked for."""
        patterns = self.patterns(split)
        found = choose(root, patterns)
        if found is None:
            there = [other for other in self.splits if other != split and choose(root, self.patterns(other))]
            options = " ".join(f"--split {other}" for other in there)
            only = f", or prepare only what is there ({options})" if there else ""
            raise DataError(
                f"{root}: holds no {split} images of data set '{self.name}'; looked for {shown(patterns)}, found "
                f"{contents(root)}; {self._how_to_get()}set --root to the folder that holds them{only}"
            )
        return found

    def _how_to_get(self) -> str:
        if self.home is None:
            return ""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items() if count)
        return f"get {self.title} from {self.home} ({self.access}; {counts or self.split}) and "


@cache
def external_datasets() -> dict[str, ExternalDataset]:
    """Every data set that must be got by hand, by name."""
    content = yaml.safe_load(Path(__file__).with_name("external.yaml").read_text())
    return {name: ExternalDataset(name=name, **fields) for name, fields in content.items()}


def image_folder(name: str) -> ExternalDataset:
    """Any folder of images: every split is all of them, whatever their number."""
    return ExternalDataset(
        name=name,
        title="images of a folder",
        images={"train": None, "eval": None},
        split="every image of the folder, for training as for evaluation",
        layout=Layout(version=1, train=(ANY,), eval=(ANY,)),
    )


def find_dataset(name: str, roots: Mapping[str, str]) -> ExternalDataset:
    """A data set of files: one of the known ones, or a folder that ``roots`` names. Raises :class:`DataError`."""
    if name in external_datasets():
        return external_datasets()[name]
    if name in roots:
        return image_folder(name)
    known = ", ".join([*DATASETS, *external_datasets(), *roots])
    raise DataError(f"data set '{name}' does not exist; choose one of {known}, or name its folder in data_roots")
