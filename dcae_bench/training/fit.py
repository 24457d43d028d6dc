"""The fit of a control: the principal components of training crops, in the place of phase 1."""

import torch
import torch.nn.functional as F

from dcae_bench.base.errors import ConfigError
from dcae_bench.data.batches import TrainBatches
from dcae_bench.data.photo_sets import PhotoSet
from dcae_bench.models.pca import PCA
from dcae_bench.profile.profile import Profile
from dcae_bench.running.device import choose
from dcae_bench.specs.autoencoders import PCASpec
from dcae_bench.training.phases import crop_seed


def fit_components(
    profile: Profile, autoencoder: str, spec: PCASpec, phase: int, photos: PhotoSet
) -> tuple[PCA, float]:
    """Fit a PCA to the first crops of a phase; returns it with the share of their variance that it explains.

    Raises :class:`ConfigError` for fewer patches than components, and :class:`DataError` as the crops do.
    """
    plan, f = profile.phase(autoencoder, phase), spec.compression
    cells = (plan.resolution // f) ** 2
    if spec.images * cells < spec.latent_channels:
        raise ConfigError(
            f"{autoencoder}: {spec.images} images hold {spec.images * cells} patches of {f} px, fewer than its "
            f"{spec.latent_channels} components; set the 'images' of its model higher"
        )
    crops = TrainBatches(
        photos,
        crop_seed(profile.training_seed, phase),
        share=1,
        stride=1,
        end=spec.images,
        resolution=plan.resolution,
        crop=plan.crop,
        flips=plan.flips,
    )
    device = choose(profile)
    patches = torch.empty(spec.images, cells, 3 * f * f)
    for index in range(spec.images):
        patches[index] = F.pixel_unshuffle(crops(index), f).flatten(2)[0].T
    model = PCA(spec).to(device)
    return model, model.fit(patches.flatten(0, 1).to(device), profile.training_seed)
