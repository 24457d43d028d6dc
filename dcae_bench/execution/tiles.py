"""Tiled autoencoders: images and latents in overlapping tiles whose results are blended, to save memory."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.wrapped import Wrapped
from dcae_bench.models.autoencoder import Autoencoder


class Tiled(Wrapped):
    """An autoencoder that decodes, and by default also encodes, tile by tile.

    Tiles have ``size`` px a side and lie ``size - overlap`` px apart; the last one of an axis ends at the border, so it
    may overlap more. Where tiles overlap, their results are averaged with weights that fall linearly towards the
    neighbour. An image that fits into one tile is computed as without tiles, to the last bit. Layers that look at the
    whole image, such as attention and group norms, see a tile alone: the result is another than the whole image's.
    """

    def __init__(self, inner: Autoencoder, size: int, overlap: int, *, encodes: bool = True):
        """``size`` and ``overlap`` in px.

        Raises :class:`ConfigError` if they are no multiples of f, and for an autoencoder whose latent has no grid.
        """
        super().__init__(inner)
        if not self.has_grid:
            raise ConfigError("tiles: the latent is a sequence of tokens without a grid; measure it without tiles")
        for name, side in (("size", size), ("overlap", overlap)):
            if side % self.compression:
                raise ConfigError(
                    f"tiles: {name} {side} is not a multiple of {self.compression}, the f of this autoencoder of "
                    f"family {self.family}; round it"
                )
        self.size, self.overlap, self.encodes = size, overlap, encodes

    def _encode(self, x: Tensor) -> Tensor:
        if not self.encodes:
            return self.inner.encode(x)
        f = self.compression
        return self._blend(x, 1, lambda tile, _: self.inner.encode(tile), (x.shape[2] // f, x.shape[3] // f))

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        if not self.encodes:
            return self.inner.draw(x, noise)
        f, (height, width) = self.compression, x.shape[2:]
        whole: dict[torch.Size, Tensor] = {}

        def draw(tile: Tensor, place: tuple[slice, slice]) -> Tensor:
            def part_of_noise(shape: torch.Size) -> Tensor:
                """The tile's part of the noise of the whole latent, so that overlapping tiles draw alike."""
                c, h, w = shape
                rows, columns = (
                    slice(at.start * n // side, at.stop * n // side)
                    for at, n, side in zip(place, (h, w), tile.shape[2:], strict=True)
                )
                full = torch.Size((c, height * h // tile.shape[2], width * w // tile.shape[3]))
                if full not in whole:
                    whole[full] = noise(full)
                return whole[full][:, :, rows, columns]

            return self.inner.draw(tile, part_of_noise)

        return self._blend(x, 1, draw, (height // f, width // f))

    def _decode(self, z: Tensor) -> Tensor:
        f = self.compression
        return self._blend(z, f, lambda tile, _: self.inner.decode(tile), (z.shape[2] * f, z.shape[3] * f))

    def _blend(
        self,
        whole: Tensor,
        cell: int,
        compute: Callable[[Tensor, tuple[slice, slice]], Tensor],
        result: tuple[int, int],
    ) -> Tensor:
        """Compute ``whole`` (n, c, h, w), whose cells are ``cell`` px, by tiles, into (n, c', *``result``)."""
        size, overlap = self.size // cell, self.overlap // cell
        rows, columns = (spans(side, size, overlap) for side in whole.shape[2:])
        places = list(product(rows, columns))
        if len(places) == 1:
            return compute(whole, places[0])
        blended: Tensor | None = None
        weights = whole.new_zeros((1, 1, *result), dtype=torch.float32)
        for place in places:
            part = compute(whole[:, :, place[0], place[1]], place).float()
            ramps = []
            inside = []
            for at, side, target in zip(place, whole.shape[2:], result, strict=True):
                start, stop = (end * target // side for end in (at.start, at.stop))
                inside.append(slice(start, stop))
                ramps.append(ramp(start, stop, target, overlap * target // side, part.device))
            weight = ramps[0][:, None] * ramps[1][None, :]
            if blended is None:
                blended = part.new_zeros((*part.shape[:2], *result))
            blended[:, :, inside[0], inside[1]] += part * weight
            weights[:, :, inside[0], inside[1]] += weight
        assert blended is not None
        return blended / weights


def spans(side: int, size: int, overlap: int) -> list[slice]:
    """Tiles of one axis of ``side``: ``size`` long, ``size - overlap`` apart, the last one at the end."""
    if side <= size:
        return [slice(0, side)]
    starts = [*range(0, side - size, size - overlap), side - size]
    return [slice(start, start + size) for start in starts]


def ramp(start: int, stop: int, end: int, overlap: int, device: torch.device) -> Tensor:
    """Weights of a tile along an axis of length ``end``: 1 inside, falling linearly over ``overlap`` to its neighbours.

    Two neighbours that overlap by ``overlap`` have the sum 1 everywhere.
    """
    weights = torch.ones(stop - start, device=device)
    if overlap:
        rising = (torch.arange(overlap, device=device) + 0.5) / overlap
        if start > 0:
            weights[:overlap] *= rising
        if stop < end:
            weights[-overlap:] *= rising.flip(0)
    return weights
