"""Score records: metrics of images that existed already, against their originals or against a reference."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from dcae_bench.base.files import sha256_json, write_text
from dcae_bench.base.reading import read_json
from dcae_bench.base.typed import Sha256, Strict
from dcae_bench.records.digest import with_digest
from dcae_bench.records.provenance import Provenance
from dcae_bench.records.record import SCORE, Metric, Record, load, load_as


class ScoredSet(Strict):
    """Images of one side of a score, or statistics of such images."""

    source: str = Field(description="folder or file that the user named")
    sha256: Sha256 = Field(
        description="hash over the names and contents of the images; of an array or of statistics, of the file"
    )
    images: PositiveInt | None = Field(description="number of images measured; null: statistics alone")
    left_out: int = Field(default=0, ge=0, description="images without a partner, which --common leaves out")
    cropped: int = Field(default=0, ge=0, description="images of another size, which were cropped to the resolution")
    statistics_of: str | None = Field(
        default=None, description="network of the statistics mu and sigma in the source; null: the source has none"
    )


class ScoreRecord(Strict):
    """One score. It names no autoencoder and no trained weights, so no row of the paper is judged by it."""

    version: Literal[1] = 1
    kind: Literal["score"] = SCORE
    profile: str
    protocol: str = Field(description="versioned name of the way of measuring, e.g. reconstruction/photos-v1")
    images: ScoredSet
    against: Literal["originals", "reference"] = Field(
        description="originals: each image has its own original; reference: two sets are compared as wholes"
    )
    reference: ScoredSet = Field(description="the originals or the reference")
    resolution: PositiveInt = Field(
        description="side in pixels of the squares that were measured; under native-v1 the largest shorter side of the "
        "whole images"
    )
    metrics: dict[str, Metric]
    settings: dict[str, str] = Field(description="settings that change numbers: tf32, extractor_precision, crop, pairs")
    notes: tuple[str, ...] = Field(default=(), description="what a reader must know of the images")
    provenance: Provenance
    digest: Sha256 | None = Field(default=None, description="hash of everything else in the file")

    @property
    def key(self) -> str:
        """Content key: two scores with equal keys measure the same images by the same code."""
        made = self.provenance
        hashes = (self.images.sha256, self.reference.sha256)
        return sha256_json((self.protocol, *hashes, made.config_sha256, made.code_sha256))


def save_score(record: ScoreRecord, path: Path) -> None:
    """Write a score with its digest as JSON, atomically. Raises :class:`ResultsError` when it cannot be written."""
    write_text(path, with_digest(record.model_dump_json(), indent=2))


def load_score(path: Path) -> ScoreRecord:
    """Read a score and check it against its digest and its intervals. Raises :class:`ResultsError`."""
    return load_as(path, ScoreRecord)


def load_any(path: Path) -> Record | ScoreRecord:
    """Read a record or a score, whichever the file is. Raises :class:`ResultsError`."""
    try:
        content = read_json(path)
        kind = content.get("kind") if isinstance(content, dict) else None
    except (OSError, ValueError):  # `load` says what is wrong
        kind = None
    return load_score(path) if kind == SCORE else load(path)
