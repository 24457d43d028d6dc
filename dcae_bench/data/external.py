"""Data sets that do not come with the harness: what they are, where they are got, and where they lie."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat

from dcae_bench.errors import DataError

ROOT_VARIABLE = "DCAE_BENCH_DATA"


class ExternalDataset(BaseModel):
    """A data set with a home page, terms and expected counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    home: str = Field(description="page that explains how to get it")
    access: str = Field(description="what its publisher asks for first")
    images: dict[Literal["train", "eval"], NonNegativeInt] = Field(description="expected counts")
    split: str = Field(description="where our split comes from")
    megapixels: PositiveFloat = Field(description="mean size of an image, for estimates")
    download_gib: PositiveFloat | None = Field(description="size of the publisher's archives, for estimates")

    def root(self, roots: Mapping[str, str]) -> Path | None:
        """Folder of the data set: the profile's data_roots, else ``$DCAE_BENCH_DATA/<name>``, else None."""
        if self.name in roots:
            return Path(roots[self.name]).expanduser()
        base = os.environ.get(ROOT_VARIABLE)
        return Path(base).expanduser() / self.name if base else None

    def cannot_be_prepared(self, roots: Mapping[str, str]) -> DataError:
        """The error of a version that has no reader for the data set, in one line."""
        root = self.root(roots)
        place = f"its folder is {root}" if root else f"set data_roots.{self.name} or ${ROOT_VARIABLE} to its folder"
        if root and not root.is_dir():
            place = f"{root} is not a folder, set data_roots.{self.name} or ${ROOT_VARIABLE} to its own"
        return DataError(
            f"data set '{self.name}': this version has no reader for {self.title}; get it from {self.home} "
            f"({self.access}), expect {self.images['train']:,} training and {self.images['eval']:,} evaluation images "
            f"({self.split}), {place}, and prepare it with a version that reads it"
        )


@cache
def external_datasets() -> dict[str, ExternalDataset]:
    """Every data set that must be got by hand, by name."""
    content = yaml.safe_load(Path(__file__).with_name("external.yaml").read_text())
    return {name: ExternalDataset(name=name, **fields) for name, fields in content.items()}
