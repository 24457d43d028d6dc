"""PNG files of images by index, for tools that read only such files."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torch import Tensor

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import write_bytes
from dcae_bench.data.samples import Samples
from dcae_bench.running.processes import Worker, batches_of

AT_ONCE = 64
"""Images of a batch; the processes share the images batch by batch."""


def write_pngs(samples: Samples, folder: Path, process: Worker, *, threads: int = 1) -> None:
    """Write each sample as ``<index>.png`` with six digits (``000000.png``); each process writes its share.

    Raises :class:`ResultsError` where ``folder`` cannot be written, or holds other images, which a tool would take for
    samples.
    """
    require_no_others(folder, len(samples))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for batch in process.share(batches_of(len(samples), AT_ONCE)):
            list(pool.map(lambda index: write_png(folder, index, samples[index]), batch))
    process.wait()


def write_png(folder: Path, index: int, image: Tensor) -> None:
    """Write an image, uint8 (3, h, w), as ``<index>.png`` with six digits. Raises :class:`ResultsError`."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(buffer, "PNG")
    write_bytes(Path(folder) / png_name(index), buffer.getvalue())


def require_no_others(folder: Path, count: int) -> None:
    """Check that a folder holds no PNG files but those of ``count`` images. Raises :class:`ResultsError`."""
    names = {png_name(index) for index in range(count)}
    others = sorted({path.name for path in Path(folder).glob("*.png")} - names)
    if others:
        raise ResultsError(f"{folder}: holds {len(others)} other images ({others[0]}); take a folder of its own")


def png_name(index: int) -> str:
    """Name of the file of an image, so that the order of names is that of the images."""
    return f"{index:06}.png"
