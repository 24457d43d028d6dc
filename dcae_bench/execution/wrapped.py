"""Autoencoders that compute another one in another way: what they have in common with it."""

from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder


class Wrapped(Autoencoder):
    """An autoencoder around another, ``inner``, that a subclass computes in its own way."""

    def __init__(self, inner: Autoencoder):
        super().__init__()
        self.family, self.spec = inner.family, inner.spec
        self.compression, self.latent_channels = inner.compression, inner.latent_channels
        self.take_over(inner)
        self.inner = inner
        self.train(inner.training)

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Those of the inner autoencoder."""
        return self.inner.layer_sets()

    @property
    def last_layer(self) -> Tensor:
        """That of the inner autoencoder."""
        return self.inner.last_layer
