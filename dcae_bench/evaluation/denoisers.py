"""A row's denoiser, opened to be sampled: trained by the profile on cached latents, or released by its authors."""

from dataclasses import dataclass
from pathlib import Path

from dcae_bench import weights as store
from dcae_bench.config import Profile
from dcae_bench.data.latents import LatentManifest, read_manifest, require_row, require_weights
from dcae_bench.diffusion_plan import ReleasedPlan, TrainedPlan
from dcae_bench.errors import ConfigError
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.denoiser_checkpoints import load_denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.training.diffusion_run import open_autoencoder


@dataclass(frozen=True)
class OpenDenoiser:
    """A denoiser in evaluation mode with the autoencoder that decodes, and the scale of the latents between them."""

    model: Denoiser
    sha256: str
    autoencoder: Autoencoder
    autoencoder_sha256: str
    scaling_factor: float
    shift: float
    cache: LatentManifest | None
    """Of the latents that it learned from; None: it was released, and where it learned is not here."""

    @property
    def identity(self) -> list[object]:
        """All that tells it from others, as recipes hold it."""
        if self.cache is not None:
            return [self.sha256, self.cache.sha256, self.cache.scaling_factor]
        return [self.sha256, self.autoencoder_sha256, self.scaling_factor, self.shift]


def open_trained(
    profile: Profile, plan: TrainedPlan, weights: Path | None, latents: Path | None, autoencoder: Path | None
) -> OpenDenoiser:
    """Open ``weights`` of a trained row with the cache that it learned from, of which only the manifest is read.

    Raises :class:`ConfigError` for an option that is missing, :class:`DataError` and :class:`WeightsError`.
    """
    for option, given, wanted in (
        ("--weights", weights, "name the model.safetensors that `train-diffusion` wrote"),
        ("--latents", latents, "name the folder that `encode` wrote for it"),
    ):
        if given is None:
            raise ConfigError(f"{option} is missing: row {plan.name} is trained by profile {profile.name}; {wanted}")
    manifest = read_manifest(latents)
    require_row(manifest, plan, latents)
    decoder, subject = open_autoencoder(profile, plan, autoencoder)
    require_weights(manifest, subject.weights_sha256, latents)
    model = build_denoiser(plan.denoiser)
    sha256 = load_denoiser(model, weights)
    scale = manifest.scaling_factor, manifest.shift
    return OpenDenoiser(model.eval(), sha256, decoder, subject.weights_sha256, *scale, manifest)


def open_released(
    profile: Profile, plan: ReleasedPlan, weights: Path | None, latents: Path | None, autoencoder: Path | None
) -> OpenDenoiser:
    """Open the catalogue's weights of a released row and of its autoencoder: found by name, with their declared scale.

    Raises :class:`ConfigError` for an option that would replace one of them, and :class:`WeightsError`.
    """
    for option, given, name in (
        ("--weights", weights, plan.row.released),
        ("--autoencoder", autoencoder, plan.row.source.autoencoder),
    ):
        if given is not None:
            raise ConfigError(
                f"{option} {given}: row {plan.name} takes the released weights of {name}; leave the option out, and "
                f"put a file on record with `dcae-bench weights fetch {name} --path FILE`"
            )
    if latents is not None:
        raise ConfigError(
            f"--latents {latents}: row {plan.name} has released weights, and their scale is the catalogue's; leave the "
            "option out"
        )
    local = store.locate(plan.row.released)
    decoder, subject = open_autoencoder(profile, plan, None)
    model = build_denoiser(plan.denoiser)
    sha256 = load_denoiser(model, local.path, sha256=local.sha256)
    scale = plan.scaling.factor, plan.scaling.shift
    return OpenDenoiser(model.eval(), sha256, decoder, subject.weights_sha256, *scale, None)
