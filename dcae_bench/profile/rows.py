"""Resolved rows: a row of a profile's diffusion part with the specs of everything that the row names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.profile.diffusion import (
    DenoiserTrainingSpec,
    DiffusionSpec,
    LatentDataSpec,
    LatentSource,
    ReleasedRowSpec,
    TrainedRowSpec,
)
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.specs.denoisers import DenoiserSpec, LatentSpace
from dcae_bench.specs.diffusion import GuidanceSpec, ProcessName, SamplerSpec, paper_sampler


@dataclass(frozen=True)
class Row:
    """A resolved row: a denoiser, its latents and its sampler. ``spec`` is the entry as the profile writes it."""

    name: str
    spec: TrainedRowSpec | ReleasedRowSpec
    data: LatentDataSpec
    autoencoder: AutoencoderSpec
    denoiser: DenoiserSpec
    process: ProcessName
    sampler: SamplerSpec
    guidance: tuple[GuidanceSpec, ...]
    """Guidance scales; one set of samples is drawn with each."""


@dataclass(frozen=True)
class TrainedRow(Row):
    """A resolved row whose denoiser is trained."""

    spec: TrainedRowSpec
    training: DenoiserTrainingSpec

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.spec.images // self.training.batch_size

    def recipe(self) -> dict[str, Any]:
        """Everything that shapes the trained weights, except latents, seed, device and code.

        Sampler, guidance and previews are left out: they change samples, not weights.
        """
        samples_only = {"sampler", "guidance", "previews"}
        return {
            "latent": self.spec.latent,
            "data": self.data.model_dump(mode="json"),
            "model": self.autoencoder.model_dump(mode="json"),
            "denoiser": self.denoiser.model_dump(mode="json"),
            "images": self.spec.images,
            "training": self.training.model_dump(mode="json", exclude=samples_only),
            **({"initial_weights": self.spec.initial} if self.spec.initial is not None else {}),
        }


@dataclass(frozen=True)
class ReleasedRow(Row):
    """A resolved row whose denoiser comes from the catalogue. Its sampler is the paper's for its process."""

    spec: ReleasedRowSpec

    @property
    def scaling(self) -> Scaling:
        """Scaling of the latents in the authors' training."""
        return self.spec.preset.scaling


def resolve_row(
    spec: DiffusionSpec, name: str, autoencoders: Mapping[LatentSource, AutoencoderSpec]
) -> TrainedRow | ReleasedRow:
    """Resolve a row. ``autoencoders`` are those that the profile trains and the user's own.

    Raises ValueError for an unknown or unfit latent, and for data that do not match released weights.
    """
    row = spec.rows[name]
    data = spec.data[row.data]
    try:
        if isinstance(row, ReleasedRowSpec):
            _require_fit(row, data)
        autoencoder = latent_spec(row.source, autoencoders)
        latent = LatentSpace.of(autoencoder, data.resolution, row.patch)
        if isinstance(row, TrainedRowSpec):
            process = spec.trainings[row.training].process
            denoiser = spec.architecture(row.denoiser).on(latent, data.class_count, process)
        else:
            denoiser = denoiser_catalogue().spec(row.released)
    except ValueError as error:
        raise ValueError(f"row {name}: {_reason(error)}") from error
    if isinstance(row, ReleasedRowSpec):
        preset = row.preset
        unguided = preset.classes is None or preset.guidance.plain
        usual = (GuidanceSpec(s=1),) if unguided else (GuidanceSpec(s=1), preset.guidance)
        return ReleasedRow(
            name=name,
            spec=row,
            data=data,
            autoencoder=autoencoder,
            denoiser=denoiser,
            process=preset.process,
            sampler=paper_sampler(preset.process),
            guidance=row.guidance or usual,
        )
    training = spec.trainings[row.training]
    return TrainedRow(
        name=name,
        spec=row,
        data=data,
        autoencoder=autoencoder,
        denoiser=denoiser,
        process=training.process,
        sampler=training.chosen_sampler,
        guidance=row.guidance or training.guidance,
        training=training,
    )


def _require_fit(row: ReleasedRowSpec, data: LatentDataSpec) -> None:
    preset = row.preset
    for what, found, needed in (
        ("px", data.resolution, preset.resolution),
        ("classes", data.class_count or "no", preset.classes or "no"),
    ):
        if found != needed:
            raise ValueError(
                f"data '{row.data}' have {found} {what}, but {row.released} was trained on {needed} {what}; name "
                "other data"
            )


def latent_spec(source: LatentSource, autoencoders: Mapping[LatentSource, AutoencoderSpec]) -> AutoencoderSpec:
    """Spec of the autoencoder behind latents. Raises ValueError when profile and catalogue lack the autoencoder."""
    name = source.autoencoder
    if source.weights != "released":
        if source not in autoencoders:
            known = ", ".join(other.autoencoder for other in autoencoders if other.weights == source.weights)
            kind = "the profile retrains" if source.weights == "retrained" else "with 'weights: own' the profile has"
            raise ValueError(f"latent '{name}@{source.weights}': {kind} {known or 'nothing'}")
        return autoencoders[source]
    preset = catalogue().autoencoders.get(name)
    if preset is None or preset.weights is None:
        raise ValueError(f"latent '{name}@released': the catalogue (dcae-bench zoo) has no such released weights")
    return catalogue().spec(name)


def _reason(error: ValueError) -> str:
    """Message of a ValueError; for a pydantic error, the first problem's message."""
    return error.errors()[0]["msg"].removeprefix("Value error, ") if hasattr(error, "errors") else str(error)
