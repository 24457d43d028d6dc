"""A class of the user's own, tried before it is measured: its hash, and whether chance or the batch count."""

import hashlib
import io
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from dcae_bench.data.native import batches_by_size
from dcae_bench.data.pixels import normalise
from dcae_bench.models.autoencoder import Autoencoder, same_size
from dcae_bench.models.external import CustomAutoencoder

NOT_IDENTIFIED = "weights not identified"
TRIED_SIDE = 256
"""Side in pixels of the grey image on which a class is first used."""
TRIED_IMAGES = 4
"""Images of the batch on which it is tried."""
SAME = 1e-5
"""Largest relative difference of two passes over the same batch; a GPU may sum in another order."""
SAME_IN_BATCHES = {torch.float32: 1e-3, torch.float64: 1e-6}
SAME_IN_HALF_BATCHES = 3e-2
"""Largest relative differences between batch sizes, by the type of the result: kernels differ with the size."""
WHITES = (1, 255)
"""Values of white in other ranges than [-1, 1], with 0 for black."""


class Images(Protocol):
    """8-bit images (3, H, W) by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


def first_images(images: Images, device: torch.device) -> Tensor:
    """The first images of one size of a set on a device, as a small batch in [-1, 1] to try a class on."""
    first = batches_by_size(images, len(images), TRIED_IMAGES)[0]
    return normalise(torch.stack([images[index] for index in first]).to(device))


def tokens_of(model: Autoencoder, images: Images, device: torch.device) -> int | None:
    """Tokens of the latents of a set's images, where the latent has no grid; else None."""
    if model.has_grid:
        return None
    with torch.no_grad():
        return model.encode(first_images(images, device)[:1]).shape[1]


def use_once(custom: CustomAutoencoder) -> list[tuple[str, object]]:
    """Use a class on a grey image and search it again; returns what it has made meanwhile, by name.

    Where something was there before, only new networks count: other new tensors may be results that it keeps. A class
    that does not take the image is left as it is; its errors belong to the later use. The state of torch's generators
    stays as it was.
    """
    before = custom.found
    try:
        with torch.random.fork_rng(), torch.no_grad(), _evaluating():
            custom.decode(custom.encode(torch.zeros(1, 3, TRIED_SIDE, TRIED_SIDE)))
    except Exception:  # code of the user may raise any error, and may not take this size
        return []
    custom.search()
    made = set(custom.found.modules) - set(before.modules)
    if before.numeric and not made and not before.lazy:
        return []
    prefixes = tuple(f"{path}." for path in made) if before.numeric and not before.lazy else ("",)
    return [(name, value) for name, value in custom.weights() if name.startswith(prefixes)]


def count_made(made: Iterable[tuple[str, object]]) -> int:
    """Count the parameters among what a class has made; without any, the numbers of its tensors and arrays."""
    tensors = [value for _, value in made if isinstance(value, Tensor)]
    parameters = [value for value in tensors if isinstance(value, nn.Parameter)]
    arrays = [value for _, value in made if isinstance(value, np.ndarray)]
    return sum(value.numel() for value in parameters or tensors) + sum(value.size for value in arrays)


def try_class(model: Autoencoder, custom: CustomAutoencoder, images: Tensor) -> tuple[str, ...]:
    """Compute a batch twice and in another batch size; returns a note for each dependence that is found.

    A note also tells of reconstructions that look as if they were in another range than [-1, 1].

    ``images`` (n, 3, H, W) in [-1, 1] are on the device of the measurement, to which the model is moved. A network
    that the class makes only now is told, too. Raises :class:`ConfigError` for results of another shape.
    """
    known = set(custom.found.modules)
    with torch.random.fork_rng(), torch.no_grad():
        model.to(images.device)
        with _evaluating():
            model.decode(model.encode(images))
        custom.search()
        model.to(images.device).eval()
        z = model.encode(images)
        decoded = same_size(model.decode(z), images)
        notes = [*_steadiness("encode", model.encode, images), *_steadiness("decode", model.decode, z)]
    notes += _range(decoded, images)
    if late := sorted(set(custom.found.modules) - known):
        notes.insert(0, f"{NOT_IDENTIFIED}: {late[0]} was made only while images were measured")
    return tuple(notes)


def unidentified_sha256() -> str:
    """A text in the place of a hash that differs from opening to opening, and is one for the processes of a command."""
    token = [f"not-identified-{secrets.token_hex(16)}"]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(token)
    return token[0]


def digest_of_values(values: Iterable[tuple[str, object]], start: bytes) -> str:
    """Hash of tensors, arrays and numbers with their names, in the order of the names, after the bytes ``start``."""
    digest = hashlib.sha256(start)
    for name, value in sorted(values, key=itemgetter(0)):
        digest.update(_bytes_of(name, value))
    return digest.hexdigest()


def _bytes_of(name: str, value: object) -> bytes:
    if isinstance(value, np.ndarray):
        return f"{name} {value.dtype.str} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    if not isinstance(value, Tensor):
        return f"{name} {value!r}".encode()
    value = value.detach().cpu()
    if value.layout == torch.strided and not value.is_quantized:
        return to_safetensors({name: value.contiguous()})
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return name.encode() + buffer.getvalue()


def _steadiness(verb: str, compute: Callable[[Tensor], Tensor], given: Tensor) -> list[str]:
    first, again = compute(given), compute(given)
    if (difference := _relative(first, again)) > SAME:
        return [f"{verb} draws noise: two passes over one batch differ by {difference:.2g} of the result"]
    parts = given.split(1) if len(given) > 1 else [torch.cat([given, given])]
    other = torch.cat([compute(part) for part in parts])[: len(first)]
    if (difference := _relative(first, other)) > SAME_IN_BATCHES.get(first.dtype, SAME_IN_HALF_BATCHES):
        return [f"{verb} depends on its batch: another batch size differs by {difference:.2g} of the result"]
    return []


def _range(decoded: Tensor, images: Tensor) -> list[str]:
    """A note where reconstructions fit their images only after they are moved from another range to [-1, 1]."""
    limit = min(_error(decoded.float().clamp(-1, 1), images), float(images.var())) / 2
    return [
        f"decode returned images from 0 to {white}: black must be -1, and white 1"
        for white in WHITES
        if _error(decoded * (2 / white) - 1, images) < limit
    ]


def _error(decoded: Tensor, images: Tensor) -> float:
    return float((decoded.float() - images).square().mean())


@contextmanager
def _evaluating() -> Iterator[None]:
    """Put each network into evaluation mode as it is called: one that is made now would begin in training mode."""

    def evaluate(module: nn.Module, _: object) -> None:
        module.training = False

    hook = register_module_forward_pre_hook(evaluate)
    try:
        yield
    finally:
        hook.remove()


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float((a - b).norm() / a.norm().clamp(min=1e-12))
