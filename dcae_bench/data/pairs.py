"""Pairs: which image of one set belongs to which image of another, by their names."""

import os
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dcae_bench.base.errors import DataError
from dcae_bench.data.image_sets import ImageSet, size_text

PairBy = Literal["path", "name", "order"]
"""What two paired images have in common: the path without its suffix, the file's name without folders and suffix, or
the place in the order of the names."""


@dataclass(frozen=True)
class Pairs:
    """Indices of paired images in both sets, in the order of the originals' names."""

    images: tuple[int, ...]
    originals: tuple[int, ...]
    left_out: tuple[int, int] = (0, 0)
    """How many images and originals have no partner."""


def pair(images: ImageSet, originals: ImageSet, by: PairBy = "path", *, common: bool = False) -> Pairs:
    """Pair the images of two sets; ``common`` leaves out those without a partner.

    Raises :class:`DataError` for two images of one set with one name, and for an image without a partner, unless
    ``common`` is true and at least one pair is found. The message names the first.
    """
    if by == "order":
        return _pair_in_order(images, originals)
    numbered = images.named != originals.named
    found, wanted = _by_key(images, by, numbered), _by_key(originals, by, numbered)
    alone = [key for key in found if key not in wanted], [key for key in wanted if key not in found]
    if len(alone[0]) == len(found):
        remedy = "take --pair-by name, which leaves folders out, or --pair-by order, where both have one order"
        raise DataError(
            f"{images.source}: no image has the name of one in {originals.source} ({images.describe(0)}, "
            f"{originals.describe(0)}); name the files alike, or {remedy}"
        )
    for keys, at, its, other in ((alone[0], images, found, originals), (alone[1], originals, wanted, images)):
        if keys and not common:
            raise DataError(
                f"{at.describe(its[keys[0]])}: has no partner in {other.source}, as {len(keys):,} of {len(at):,} "
                "images; complete the folder, or score the images that both have (--common)"
            )
    pairs = [(found[key], index) for key, index in wanted.items() if key in found]
    first, second = zip(*pairs, strict=True)
    return Pairs(first, second, (len(alone[0]), len(alone[1])))


def _pair_in_order(images: ImageSet, originals: ImageSet) -> Pairs:
    if len(images) != len(originals):
        raise DataError(
            f"{images.source}: holds {len(images):,} images, {originals.source} {len(originals):,}; images that are "
            "paired in order (--pair-by order) must be as many"
        )
    return Pairs(tuple(range(len(images))), tuple(range(len(images))))


def _by_key(images: ImageSet, by: PairBy, numbered: bool) -> dict[str, int]:
    """Index of each image by what it is paired by, in the order of the set. Raises :class:`DataError`.

    ``numbered``: the partners are those of an array, so a file's name may be any writing of its number.
    """
    found: dict[str, int] = {}
    for index, name in enumerate(images.names):
        stem = os.path.splitext(name)[0]
        key = stem.rpartition("/")[2] if by == "name" else stem
        if numbered and key.isdecimal():
            key = f"{int(key):06}"
        if key in found:
            what = "file name without folders" if by == "name" else "name without its suffix"
            raise DataError(
                f"{images.describe(index)}: has the {what} of {images.names[found[key]]}, so its partner is not known; "
                "rename or remove one"
            )
        found[key] = index
    return found


def by_size(pairs: Pairs, originals: ImageSet) -> Pairs:
    """The pairs sorted by height, then width, then their order, so that images of one size follow each other."""
    sizes = originals.sizes[list(pairs.originals)]
    order = np.lexsort((sizes[:, 1], sizes[:, 0]))
    return replace(
        pairs,
        images=tuple(pairs.images[place] for place in order),
        originals=tuple(pairs.originals[place] for place in order),
    )


def require_equal_sizes(images: ImageSet, originals: ImageSet, pairs: Pairs, resolution: int | None) -> None:
    """Check that both images of each pair have one size.

    With a ``resolution``, an image of this side may also stand for the crop of a larger original. Raises
    :class:`DataError`, which names the first pair.
    """
    ours, theirs = images.sizes[list(pairs.images)], originals.sizes[list(pairs.originals)]
    unequal = (ours != theirs).any(axis=1)
    if resolution is not None:
        unequal &= (ours != resolution).any(axis=1)
    bad = np.flatnonzero(unequal)
    if not len(bad):
        return
    first = int(bad[0])
    width = int(ours[first].min())
    square = (ours == width).all()
    remedy = (
        f"if these are the originals' centre crops, take --resolution {width}"
        if resolution is None and square
        else "save images of the originals' size"
    )
    raise DataError(
        f"{images.describe(pairs.images[first])}: is {size_text(ours[first])}, its original "
        f"{originals.describe(pairs.originals[first])} {size_text(theirs[first])}, as {len(bad):,} of {len(ours):,} "
        f"pairs; {remedy}"
    )
