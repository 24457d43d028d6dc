"""The kernel of attention: chosen by name, or the fastest of those that torch has for a denoiser's shapes.

Kernels compute in tiles whose width is a multiple of 32 or 64 head channels. Heads of another size are therefore also
offered padded with zeros. This is exact: zeros add nothing to the products of queries and keys, and what they add to
the result is cut off. Tokens are not padded: a further key would change every softmax without a mask, which the fastest
kernels do not take.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dcae_bench.execution.agreement import LIMITS, relative_rms
from dcae_bench.models.denoiser import Attention
from dcae_bench.running.precision import DTYPES
from dcae_bench.specs.denoisers import DenoiserSpec

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "memory efficient": SDPBackend.EFFICIENT_ATTENTION,
}
TILES = (32, 64)
"""Head sizes are also tried padded to the next multiple of each of these."""
PADDED = ", heads padded to "
"""Between a kernel and the size of padded heads in the name of a way to compute attention."""
PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}


@contextmanager
def attention_kernel(name: str | None) -> Iterator[None]:
    """Use one of torch's attention kernels, or the plain kernel for shapes that it refuses. None: torch chooses.

    A network pads its heads only after :func:`use_attention`.
    """
    if name is None:
        yield
        return
    with sdpa_kernel([KERNELS[name.partition(PADDED)[0]], SDPBackend.MATH], set_priority=True):
        yield


def use_attention(network: nn.Module, name: str | None) -> None:
    """Let ``network`` pad its heads where a name from :func:`fastest_attention` says so, before it is compiled.

    :func:`attention_kernel` chooses the kernel. Weights and state dict stay as they are.
    """
    size = _padded_size(name) if name is not None else None
    for module in network.modules():
        if isinstance(module, Attention):
            module.attend = F.scaled_dot_product_attention if size is None else partial(padded_attention, size=size)


def padded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, size: int, pad: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None
) -> Tensor:
    """Attention of queries, keys and values (n, heads, l, head size), with heads padded by zeros to ``size``.

    ``pad`` is another way to pad them.
    """
    head = q.shape[-1]
    q, k, v = (pad or _pad)(q, k, v, size - head)
    return F.scaled_dot_product_attention(q, k, v, scale=head**-0.5)[..., :head]


def fastest_attention(
    spec: DenoiserSpec, batch: int, dtype: torch.dtype, device: torch.device, *, train: bool, compiled: bool = False
) -> str | None:
    """Name of the fastest way to compute a denoiser's attention, timed by CUDA events; None if no kernel runs.

    Each kernel is tried with the heads as they are and padded; with ``compiled`` the padding is compiled, as in a
    compiled block. A way whose result differs from plain fp32 attention by more than the precision's limit is left out.
    The operands hold at most 2**26 numbers, for which the batch is cut: the fastest kernel depends on sequence length
    and head size, hardly on the batch.
    """
    head = spec.width // spec.heads
    images = max(1, min(batch, 2**26 // (spec.sequence * spec.width)))
    # The operands lie in memory as the layer before attention writes them.
    qkv = torch.randn((images, spec.sequence, 3, spec.heads, head), device=device, dtype=dtype, requires_grad=train)
    wanted = F.scaled_dot_product_attention(*_operands(qkv[:1].detach().float()))
    times = {}
    for name in ways(head):
        attend = _way(name, compiled)
        try:
            with sdpa_kernel([KERNELS[name.partition(PADDED)[0]]]):
                with torch.no_grad():
                    error = relative_rms(attend(*_operands(qkv[:1].detach())), wanted)
                if error <= LIMITS[PRECISIONS[dtype]]:  # not for NaN
                    times[name] = min(_attention_ms(attend, qkv, train) for _ in range(5))
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            continue  # torch raises RuntimeError for a kernel that has no code for these shapes
    return min(times, key=lambda name: times[name], default=None)


def ways(head: int) -> list[str]:
    """Names of the ways to compute attention with heads of a size: every kernel, as it is and with padded heads."""
    sizes = sorted({-(-head // tile) * tile for tile in TILES} - {head})
    return [kernel + padding for padding in ("", *(f"{PADDED}{size}" for size in sizes)) for kernel in KERNELS]


def _way(name: str, compiled: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    size = _padded_size(name)
    if size is None:
        return F.scaled_dot_product_attention
    # Attention itself stays eager: compiled code would remember the kernel of the first call.
    return partial(padded_attention, size=size, pad=torch.compile(_pad, dynamic=False) if compiled else _pad)


def _padded_size(name: str) -> int | None:
    size = name.partition(PADDED)[2]
    return int(size) if size else None


def _pad(q: Tensor, k: Tensor, v: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    return F.pad(q, (0, channels)), F.pad(k, (0, channels)), F.pad(v, (0, channels))


def _operands(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (n, heads, l, head size) of (n, l, 3, heads, head size), without a copy."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _attention_ms(attend: Callable[..., Tensor], qkv: Tensor, train: bool) -> float:
    """Milliseconds of one attention; with ``train`` including the backward pass."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    with torch.set_grad_enabled(train):
        out = attend(*_operands(qkv))
        if train:
            torch.autograd.grad(out, qkv, out)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)
