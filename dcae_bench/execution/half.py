"""Autoencoders in half precision: weights and activations in bf16 or fp16, with fp32 images and latents outside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.wrapped import Wrapped
from dcae_bench.models.autoencoder import Autoencoder, ran_out_of_memory
from dcae_bench.running.precision import DTYPES
from dcae_bench.specs.protocols import Precision


class HalfPrecision(Wrapped):
    """An autoencoder whose weights were cast and whose inputs are, as people run it with ``torch_dtype``.

    Casting is not autocast: norms and sums are in half precision too, unless the autoencoder itself says otherwise.
    """

    def __init__(self, inner: Autoencoder, precision: Precision):
        """Cast ``inner`` in place."""
        super().__init__(inner.to(DTYPES[precision]))
        self.precision, self._dtype = precision, DTYPES[precision]
        self.returned: dict[str, torch.dtype] = {}
        """Type of what each direction returned last, by ``encode`` and ``decode``."""

    def _encode(self, x: Tensor) -> Tensor:
        with self._told("encode"):
            return self._widened("encode", self.inner.encode(x.to(self._dtype)))

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        with self._told("encode"):
            z = self.inner.draw(x.to(self._dtype), lambda shape: noise(shape).to(self._dtype))
            return self._widened("encode", z)

    def _decode(self, z: Tensor) -> Tensor:
        with self._told("decode"):
            return self._widened("decode", self.inner.decode(z.to(self._dtype)))

    def _widened(self, verb: str, result: Tensor) -> Tensor:
        self.returned[verb] = result.dtype
        return result.float()

    @contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        """Raise :class:`ConfigError` where the autoencoder cannot compute in this precision."""
        try:
            yield
        except (RuntimeError, TypeError) as error:
            if ran_out_of_memory(error):
                raise
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError(
                f"precision {self.precision}: {verb} of this autoencoder of family {self.family} cannot be computed in "
                f"it ({reason}); let its code follow the type of its input, or measure it in fp32"
            ) from error

    @property
    def note(self) -> str | None:
        """What a reader must know of an autoencoder that did not return this precision; None if it did."""
        wide = [
            f"{verb} returned {str(dtype).removeprefix('torch.')}"
            for verb, dtype in sorted(self.returned.items())
            if dtype != self._dtype
        ]
        return f"in {self.precision} {' and '.join(wide)}: parts of it compute in another precision" if wide else None


def in_precision(model: Autoencoder, precision: Precision) -> Autoencoder:
    """The autoencoder itself in fp32; cast in place and wrapped for half precision."""
    return model if precision == "fp32" else HalfPrecision(model, precision)
