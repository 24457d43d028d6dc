"""Classifier-free guidance: one prediction out of a conditional and an unconditional one."""

import torch
from torch import Tensor

from dcae_bench.diffusion_specs import GuidanceSpec
from dcae_bench.errors import ConfigError, DataError
from dcae_bench.models.denoiser import Denoiser


class Guided:
    """A denoiser with its labels (n,) and guidance: latents and times to predictions in float32.

    The scale works on all channels of the noise or velocity, as the paper's; a learned variance is the conditional
    one's. Both predictions come from one doubled batch, and at scale 1 only the conditional is computed. Raises
    :class:`ConfigError` for a scale on an unconditional model and :class:`DataError` for labels that do not fit.
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
        if labels is not None and labels.numel() and not (labels.min() >= 0 and labels.max() < classes):
            wrong = labels[(labels < 0) | (labels >= classes)][0]
            raise DataError(f"label {int(wrong)}: the model has classes 0 to {classes - 1}; use its own data's labels")
        self.model = model
        self.labels = labels
        self.scale = guidance.scale
        self.plain = guidance.plain

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """Predict for latents x (m, c, h, w) at times t (m,); ``rows`` (m,) says whose labels they have, if not all."""
        y = self.labels if rows is None or self.labels is None else self.labels[rows]
        if self.plain:
            return self.model(x, t, y).float()
        null = torch.full_like(y, self.model.spec.null_class)
        both = self.model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null])).float()
        conditional, unconditional = both.chunk(2)
        channels = x.shape[1]
        base = unconditional[:, :channels]
        guided = base + self.scale * (conditional[:, :channels] - base)
        return torch.cat([guided, conditional[:, channels:]], dim=1)
