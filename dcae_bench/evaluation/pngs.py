"""Generated images as PNG files, for tools that read nothing else."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from dcae_bench.data.samples import Samples
from dcae_bench.errors import ResultsError
from dcae_bench.evaluation.workers import Process, batches_of
from dcae_bench.files import write_bytes

AT_ONCE = 64


def write_pngs(samples: Samples, folder: Path, process: Process, *, threads: int = 1) -> None:
    """Write ``000000.png`` and so on, by sample index; each process writes its share.

    Raises :class:`ResultsError` where ``folder`` has further images, with which a tool would count these together, and
    where it cannot be written.
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
