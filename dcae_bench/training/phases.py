"""Parts of a phase's training: which layers train, the optimiser, and the average of the weights."""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.sharding import share_of
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.profile.training import EMASpec, OptimizerSpec


def crop_seed(seed: int, phase: int) -> int:
    """Seed of a phase's crops: each phase sees its own, and all autoencoders see the same in a phase."""
    return int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])


class Freezer:
    """Freezes every layer outside the trainable sets: both its parameters and its BatchNorm statistics.

    Frozen layers stay in evaluation mode, because a BatchNorm in training mode updates its statistics even if its
    weights are frozen. The phase must not change these layers.
    """

    def __init__(self, model: Autoencoder, trainable: Sequence[str], freeze: Sequence[str] = ()):
        """Freeze ``model`` except for the layer sets in ``trainable``, of which the patterns in ``freeze`` stay frozen.

        A pattern names layers with all that is inside them, single weights, or a layer set; ``*`` stands for any text.
        Raises :class:`ConfigError` for an unknown layer set, for a pattern that matches nothing, and if no parameters
        are left to train.
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
        self.kept = freeze_layers(model, freeze, sets, family=model.family)
        """Layers that ``freeze`` keeps in evaluation mode."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(
                f"freeze {', '.join(freeze)}: leaves nothing to train in {', '.join(trainable)}; freeze fewer layers"
            )

    def train_mode(self) -> None:
        """Put the trainable layers in training mode, and all other layers in evaluation mode."""
        self.model.eval()
        for layer in self.trainable:
            layer.train()
        for layer in self.kept:
            layer.eval()


def freeze_layers(
    model: nn.Module, patterns: Sequence[str], sets: Mapping[str, Sequence[nn.Module]] | None = None, *, family: str
) -> list[nn.Module]:
    """Freeze what patterns name, and return the layers that must stay in evaluation mode.

    A pattern names layers with all that is inside them, single weights, or a key of ``sets``; ``*`` stands for any
    text. Raises :class:`ConfigError` for a pattern that matches nothing; ``family`` is the model's, for the error.
    """
    modules, kept = dict(model.named_modules()), []
    for pattern in patterns:
        layers = (sets or {}).get(pattern, ())
        found = list(layers) or [module for name, module in modules.items() if name and fnmatchcase(name, pattern)]
        weights = [] if layers else [p for name, p in model.named_parameters() if fnmatchcase(name, pattern)]
        # A BatchNorm whose statistics are named keeps them, and so it may not be in training mode.
        owners = [] if layers else [name for name, _ in model.named_buffers() if fnmatchcase(name, pattern)]
        if not (found or weights or owners):
            names = [name for name in modules if name]
            near = difflib.get_close_matches(pattern, names, n=3) or [name for name, _ in model.named_children()]
            raise ConfigError(
                f"freeze '{pattern}': matches no layer and no weight of this model of family {family}; there are "
                f"{', '.join(near)}"
            )
        kept += [*found, *(modules[name.rpartition(".")[0]] for name in owners)]
        for weight in (*weights, *(p for module in found for p in module.parameters())):
            weight.requires_grad_(False)
    return kept


def frozen_settings(model: nn.Module, patterns: Sequence[str]) -> dict[str, str]:
    """What a record says of layers that ``patterns`` froze, and of how many parameters; nothing without patterns."""
    if not patterns:
        return {}
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return {"freeze": ", ".join(patterns), "frozen": f"{frozen:,} of {total:,} parameters"}


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    spec: OptimizerSpec,
    *,
    decay_too: Collection[Tensor] = (),
    fused: bool | None = True,
    capturable: bool = False,
) -> torch.optim.AdamW:
    """Build AdamW over the parameters that train. Norms and biases have no weight decay unless the spec says so.

    ``decay_too`` are weights of norms that have. With ``fused`` None, torch chooses the kernels. ``capturable`` keeps
    the step count on the GPU, where a CUDA graph can increment it.
    """
    trained = [p for p in parameters if p.requires_grad]
    decays = [spec.decay_all or p.ndim > 1 or any(p is other for other in decay_too) for p in trained]
    decayed = [p for p, yes in zip(trained, decays, strict=True) if yes]
    rest = [p for p, yes in zip(trained, decays, strict=True) if not yes]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused, capturable=capturable)


def head_norms(model: Autoencoder) -> list[Tensor]:
    """Weights of the norms in the decoder's head. Raises :class:`ConfigError` where the head is not known."""
    layers = model.layer_sets().get("decoder_head", ())
    weights = [getattr(module, "weight", None) for layer in layers for module in layer.modules()]
    if found := [weight for weight in weights if isinstance(weight, Tensor) and weight.ndim == 1]:
        return found
    raise ConfigError(
        f"decay_head_norm: an autoencoder of family {model.family} has no norm in a known decoder head; leave it out"
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, spec: OptimizerSpec, images: int, total: int) -> float:
    """Set the learning rate for the batch that ends at ``images`` of ``total``, and return the rate.

    Linear warm-up, then constant or half a period of a cosine that ends at 0.
    """
    lr = spec.lr
    if spec.warmup_images:
        lr *= spec.warmup_start + (1 - spec.warmup_start) * min(1.0, images / spec.warmup_images)
    if spec.schedule == "cosine" and images > spec.warmup_images:
        lr *= (1 + math.cos(math.pi * (images - spec.warmup_images) / (total - spec.warmup_images))) / 2
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


class EMA:
    """Exponential moving average of a model's floating-point state, BatchNorm statistics included."""

    def __init__(self, model: nn.Module, spec: EMASpec):
        """Start from a copy of the model's state."""
        self.spec = spec
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    def decay(self, step: int) -> float:
        """Decay after ``step`` optimiser steps: decay * (1 - exp(-step / warmup_steps)), as in the authors' code."""
        return self.spec.decay * (1 - math.exp(-step / self.spec.warmup_steps))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model. Unchanged state stays bit-identical; counters are copied."""
        weight = 1 - self.decay(step)
        for key, value in model.state_dict().items():
            average = self.state[key]
            if value.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved average of whole tensors."""
        for key, value in state.items():
            self.state[key].copy_(share_of(value, self.state[key]))
