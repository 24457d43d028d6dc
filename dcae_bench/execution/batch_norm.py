"""BatchNorm whose statistics cover the whole batch when several processes share a batch.

torch's SyncBatchNorm computes on GPUs only. This BatchNorm computes on CPUs too, and gives the result that a single
process with the whole batch would get.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def share_batch_norms(model: nn.Module) -> None:
    """Replace every BatchNorm in ``model`` by a :class:`SharedBatchNorm` with the same name and tensors."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SharedBatchNorm(child))


class SharedBatchNorm(_BatchNorm):
    """A BatchNorm over the batch of all processes; each process has an equal share (n, c, ...) of the batch."""

    def __init__(self, norm: _BatchNorm):
        """Take the tensors and settings of ``norm``; the tensors are not copied."""
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.train(norm.training)

    def _check_input_dim(self, x: Tensor) -> None:
        return

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (n, c, ...).

        In training mode the statistics are those of the shared batch (fp32); they also update the running averages.
        """
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        values = x.float()
        mean = _Mean.apply(values.mean(axes))
        centred = values - mean.view(shape)
        variance = _Mean.apply(centred.square().mean(axes))
        self._move_averages(mean.detach(), variance.detach(), x.numel() // x.shape[1])
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _move_averages(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Update the running averages, if there are any; ``values`` counts a channel's numbers in this share."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        count = values * torch.distributed.get_world_size()
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * (count / (count - 1)), weight)


class _Mean(torch.autograd.Function):
    """Mean over processes. Each process's loss depends on the values of all, so gradients are averaged too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _mean_over_processes(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean_over_processes(gradient)


def _mean_over_processes(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
