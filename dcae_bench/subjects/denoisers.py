"""The opener of a row's denoiser for sampling: trained by the profile on cached latents, or released by its authors."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.data.latents import (
    LatentManifest,
    read_latent_manifest,
    require_latents_of_row,
    require_latents_of_weights,
)
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.cost import denoiser_cost
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.denoiser_checkpoints import load_denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import ReleasedRow, Row, TrainedRow
from dcae_bench.records.subject import DenoiserSubject, Subject
from dcae_bench.specs.latent_scale import Numbers, told
from dcae_bench.subjects.autoencoders import open_autoencoder
from dcae_bench.subjects.choose import choose_for_latents
from dcae_bench.subjects.initial import Initial
from dcae_bench.subjects.trained import describe_weights, require_description
from dcae_bench.weights import released as store
from dcae_bench.weights.trained import TrainedWeights, model_sha256


class Identity(TypedDict):
    """What samples are drawn with: hashes of denoiser, decoder and latents, and the scale of the latents."""

    denoiser_sha256: str
    autoencoder_sha256: str
    latents_sha256: str | None
    scaling_factor: Numbers
    shift: Numbers


@dataclass(frozen=True)
class OpenDenoiser:
    """A denoiser in evaluation mode, the autoencoder that decodes its latents, and the scale of the latents."""

    model: Denoiser
    sha256: str
    autoencoder: Autoencoder
    autoencoder_sha256: str
    scaling_factor: Numbers
    shift: Numbers
    cache: LatentManifest | None
    """Manifest of the latents that the denoiser learned from; None for a released denoiser."""

    @property
    def identity(self) -> Identity:
        """The values that tell this denoiser and its decoder from others, as the manifest of samples holds them."""
        return {
            "denoiser_sha256": self.sha256,
            "autoencoder_sha256": self.autoencoder_sha256,
            "latents_sha256": self.cache.sha256 if self.cache else None,
            "scaling_factor": self.scaling_factor,
            "shift": self.shift,
        }


def open_trained(
    profile: Profile, resolved: TrainedRow, weights: Path | None, latents: Path | None, autoencoder: Path | None
) -> OpenDenoiser:
    """Open the denoiser of a trained row from its ``weights`` and the folder of the ``latents`` it learned from.

    Only the manifest of the latents is read. ``autoencoder`` is the weights file of a retrained autoencoder. Raises
    :class:`ConfigError` for a missing option, :class:`DataError` and :class:`WeightsError`.
    """
    trained = f"row {resolved.name} is trained by profile {profile.name}"
    if weights is None:
        raise ConfigError(f"--weights is missing: {trained}; name the model.safetensors that `train-diffusion` wrote")
    if latents is None:
        raise ConfigError(f"--latents is missing: {trained}; name the folder that `encode` wrote for it")
    manifest = read_latent_manifest(latents)
    require_latents_of_row(manifest, profile, resolved, latents)
    decoder, subject = open_decoder(profile, resolved, autoencoder)
    require_latents_of_weights(manifest, subject.weights_sha256, latents)
    _require_denoiser(weights, resolved, manifest)
    model = build_denoiser(resolved.denoiser)
    sha256 = load_denoiser(model, weights)
    require_description(weights)
    scale = manifest.scaling_factor, manifest.shift
    return OpenDenoiser(model.eval(), sha256, decoder, subject.weights_sha256, *scale, manifest)


def open_released(
    profile: Profile, resolved: ReleasedRow, weights: Path | None, latents: Path | None, autoencoder: Path | None
) -> OpenDenoiser:
    """Open the denoiser of a released row and its autoencoder, both by name, with the scale that the authors declare.

    ``weights``, ``latents`` and ``autoencoder`` are the command's options, and none of them applies here. Raises
    :class:`ConfigError` for each that is given, and :class:`WeightsError`.
    """
    for option, given, name in (
        ("--weights", weights, resolved.spec.released),
        ("--autoencoder", autoencoder, resolved.spec.source.autoencoder),
    ):
        if given is not None:
            raise ConfigError(
                f"{option} {given}: row {resolved.name} takes the released weights of {name}; leave the option out, "
                f"and put a file on record with `dcae-bench weights fetch {name} --path FILE`"
            )
    if latents is not None:
        raise ConfigError(
            f"--latents {latents}: row {resolved.name} has released weights, and their scale is the catalogue's; leave "
            "the option out"
        )
    local = store.locate(resolved.spec.released)
    decoder, subject = open_decoder(profile, resolved, None)
    model = build_denoiser(resolved.denoiser)
    sha256 = load_denoiser(model, local.path, sha256=local.sha256)
    scale = resolved.scaling.factors, resolved.scaling.shifts
    return OpenDenoiser(model.eval(), sha256, decoder, subject.weights_sha256, *scale, None)


def open_decoder(profile: Profile, resolved: Row, file: Path | None) -> tuple[Autoencoder, Subject]:
    """Open the autoencoder behind a row's latents, in evaluation mode; returns model and description.

    ``file`` is the weights file of a retrained autoencoder. Raises :class:`ConfigError` where a retrained autoencoder
    has no file, and :class:`WeightsError`.
    """
    return open_autoencoder(
        choose_for_latents(profile, resolved.spec.source, resolved.autoencoder, file, "--autoencoder")
    )


def describe_denoiser(resolved: Row, weights_sha256: str) -> DenoiserSubject:
    """Describe a row's denoiser as records hold it."""
    cost, spec = denoiser_cost(resolved.denoiser), resolved.denoiser
    released = resolved.spec.released if isinstance(resolved, ReleasedRow) else None
    return DenoiserSubject(
        row=resolved.name,
        name=resolved.spec.denoiser,
        family=spec.family,
        process=resolved.process,
        patch=spec.latent.patch,
        tokens=spec.latent.tokens,
        classes=spec.classes,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
        weights_sha256=weights_sha256,
        weights_source="retrained" if released is None else "released",
        released=released,
        initial=resolved.spec.initial if isinstance(resolved, TrainedRow) else None,
        frozen=resolved.training.freeze if isinstance(resolved, TrainedRow) else (),
        weights_commit=None if released is None else store.commit_of(released, weights_sha256),
    )


def scale_of_others(initial: Initial, latents: LatentManifest) -> str | None:
    """A line about initial weights that learned from latents of another scale; None where nobody knows, or if equal.

    Such a start is allowed, because the autoencoder may be another one; the denoiser must first learn the new scale.
    Raises :class:`WeightsError` for a statement that is damaged.
    """
    preset = denoiser_catalogue().denoisers.get(initial.name)
    stated = describe_weights(initial.path)
    if preset is not None:
        scale: tuple[Numbers | None, Numbers | None] = preset.scaling.factors, preset.scaling.shifts
    else:
        scale = (stated.scaling_factor, stated.shift) if stated is not None else (None, None)
    mine = latents.scaling_factor, latents.shift
    if scale[0] is None or scale == mine:
        return None
    return (
        f"its initial weights {initial.name} learned from latents scaled by {told(scale[0])} "
        f"(shift {told(scale[1] or 0)}), these are scaled by {told(mine[0])} (shift {told(mine[1])})"
    )


def _require_denoiser(path: Path, resolved: TrainedRow, latents: LatentManifest) -> None:
    """Check that weights are of a row's denoiser and learned from these latents. Raises :class:`WeightsError`."""
    found = describe_weights(path)
    if found is None:
        return
    if (found.kind, found.name) != ("denoiser", resolved.name):
        raise WeightsError(
            f"{path}: holds weights of {found.kind} {found.name}, not of row {resolved.name}; pass those of the row"
        )
    if found.model_sha256 not in (None, model_sha256(resolved.denoiser)):
        raise WeightsError(
            f"{path}: was trained as row {resolved.name} when the profile had another denoiser for it; train it again"
        )
    stated = found.latents_sha256, found.scaling_factor, found.shift
    if found.latents_sha256 and stated != (latents.sha256, latents.scaling_factor, latents.shift):
        raise WeightsError(
            f"{path}: learned from latents {found.latents_sha256[:12]} scaled by {_told(found)}, these are "
            f"{latents.sha256[:12]} scaled by {_told(latents)}; pass the latents that it learned from"
        )


def _told(found: TrainedWeights | LatentManifest) -> str:
    return "nothing" if found.scaling_factor is None else told(found.scaling_factor)
