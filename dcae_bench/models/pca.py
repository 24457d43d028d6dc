"""PCA: the linear autoencoder of patches, a control that a trained autoencoder should beat."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.specs.autoencoders import PCASpec

OVERSAMPLED, ITERATIONS = 32, 4
"""Further directions and power iterations of the randomised decomposition (Halko et al. 2011, section 4.5)."""


def fit_mac(spec: PCASpec, patches: int) -> float:
    """Multiply-accumulates of :meth:`PCA.fit`: each power iteration multiplies by the patches twice, and once more."""
    directions = min(spec.latent_channels + OVERSAMPLED, patches, 3 * spec.compression**2)
    return float((2 * ITERATIONS + 2) * patches * 3 * spec.compression**2 * directions)


class PCA(Autoencoder):
    """Principal components of f x f px patches: a latent cell holds a patch's coordinates along the components."""

    family = "pca"
    spec: PCASpec

    def __init__(self, spec: PCASpec):
        super().__init__()
        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        numbers = 3 * spec.compression**2
        self.mean = nn.Parameter(torch.zeros(numbers))
        self.components = nn.Parameter(torch.eye(spec.latent_channels, numbers))

    def _encode(self, x: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(x, self.compression) - self.mean[:, None, None]
        return F.conv2d(patches, self.components[:, :, None, None])

    def _decode(self, z: Tensor) -> Tensor:
        patches = F.conv2d(z, self.components.T[:, :, None, None], self.mean)
        return F.pixel_shuffle(patches, self.compression)

    @torch.no_grad()
    def fit(self, patches: Tensor, seed: int) -> float:
        """Fit mean and components to patches (n, 3 f^2) in [-1, 1]; returns the explained share of their variance.

        The decomposition is randomised and drawn from ``seed``. Components are sorted by variance, and the largest
        number of each is positive, because the sign of a component is arbitrary. ``patches`` are centred in place.
        """
        self.mean.copy_(patches.mean(0))
        patches -= self.mean
        directions = min(self.latent_channels + OVERSAMPLED, *patches.shape)
        with torch.random.fork_rng(devices=[patches.device] if patches.is_cuda else []):
            torch.manual_seed(seed)
            _, lengths, vectors = torch.svd_lowrank(patches, q=directions, niter=ITERATIONS)
        found = vectors[:, : self.latent_channels].T
        signs = found.gather(1, found.abs().argmax(1, keepdim=True)).sign()
        self.components.copy_(found * signs)
        whole = sum(part.double().square().sum() for part in patches.split(1024))  # without a copy of all patches
        return float(lengths[: self.latent_channels].double().square().sum() / whole)

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """The whole model; it has no layers."""
        return {"all": [self]}

    @property
    def last_layer(self) -> Tensor:
        """The components, which decode the latent."""
        return self.components
