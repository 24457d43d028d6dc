"""Autoencoders that compute another one in another way: what they have in common with it."""

import torch
from torch import Tensor, nn

from dcae_bench.models.autoencoder import Autoencoder

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says where a computation does not fit; a processor raises no class of its own for it."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that a computation does not fit in memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)


class Wrapped(Autoencoder):
    """An autoencoder around another, ``inner``, that a subclass computes in its own way."""

    def __init__(self, inner: Autoencoder):
        super().__init__()
        self.family, self.spec = inner.family, inner.spec
        self.compression, self.latent_channels = inner.compression, inner.latent_channels
        self.has_posterior = inner.has_posterior
        self.inner = inner
        self.train(inner.training)

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Those of the inner autoencoder."""
        return self.inner.layer_sets()

    @property
    def last_layer(self) -> Tensor:
        """That of the inner autoencoder."""
        return self.inner.last_layer
