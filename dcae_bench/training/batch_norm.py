"""BatchNorm over the batch that the processes of a training share.

torch's SyncBatchNorm computes on GPUs only; this one computes wherever training does, and its function is that of one
process with the whole batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def share_batch_norms(model: nn.Module) -> None:
    """Let every BatchNorm inside ``model`` take its statistics over all processes; tensors and names stay."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SharedBatchNorm(child))


class SharedBatchNorm(_BatchNorm):
    """A BatchNorm whose batch is that of all processes, each of which has an equal share (n, c, ...)."""

    def __init__(self, norm: _BatchNorm):
        """Take over the tensors and settings of ``norm``."""
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.train(norm.training)

    def _check_input_dim(self, x: Tensor) -> None:
        return

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, in training mode by the shared batch's statistics (fp32), and move the averages by them."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        values = x.float()
        mean = _Mean.apply(values.mean(axes))
        centred = values - mean.view(shape)
        variance = _Mean.apply(centred.square().mean(axes))
        if self.running_mean is not None:
            self._move_averages(mean.detach(), variance.detach(), x.numel() // x.shape[1])
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _move_averages(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """``values`` are those of a channel in this process's share."""
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        count = values * torch.distributed.get_world_size()
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * (count / (count - 1)), weight)


class _Mean(torch.autograd.Function):
    """Mean over processes; each one's loss depends on the values of all, so their gradients are exchanged too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _exchange(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _exchange(gradient)


def _exchange(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
