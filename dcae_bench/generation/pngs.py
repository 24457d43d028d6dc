"""PNG files of generated images, for tools that read only such files."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

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
    names = [f"{index:06}.png" for index in range(len(samples))]
    others = sorted({path.name for path in Path(folder).glob("*.png")} - set(names))
    if others:
        raise ResultsError(f"{folder}: holds {len(others)} other images ({others[0]}); take a folder of its own")

    def write(index: int) -> None:
        buffer = io.BytesIO()
        Image.fromarray(samples[index].permute(1, 2, 0).numpy()).save(buffer, "PNG")
        write_bytes(Path(folder) / names[index], buffer.getvalue())

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for batch in process.share(batches_of(len(samples), AT_ONCE)):
            list(pool.map(write, batch))
    process.wait()
