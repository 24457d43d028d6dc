"""CUDA graphs: the kernels of a function, recorded once and launched together by a call that owns what they read."""

from collections.abc import Callable

import torch
from torch import Tensor

CAPTURE_WARM_UP = 3
"""Calls on the first batch before a capture. They are real calls: a training step changes the weights each time."""


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
