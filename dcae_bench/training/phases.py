"""What a phase trains and what it leaves untouched, and the average of the weights that it hands on."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from dcae_bench.errors import ConfigError
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.training_spec import EMASpec, OptimizerSpec


class Freezer:
    """Keeps every layer outside the trainable sets as it is: its parameters and its BatchNorm statistics.

    Frozen layers stay in evaluation mode. A BatchNorm in training mode would go on moving its statistics although its
    weights are frozen, and so change layers that the phase promises to leave alone.
    """

    def __init__(self, model: Autoencoder, trainable: Sequence[str]):
        """Freeze ``model`` except for the layer sets in ``trainable``.

        Raises :class:`ConfigError` for unknown ones, and where they have no parameters.
        """
        sets = model.layer_sets()
        if unknown := [name for name in trainable if name not in sets]:
            raise ConfigError(
                f"trainable layer set '{unknown[0]}': an autoencoder of family {model.family} has only "
                f"{', '.join(sets)}; name one of those"
            )
        self.model = model
        self.trainable = [layer for name in trainable for layer in sets[name]]
        model.requires_grad_(False)
        for layer in self.trainable:
            layer.requires_grad_(True)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(
                f"trainable {', '.join(trainable)}: this autoencoder of family {model.family} has no parameters there; "
                "measure it with `dcae-bench evaluate`"
            )

    def train_mode(self) -> None:
        """Training mode for the trainable layers, evaluation mode for all others."""
        self.model.eval()
        for layer in self.trainable:
            layer.train()


def make_optimizer(
    parameters: Iterable[nn.Parameter], spec: OptimizerSpec, *, fused: bool | None = True, capturable: bool = False
) -> torch.optim.AdamW:
    """Build AdamW over the parameters that train; vectors (norms and biases) do not decay unless the spec says so.

    ``fused`` None leaves the choice of kernels to torch; ``capturable`` keeps the number of the step on the GPU, where
    a CUDA graph can count it.
    """
    trained = [p for p in parameters if p.requires_grad]
    decayed = [p for p in trained if spec.decay_all or p.ndim > 1]
    rest = [p for p in trained if not (spec.decay_all or p.ndim > 1)]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused, capturable=capturable)


def set_learning_rate(optimizer: torch.optim.Optimizer, spec: OptimizerSpec, images: int) -> float:
    """Set the rate for the batch that ends at ``images``: linear warm-up, then constant. Returns it."""
    lr = spec.lr * min(1.0, images / spec.warmup_images) if spec.warmup_images else spec.lr
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


class EMA:
    """Exponential moving average of a model's floating-point state, BatchNorm statistics included."""

    def __init__(self, model: nn.Module, spec: EMASpec):
        """Start at the model's present state."""
        self.spec = spec
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    def decay(self, step: int) -> float:
        """Decay after ``step`` optimiser steps: decay * (1 - exp(-step / warmup_steps)), as in the authors' code."""
        return self.spec.decay * (1 - math.exp(-step / self.spec.warmup_steps))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model. State that did not change stays bit-identical; counters are copied."""
        weight = 1 - self.decay(step)
        for key, value in model.state_dict().items():
            average = self.state[key]
            if value.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a saved average."""
        for key, value in state.items():
            self.state[key].copy_(value)
