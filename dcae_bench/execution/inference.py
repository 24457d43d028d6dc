"""Networks for the fast path: copies of an autoencoder or a denoiser, rewritten, compiled, in batches of one size."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dcae_bench.execution.agreement import relative_rms
from dcae_bench.execution.attention import attention_kernel, fastest_attention, use_attention
from dcae_bench.execution.blocks import compile_blocks
from dcae_bench.execution.fast import fast_inference
from dcae_bench.execution.graphs import CapturedGraph
from dcae_bench.execution.path import Fast
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.specs.denoisers import DenoiserSpec

Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class FixedBatch:
    """A function of batches of any size, computed in parts of one size, for which alone code is compiled.

    The last part is filled up by repetitions of its last image, whose outputs are dropped. With ``graph`` the function
    is captured as a CUDA graph, anew for inputs of other shapes.
    """

    def __init__(self, function: Callable[..., Tensor], size: int, *, graph: bool = False):
        """``function`` takes tensors (``size``, ...) or None and computes each image by itself."""
        self._function, self._size, self._graph = function, size, graph
        self._captured: tuple[object, CapturedGraph] | None = None

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Output for inputs (n, ...) of any n above 0."""
        count = next(len(tensor) for tensor in inputs if tensor is not None)
        parts = []
        for start in range(0, count, self._size):
            some = [None if one is None else filled_up(one[start : start + self._size], self._size) for one in inputs]
            parts.append(self._whole(some)[: min(self._size, count - start)])
            if self._graph:  # whose next replay overwrites the output
                parts[-1] = parts[-1].clone()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _whole(self, inputs: list[Tensor | None]) -> Tensor:
        if not self._graph:
            return self._function(*inputs)
        given = [tensor for tensor in inputs if tensor is not None]
        kind = [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs]
        if self._captured is None or self._captured[0] != kind:
            self._captured = None  # frees the memory of the last graph before the next one takes its own

            def run(*tensors: Tensor) -> Tensor:
                left = iter(tensors)
                return self._function(*(None if one is None else next(left) for one in kind))

            self._captured = kind, CapturedGraph(run, tuple(given))
        return self._captured[1](*given)


def filled_up(tensor: Tensor, size: int) -> Tensor:
    """``tensor`` (n, ...) with its last row repeated until there are ``size`` rows."""
    missing = size - len(tensor)
    return tensor if missing <= 0 else torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


def fast_autoencoder(model: Autoencoder, size: int) -> Fast[Autoencoder]:
    """A copy of ``model``, rewritten for speed, with compiled blocks and channels-last weights, in batches of ``size``.

    It is no CUDA graph: its large maps hide the time of launches, and a graph would keep their memory from the networks
    of the metrics. Raises :class:`ConfigError` for a model without blocks.
    """
    fast = fast_inference(model).to(memory_format=torch.channels_last)
    compile_blocks(fast)
    plain_draw = fast._draw

    def draw(x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        return plain_draw(filled_up(x, size), lambda shape: filled_up(noise(shape), max(size, len(x))))[: len(x)]

    for name, call in (
        ("_encode", FixedBatch(fast._encode, size)),
        ("_decode", FixedBatch(fast._decode, size)),
        ("_draw", draw),
    ):
        setattr(fast, name, call)
    return Fast(fast, "rewritten and compiled blocks, channels last")


class FastDenoiser(Denoiser):
    """A denoiser for samplers (float32 latents in, predictions out) whose prediction is any function."""

    def __init__(self, spec: DenoiserSpec, predict: Predict):
        """``predict`` takes latents (n, c, h, w), times (n,) and labels (n,)."""
        super().__init__(spec)
        self._predict = predict

    def _forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self._predict(x, t, y)

    def transformer_blocks(self) -> list[nn.Module]:
        """None: whatever ``predict`` runs is compiled already."""
        return []


def fast_denoiser(model: Denoiser, size: int, device: torch.device) -> Fast[Denoiser]:
    """A copy of ``model``, rewritten for speed, with compiled blocks, for batches of ``size`` latents in fp32.

    On a GPU it is replayed from a CUDA graph, with the attention kernel that is fastest on its shapes.
    """
    fast, on_gpu = fast_inference(model), device.type == "cuda"
    kernel = None
    if on_gpu:
        kernel = fastest_attention(model.spec, size, torch.float32, device, train=False, compiled=True)
    use_attention(fast, kernel)
    compile_blocks(fast)

    def predict(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with attention_kernel(kernel):
            return fast(x, t, y)

    how = [
        "rewritten and compiled blocks",
        *(["CUDA graph"] if on_gpu else []),
        *([f"attention {kernel}"] if kernel else []),
    ]
    return Fast(FastDenoiser(model.spec, FixedBatch(predict, size, graph=on_gpu)), ", ".join(how))


class Compared(FastDenoiser):
    """A denoiser that predicts plainly, and meanwhile compares the predictions of a fast one on the same inputs."""

    def __init__(self, plain: Denoiser, fast: Denoiser):
        """``plain`` predicts, ``fast`` is compared."""
        super().__init__(plain.spec, self._both)
        self._plain, self._fast = [plain], [fast]  # in lists, so that they are no parts of this module
        self.error = 0.0
        """Largest relative error of a prediction so far; NaN once one is not finite."""

    def _both(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        wanted = self._plain[0](x, t, y)
        self.error = largest(self.error, error_of(self._fast[0](x, t, y), wanted))
        return wanted


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Relative error of outputs; 0 for equal ones, NaN where ``found`` is not finite."""
    if not found.isfinite().all():
        return math.nan
    return 0.0 if found.equal(wanted) else relative_rms(found, wanted)


def largest(*errors: float) -> float:
    """The largest error; NaN if one is NaN, which Python's max would lose."""
    return math.nan if any(map(math.isnan, errors)) else max(errors)
