"""Classifier-free guidance: one prediction from a conditional and an unconditional one."""

import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.specs.diffusion import GuidanceSpec


class GuidedDenoiser:
    """A denoiser together with the labels (n,) of a batch and a guidance; predicts in float32.

    The guidance scales all channels of the noise or velocity, as in the paper. A learned variance is taken from the
    conditional prediction. One doubled batch computes both predictions; at scale 1 only the conditional prediction is
    computed. Raises :class:`ConfigError` for a scale other than 1 on an unconditional model, and :class:`DataError`
    for labels that do not fit the model.
    """

    def __init__(self, model: Denoiser, labels: Tensor | None, guidance: GuidanceSpec) -> None:
        classes = model.spec.classes
        if classes is None and not guidance.plain:
            raise ConfigError(f"guidance s = {guidance.scale:g}: the model is unconditional; use s = 1")
        if (labels is None) != (classes is None):
            raise DataError(
                f"labels are {'missing' if labels is None else 'given'}, but the model "
                f"{'is unconditional' if classes is None else f'has {classes} classes'}"
            )
        if labels is not None and classes is not None:
            _require_classes(labels, classes)
        self.model = model
        self.labels = labels
        self.scale = guidance.scale
        self.plain = guidance.plain

    def __call__(self, x: Tensor, t: Tensor, indices: Tensor | None = None) -> Tensor:
        """Predict for latents x (m, c, h, w) at times t (m,).

        ``indices`` (m,) are the places of these latents in the batch, where x holds only some of its samples.
        """
        y = self.labels if indices is None or self.labels is None else self.labels[indices]
        null_class = self.model.spec.null_class
        if self.plain or y is None or null_class is None:
            return self.model(x, t, y).float()
        null = torch.full_like(y, null_class)
        both = self.model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null])).float()
        conditional, unconditional = both.chunk(2)
        channels = x.shape[1]
        base = unconditional[:, :channels]
        guided = base + self.scale * (conditional[:, :channels] - base)
        return torch.cat([guided, conditional[:, channels:]], dim=1)


def _require_classes(labels: Tensor, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(f"label {int(wrong[0])}: the model has classes 0 to {classes - 1}; use its own data's labels")
