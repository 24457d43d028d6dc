"""PNG files of an evaluation: every original with its reconstruction, the very pixels that are measured."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from dcae_bench.evaluation.reconstruction import Reconstruct
from dcae_bench.generation.pngs import png_name, require_no_others, write_png

ORIGINALS, RECONSTRUCTIONS = "originals", "reconstructions"
"""Folders of the two sides; a pair has one name."""


def writing_pngs(reconstruct: Reconstruct, folder: Path, *, threads: int = 1) -> Reconstruct:
    """Write both sides of each batch to ``folder`` when it is reconstructed."""

    def write(images: Tensor, indices: range) -> Tensor:
        fakes = reconstruct(images, indices)
        files: Iterable[tuple[str, int, Tensor]] = [
            (side, index, image)
            for side, batch in ((ORIGINALS, images.cpu()), (RECONSTRUCTIONS, fakes.cpu()))
            for index, image in zip(indices, batch, strict=True)
        ]
        with ThreadPoolExecutor(max(1, threads)) as pool:
            list(pool.map(lambda file: write_png(folder / file[0], *file[1:]), files))
        return fakes

    return write


def require_pngs_fit(folder: Path, count: int) -> None:
    """Check that the folders hold no PNG files of other images. Raises :class:`ResultsError`."""
    for side in (ORIGINALS, RECONSTRUCTIONS):
        require_no_others(folder / side, count)


def missing_png(folder: Path, count: int) -> Path | None:
    """A PNG file that is not there after a pass: someone removed it while the pass was interrupted."""
    wanted = (folder / side / png_name(index) for side in (ORIGINALS, RECONSTRUCTIONS) for index in range(count))
    return next((path for path in wanted if not path.is_file()), None)
