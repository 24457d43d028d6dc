"""The faster modes: a chosen attention kernel, a CUDA graph, TensorRT. ``training.blocks`` compiles networks."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dcae_bench.base.errors import MeasurementError
from dcae_bench.specs.denoisers import DenoiserSpec

CAPTURE_WARM_UP = 3
"""Calls on the first batch before a capture. They are real calls: a training step changes the weights each time."""
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


class Rotation:
    """A call of ``function`` on the next of several batches, in rotation. It keeps the function and the batches."""

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[tuple[Tensor, ...]]):
        """``function`` takes the tensors of one batch."""
        self.function, self._inputs = function, inputs
        self._next = cycle(inputs)

    def __call__(self) -> Tensor:
        """The output for the next batch."""
        return self.function(*next(self._next))

    def once_each(self) -> Iterator[Tensor]:
        """The output for each batch, from the first on. A graph overwrites an output when the next one is taken."""
        self._next = cycle(self._inputs)
        return (self() for _ in self._inputs)


class CapturedGraph:
    """A CUDA graph of ``function``, captured on one batch. A call copies its batch into the graph and replays it.

    The next call overwrites the returned tensor. Before the capture, ``function`` runs :data:`CAPTURE_WARM_UP` times on
    the batch; the capture itself computes nothing.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]):
        """Run ``function`` on a copy of ``inputs`` and capture it."""
        # A graph reads by address and owns nothing but what was allocated during its capture. The function owns the
        # rest: weights, and the optimiser with its state. Without it their memory would go to the next that asks.
        self._function = function
        self._places = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(CAPTURE_WARM_UP):
                function(*self._places)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = function(*self._places)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output for a batch of the captured shapes."""
        for place, tensor in zip(self._places, inputs, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        return self._result


def capture_graph(function: Callable[..., Tensor], inputs: Sequence[tuple[Tensor, ...]]) -> Rotation:
    """Capture one CUDA graph of ``function``, which each call replays on the next of ``inputs``."""
    return Rotation(CapturedGraph(function, inputs[0]), inputs)


def compile_with_tensorrt(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Compile a network by torch-tensorrt. Raises :class:`MeasurementError` if TensorRT cannot run here."""
    if reason := reason_without_tensorrt():
        raise MeasurementError(f"mode trt: {reason}")
    torch_tensorrt = importlib.import_module("torch_tensorrt")  # optional, so type checkers may not find it
    return torch_tensorrt.compile(model, ir="dynamo", inputs=list(inputs), enabled_precisions={inputs[0].dtype})


def reason_without_tensorrt() -> str | None:
    """Why TensorRT cannot run here; None if it can."""
    if not torch.cuda.is_available():
        return "TensorRT needs an NVIDIA GPU"
    if importlib.util.find_spec("torch_tensorrt") is None:
        return "torch-tensorrt is not installed; install it to time TensorRT"
    return None
