"""Faster ways to compute the same: an attention kernel, a CUDA graph, TensorRT. Compilation is training.blocks'."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dcae_bench.denoiser_specs import DenoiserSpec
from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.timing import Workload

CAPTURE_WARM_UP = 3
"""Calls on the first inputs before a capture; they are real ones, so that training moves by as many steps."""
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "memory efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@contextmanager
def attention_kernel(name: str | None) -> Iterator[None]:
    """Use one kernel of torch's attention, with its plain one where that refuses; None leaves the choice to torch."""
    if name is None:
        yield
        return
    with sdpa_kernel([KERNELS[name], SDPBackend.MATH], set_priority=True):
        yield


def fastest_attention(
    spec: DenoiserSpec, batch: int, dtype: torch.dtype, device: torch.device, *, train: bool
) -> str | None:
    """Name of the kernel that is fastest on a denoiser's shapes, by CUDA events; None where none runs.

    At most 2**26 numbers an operand are tried: the choice depends on length and head size, not on the last image.
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
            continue  # torch says so of a kernel that has no code for these shapes
    return min(times, key=lambda name: times[name], default=None)


def _attention_ms(q: Tensor, k: Tensor, v: Tensor, train: bool) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    with torch.set_grad_enabled(train):
        out = F.scaled_dot_product_attention(q, k, v)
        if train:
            torch.autograd.grad(out, (q, k, v), out)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def captured(function: Callable[..., Tensor], inputs: Sequence[tuple[Tensor, ...]]) -> Workload:
    """One CUDA graph of ``function`` that takes ``inputs`` in rotation: each call copies them in and replays.

    The result lies where the next call writes. ``function`` was called :data:`CAPTURE_WARM_UP` times on the first
    inputs; the capture itself computes nothing.
    """
    places = tuple(tensor.clone() for tensor in inputs[0])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(CAPTURE_WARM_UP):
            function(*places)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*places)
    rotation = cycle(inputs)

    def replay() -> Tensor:
        for place, tensor in zip(places, next(rotation), strict=True):
            place.copy_(tensor)
        graph.replay()
        return result

    return replay


def tensorrt(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """The network compiled by torch-tensorrt. Raises :class:`MeasurementError` where that is not installed."""
    if reason := no_tensorrt():
        raise MeasurementError(f"mode trt: {reason}")
    import torch_tensorrt

    return torch_tensorrt.compile(model, ir="dynamo", inputs=list(inputs), enabled_precisions={inputs[0].dtype})


def no_tensorrt() -> str | None:
    """Why TensorRT cannot be used here, None where it can."""
    if not torch.cuda.is_available():
        return "TensorRT needs an NVIDIA GPU"
    if importlib.util.find_spec("torch_tensorrt") is None:
        return "torch-tensorrt is not installed; install it to time TensorRT"
    return None
