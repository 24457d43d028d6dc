"""The calls that are timed: in rotation over several batches, replayed from a CUDA graph, or by TensorRT."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import MeasurementError
from dcae_bench.execution.graphs import CapturedGraph


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
