"""Recipes: what in a profile shapes a result, except data and code. A result whose recipe changed is stale."""

from typing import Any

from dcae_bench.base.errors import ConfigError
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.profile.diffusion import GuidanceSpec, LatentSource
from dcae_bench.profile.evaluation import EvaluationSet
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import ReleasedRow, TrainedRow
from dcae_bench.specs.protocols import WeightsSource


def _conditions(profile: Profile) -> dict[str, Any]:
    """Fields that every result of the profile depends on."""
    return profile.model_dump(mode="json", include={"seed", "device", "precision", "threads", "pack_short_side"})


def _path_conditions(profile: Profile) -> dict[str, Any]:
    """:func:`_conditions` with a path that the profile insists on: ``auto`` takes what any path computed."""
    return {**_conditions(profile), **({"path": profile.path} if profile.path != "auto" else {})}


def _trained_conditions(profile: Profile) -> dict[str, Any]:
    """Fields that every training depends on. ``processes`` 1 is left out, so hashes from before it stay valid.

    Eight processes are eight, on one machine or on several.
    """
    return {**_conditions(profile), **({"processes": profile.world} if profile.world > 1 else {})}


def training_recipe(profile: Profile, autoencoder: str, number: int) -> dict[str, Any]:
    """Everything that shapes the weights after a phase, except data and code. A change makes the phase stale."""
    if profile.is_fitted(autoencoder):
        crops = profile.phase(autoencoder, number).model_dump(
            mode="json", include={"resolution", "crop", "min_side", "flips"}
        )
        return {
            **_conditions(profile),
            "datasets": profile.training_sets(autoencoder, number),
            "model": profile.autoencoders[autoencoder].model.model_dump(mode="json"),
            "phase": number,
            "crops": crops,
        }
    return {
        **_trained_conditions(profile),
        "seed": profile.training_seed,
        "datasets": profile.training_sets(autoencoder, number),
        "loss": profile.required_training.loss.model_dump(mode="json"),
        "ema": profile.required_training.ema.model_dump(mode="json"),
        "execution": profile.required_training.execution.model_dump(mode="json"),
        "model": profile.autoencoders[autoencoder].model.model_dump(mode="json"),
        "phase": number,
        "plan": profile.phase(autoencoder, number).model_dump(mode="json"),
        # Left out at its default, so that hashes from before this field stay valid.
        **({"init": init} if number == 1 and (init := profile.autoencoders[autoencoder].init) != "torch" else {}),
        **({"initial_weights": start} if (start := profile.initial_of(autoencoder, number)) is not None else {}),
    }


def diffusion_recipe(profile: Profile, row: str) -> dict[str, Any]:
    """Everything that shapes a trained denoiser, except the autoencoder's weights, data and code."""
    return {**_trained_conditions(profile), **profile.trained_row(row).recipe()}


def latents_recipe(profile: Profile, latent: str, images: str) -> dict[str, Any]:
    """Everything that shapes cached latents, except weights, data and code.

    ``latent`` is ``autoencoder@weights``; ``images`` is a name in the diffusion part's ``data``.
    """
    spec = profile.required_diffusion
    if images not in spec.data:
        raise ConfigError(f"--images {images}: profile {profile.name} has {', '.join(spec.data)}")
    source = LatentSource.parse(latent)
    declared = catalogue().preset(source.autoencoder).scaling if source.weights == "released" else None
    scaling = spec.data[images].scaling(declared)
    return {
        **_path_conditions(profile),
        "latent": latent,
        "data": spec.data[images].model_dump(mode="json"),
        "model": profile.latent_autoencoder(latent).model_dump(mode="json"),
        "scaling": None if scaling is None else scaling.model_dump(mode="json"),
        "batch": spec.encode_batch,
    }


def sampling_recipe(profile: Profile, row: str, guidance: GuidanceSpec) -> dict[str, Any]:
    """Everything that shapes samples, except weights and code."""
    resolved = profile.row(row)
    recipe = {
        **_path_conditions(profile),
        **profile.required_diffusion.model_dump(mode="json", include={"samples", "sample_batch", "seed_policy"}),
        "sampler": resolved.sampler.model_dump(mode="json"),
        "guidance": guidance.scale,
        "denoiser": resolved.denoiser.model_dump(mode="json"),
        "model": resolved.autoencoder.model_dump(mode="json"),
    }
    if isinstance(resolved, ReleasedRow):
        recipe |= {"released": resolved.spec.released, "scaling": resolved.scaling.model_dump(mode="json")}
    return recipe


def evaluation_recipe(profile: Profile, *, reconstructs: bool = False) -> dict[str, Any]:
    """Everything that shapes an evaluation, of reconstructions or not, except weights, data and code."""
    return {**_path_conditions(profile), **profile.evaluation.recipe(reconstructs=reconstructs)}


def trained_recipes(profile: Profile, autoencoder: str, phase: int) -> list[dict[str, Any]]:
    """Recipes of the phases that retrained weights went through, up to ``phase``."""
    return [
        training_recipe(profile, autoencoder, number) for number in profile.phases_of(autoencoder) if number <= phase
    ]


def reconstruction_recipe(
    profile: Profile, autoencoder: str, weights: WeightsSource, phase: int | None, item: EvaluationSet
) -> dict[str, Any]:
    """Everything that the profile says of a measured reconstruction, from training to metrics.

    An autoencoder that the profile does not name is told by its name alone.
    """
    entry = profile.autoencoders.get(autoencoder)
    known = entry is not None and entry.weights == weights
    trained = known and weights == "retrained" and phase is not None
    return {
        **evaluation_recipe(profile, reconstructs=True),
        "set": item.recipe(),
        "autoencoder": [autoencoder, weights, phase],
        "model": entry.model.model_dump(mode="json") if entry is not None and known else None,
        "trained": trained_recipes(profile, autoencoder, phase) if trained and phase is not None else None,
    }


def denoiser_recipe(profile: Profile, row: str) -> dict[str, Any]:
    """Everything that the profile says of a trained denoiser, from its latents on."""
    resolved = profile.trained_row(row)
    return {**diffusion_recipe(profile, row), "behind": _latents_behind(profile, resolved)}


def generation_recipe(profile: Profile, row: str, guidance: float) -> dict[str, Any]:
    """Everything that the profile says of measured samples, from the latents to metrics."""
    resolved = profile.row(row)
    scale = float(f"{guidance:g}")  # as paths and records spell it
    return {
        "evaluation": evaluation_recipe(profile),
        "sampling": sampling_recipe(profile, row, GuidanceSpec(s=scale)),
        "data": resolved.data.model_dump(mode="json"),
        "denoiser": denoiser_recipe(profile, row) if isinstance(resolved, TrainedRow) else resolved.spec.released,
    }


def _latents_behind(profile: Profile, resolved: TrainedRow) -> dict[str, Any]:
    source = resolved.spec.source
    phase = max(profile.phases_of(source.autoencoder), default=None) if source.weights == "retrained" else None
    return {
        "latents": latents_recipe(profile, resolved.spec.latent, resolved.spec.data),
        "trained": trained_recipes(profile, source.autoencoder, phase) if phase is not None else None,
    }
