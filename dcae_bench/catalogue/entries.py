"""Entries that both catalogues share: released weights, and the scale of latents."""

from collections.abc import Iterable
from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from dcae_bench.base.typed import Commit, Sha256, Strict
from dcae_bench.specs.latent_scale import Numbers


class ReleasedWeights(Strict):
    """Place, version, hash and licence of released weights."""

    repo: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$", description="hub id, owner/name")
    address: str | None = Field(default=None, description="web address for a download by hand")
    file: str = Field(description="path inside the repository, or name of the file to download by hand")
    revision: Commit | None = Field(
        default=None, description="pinned commit; null: recorded by the first verified `dcae-bench weights fetch`"
    )
    sha256: Sha256 | None = Field(default=None, description="hash of the file; null until recorded")
    licence: str = Field(description="SPDX name, if the publisher states one")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.repo is None) == (self.address is None):
            raise ValueError("weights have either a 'repo' or an 'address'")
        return self

    @property
    def source(self) -> str:
        """Place of the file in one phrase, as tables print it."""
        return f"{self.repo}/{self.file}" if self.repo else f"{self.address} ({self.file})"


class Scaling(Strict):
    """Scaling of a latent z before diffusion: (z - shift) * factor, or (z - mean) / std * factor by channel."""

    factor: PositiveFloat
    shift: float = 0.0
    # Recipes leave the vectors out where there are none, so hashes from before them stay valid.
    mean: tuple[float, ...] | None = Field(
        default=None,
        min_length=1,
        exclude_if=lambda mean: mean is None,
        description="mean of each channel, in the place of the shift; more where cells are packed into channels",
    )
    std: tuple[PositiveFloat, ...] | None = Field(
        default=None, min_length=1, exclude_if=lambda std: std is None, description="deviation of each channel"
    )
    source: str = Field(description="where the numbers are published")

    @model_validator(mode="after")
    def _one_shift(self) -> Self:
        if self.mean is not None and (self.shift or self.std is None or len(self.mean) != len(self.std)):
            raise ValueError("a 'mean' by channel needs a 'std' of the same length, and no 'shift'")
        return self

    @property
    def factors(self) -> Numbers:
        """The factor of all channels, or of each."""
        return self.factor if self.std is None else tuple(self.factor / std for std in self.std)

    @property
    def shifts(self) -> Numbers:
        """The number to subtract from all channels, or from each."""
        return self.shift if self.mean is None else self.mean


class Elsewhere(Strict):
    """A model of the authors' registries that no entry of the catalogue can be."""

    names: tuple[str, ...] = Field(min_length=1, description="names in the authors' registry")
    reason: str = Field(description="why it is not expressible here")
    instead: str | None = Field(default=None, description="what works in its place, or null")


def suggest_names(name: str, known: Iterable[str], verb: str = "dcae-bench zoo") -> str:
    """End of an error message about an unknown name: similar names, or the command that lists all names."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else f"; `{verb}` lists the names"
