"""Print how many operations a pass runs and how many bytes they move, plain and rewritten: ``count_passes.py``.

Everything is counted on tensors without values, at the real sizes, in a few seconds and without a GPU: each operation
that is no view reads its inputs once and writes its outputs once. This is what eager PyTorch moves. Compiled blocks
move less, because the compiler fuses elementwise operations; products, convolutions and attention stay what they are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.execution.fast import fast_inference, keep_stream_in, split_merges
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.specs.denoisers import LatentSpace
from dcae_bench.tables.markdown import grid

HEAVY = ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward", "linear", "linear_backward")
LATENTS = {"f8p2": LatentSpace(channels=4, side=64, patch=2), "f64p1": LatentSpace(channels=128, side=8, patch=1)}


class Passes(TorchDispatchMode):
    """Counts operations and the bytes that they read and write, heavy operations apart from all others."""

    def __init__(self) -> None:
        super().__init__()
        self.count = {"heavy": 0, "other": 0}
        self.bytes = {"heavy": 0, "other": 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in ("detach", "empty", "empty_strided", "new_empty"):
            return out
        kind = "heavy" if name in HEAVY or "scaled_dot_product" in name else "other"
        tensors = {id(x): x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}.values()
        self.count[kind] += 1
        self.bytes[kind] += sum(_bytes(x) for x in tensors)
        return out


def _bytes(x: Tensor) -> int:
    """Bytes of the numbers that a tensor addresses; a stride of zero reads the same number again."""
    numbers = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        numbers *= size if stride else 1
    return numbers * x.element_size()


def count(run: Callable[[], object]) -> Passes:
    """The passes of a call."""
    with Passes() as passes:
        run()
    return passes


def denoiser(name: str, latent: str, way: Callable[[nn.Module], object], images: int, *, train: bool) -> Passes:
    """A step without optimiser, or a forward pass, of a denoiser: bf16 autocast to train, else bf16 weights."""
    space = LATENTS[latent]
    with torch.device("meta"):  # an initialisation looks at numbers
        model = build_denoiser(denoiser_catalogue().architecture(name).on(space, 1000))
    with without_values(model, torch.float32 if train else torch.bfloat16):
        model = way(model) or model
        x = torch.empty(images, space.channels, space.side, space.side)
        t, y = torch.empty(images), torch.zeros(images, dtype=torch.int64)
        if train:
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                return count(lambda: model(x, t, y).float().square().mean().backward())
        with torch.no_grad():
            return count(lambda: model(x.bfloat16(), t, y))


def autoencoder(name: str, what: str, way: Callable[[nn.Module], object], images: int, side: int) -> Passes:
    """A pass of an autoencoder with bf16 weights, without gradients."""
    with torch.device("meta"):
        model = build(catalogue().spec(name)).eval()
    with without_values(model, torch.bfloat16), torch.no_grad():
        model = way(model) or model
        x = torch.empty(images, 3, side, side, dtype=torch.bfloat16)
        z = torch.empty(images, model.latent_channels, side // 32, side // 32, dtype=torch.bfloat16)
        return count(lambda: model.encode(x) if what == "encode" else model.decode(z))


@contextmanager
def without_values(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Give a model of the meta device tensors of the CPU without values: autocast knows only real devices."""
    shapes = {key: (value.shape, value.stride()) for key, value in model.state_dict().items()}
    with FakeTensorMode():
        state = {key: torch.empty_strided(*shape, dtype=dtype) for key, shape in shapes.items()}
        model.load_state_dict(state, assign=True)
        yield


def main() -> None:
    """Print the table."""
    plain: Callable[[nn.Module], object] = lambda model: None  # noqa: E731
    half = lambda model: keep_stream_in(model, torch.bfloat16)  # noqa: E731
    both = lambda model: (half(model), split_merges(model), None)[-1]  # noqa: E731
    rows = []
    for name in ("uvit-h", "dit-xl"):
        for latent in LATENTS:
            images = 4 if latent == "f8p2" else 64
            for label, way in {"plain": plain, "bf16 stream": half, "bf16 stream, split merges": both}.items():
                found = denoiser(name, latent, way, images, train=True)
                rows.append(_row(f"{name} {latent}, forward and backward", label, found, images))
            for label, way in {"plain": plain, "fast_inference": fast_inference}.items():
                found = denoiser(name, latent, way, images, train=False)
                rows.append(_row(f"{name} {latent}, forward", label, found, images))
    for what in ("encode", "decode"):
        for label, way in {"plain": plain, "fast_inference": fast_inference}.items():
            rows.append(_row(f"dc-ae-f32c32 512 px, {what}", label, autoencoder("dc-ae-f32c32", what, way, 8, 512), 8))
    headers = ["work", "way", "products, convolutions, attention", "MB an image", "other operations", "MB an image"]
    print(grid(headers, rows, "llrrrr"))


def _row(work: str, label: str, found: Passes, images: int) -> list[str]:
    cells = [[str(found.count[kind]), f"{found.bytes[kind] / images / 1e6:.0f}"] for kind in ("heavy", "other")]
    return [work, label, *cells[0], *cells[1]]


if __name__ == "__main__":
    main()
