"""What trained weights are: a statement in the metadata of a safetensors file that this harness wrote."""

import json
import struct
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import open_regular, sha256_json
from dcae_bench.base.typed import Strict
from dcae_bench.records.subject import TrainedPhase
from dcae_bench.specs.latent_scale import Factor, Offset

METADATA = "dcae_bench"
"""Key of the statement in the metadata of a safetensors file."""
MAX_HEADER = 100 << 20
"""Largest header of a safetensors file, in bytes, as its own reader has it."""


class TrainedWeights(Strict):
    """What training wrote into a file of weights."""

    kind: Literal["autoencoder", "denoiser"]
    name: str = Field(description="name of the autoencoder or of the denoiser's row in the profile")
    phase: int | None = Field(default=None, description="last training phase; null: a denoiser")
    model_sha256: str | None = Field(default=None, description="hash of the model's spec; null: not stated")
    trained: tuple[TrainedPhase, ...] | None = Field(
        default=None, description="phases that an autoencoder went through, in order; null: not stated"
    )
    latents_sha256: str | None = Field(default=None, description="hash of the latents that a denoiser learned from")
    scaling_factor: Factor | None = Field(
        default=None, description="scale of those latents, to which the weights belong"
    )
    shift: Offset | None = Field(default=None, description="shift of those latents")


def model_sha256(spec: BaseModel) -> str:
    """Hash of a model's spec."""
    return sha256_json(spec.model_dump(mode="json"))


def read_statement(path: Path) -> TrainedWeights | None:
    """What a safetensors file says of itself; None for a file that says nothing, and for one that cannot be read.

    Reads the header alone. Raises :class:`WeightsError` for a statement that is damaged.
    """
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length) if length <= MAX_HEADER else b"{}")
        text = header["__metadata__"][METADATA]
    except (OSError, ValueError, struct.error, RecursionError, KeyError, TypeError):
        return None  # the reader of the tensors says what is wrong
    try:
        return TrainedWeights.model_validate_json(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise WeightsError(f"{path}: says nothing clear of its training ({reason}); train it again") from error
