"""Initial weights of phase 1: starts that deep nano models learn from, beside torch's own."""

import torch
from torch import nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.profile.autoencoders import Init


@torch.no_grad()
def initialise(model: Autoencoder, init: Init, *, seed: int) -> None:
    """Change a model's default weights to the start ``init``; ``torch`` leaves them as they are.

    ``identity``: the residual branches end in zeros (Goyal et al. 2017, section 5.1). ``balanced``: convolutions are
    drawn with variance 1 / fan-in from ``seed``, and their biases are 0. torch's default shrinks the signal to a third
    of its variance at every convolution without a shortcut, until the biases, equal for all images, drown it.

    Raises :class:`ConfigError` for an autoencoder without known residual branches or without convolutions.
    """
    if init == "torch":
        return
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)] if init == "balanced" else []
    ends = model.residual_ends() if init == "identity" else []
    if not layers and not ends:
        lacks = "convolutions" if init == "balanced" else "known residual branches"
        raise ConfigError(f"init '{init}': an autoencoder of family {model.family} has no {lacks}; leave it out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for weights in ends:
        weights.zero_()
