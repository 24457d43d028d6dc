"""The kernel of attention: chosen by name, or the fastest of those that torch has for a denoiser's shapes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dcae_bench.specs.denoisers import DenoiserSpec

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "memory efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@contextmanager
def attention_kernel(name: str | None) -> Iterator[None]:
    """Use one of torch's attention kernels, or the plain kernel for shapes that it refuses. None: torch chooses."""
    if name is None:
        yield
        return
    with sdpa_kernel([KERNELS[name], SDPBackend.MATH], set_priority=True):
        yield


def fastest_attention(
    spec: DenoiserSpec, batch: int, dtype: torch.dtype, device: torch.device, *, train: bool
) -> str | None:
    """Name of the fastest kernel for a denoiser's shapes, timed by CUDA events; None if no kernel runs.

    The operands hold at most 2**26 numbers, for which the batch is cut: the fastest kernel depends on sequence length
    and head size, hardly on the batch.
    """
    numbers = spec.sequence * spec.width
    shape = (max(1, min(batch, 2**26 // numbers)), spec.heads, spec.sequence, spec.width // spec.heads)
    q, k, v = (torch.randn(shape, device=device, dtype=dtype, requires_grad=train) for _ in range(3))
    times = {}
    for name, kernel in KERNELS.items():
        try:
            with sdpa_kernel([kernel]):
                times[name] = min(_attention_ms(q, k, v, train) for _ in range(5))
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            continue  # torch raises RuntimeError for a kernel that has no code for these shapes
    return min(times, key=lambda name: times[name], default=None)


def _attention_ms(q: Tensor, k: Tensor, v: Tensor, train: bool) -> float:
    """Milliseconds of one attention; with ``train`` including the backward pass."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    with torch.set_grad_enabled(train):
        out = F.scaled_dot_product_attention(q, k, v)
        if train:
            torch.autograd.grad(out, (q, k, v), out)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)
