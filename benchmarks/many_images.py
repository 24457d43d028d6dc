"""Prepare 1.28 million images and draw the first batch of a training: ``python benchmarks/many_images.py DIR``.

It writes a synthetic tree of class folders, a zip archive of the same names, and Parquet shards into DIR, lists each as
``prepare`` does, prepares again (no image is read), and opens the manifest for a training's first batch. Each step is a
process of its own, so that its peak of memory is its own. The images are tiny: it measures entries, not pixels.
"""

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

IMAGENET = 1_281_167
CLASSES = 1000
SHARDS = 64
SIDE = 8
KINDS = ("tree", "zip", "parquet")


def entries(count: int) -> Iterator[tuple[str, int]]:
    """Names like those of ImageNet with their classes, class after class."""
    for number in range(count):
        label = number * CLASSES // count
        yield f"c{label:04d}/c{label:04d}_{number}.JPEG", label


def images() -> list[bytes]:
    """Tiny JPEGs that differ."""
    import numpy as np
    from PIL import Image

    drawn = []
    for number in range(251):
        file = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=50)
        drawn.append(file.getvalue())
    return drawn


def write(kind: str, root: Path, count: int) -> None:
    """Write the data set, unless it is there."""
    if root.exists():
        return
    drawn = images()
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was interrupted
    if kind == "tree":
        for label in range(CLASSES):
            (part / f"c{label:04d}").mkdir(parents=True, exist_ok=True)
        for number, (name, _label) in enumerate(entries(count)):
            (part / name).write_bytes(drawn[number % len(drawn)])
    elif kind == "zip":
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for number, (name, _label) in enumerate(entries(count)):
                archive.writestr(name, drawn[number % len(drawn)])
    else:
        write_parquet(part, count, drawn)
    part.rename(root)


def write_parquet(folder: Path, count: int, drawn: list[bytes]) -> None:
    """Shards with the columns that ``datasets`` writes: image (bytes, path) and label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    listed, each = list(entries(count)), -(-count // SHARDS)
    for shard in range(SHARDS):
        rows = range(shard * each, min((shard + 1) * each, count))
        values = [{"bytes": drawn[row % len(drawn)], "path": listed[row][0]} for row in rows]
        table = pa.table({"image": pa.array(values, kind), "label": pa.array([listed[row][1] for row in rows])})
        pq.write_table(table, folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet", row_group_size=1000)


def prepare(root: Path, output: Path) -> None:
    """List the data set into a manifest, as ``dcae-bench prepare`` does."""
    from dcae_bench.data.external import image_folder
    from dcae_bench.data.prepare import prepare_files

    prepare_files(image_folder(output.name), "train", root, output, workers=2)


def first_batch(output: Path) -> None:
    """Open the manifest and draw the first batch of 32 crops, as a training does."""
    from dcae_bench.data.batches import TrainBatches
    from dcae_bench.data.photo_sets import JoinedPhotos, open_training_set

    photos = JoinedPhotos([open_training_set(output.name, output.parent, SIDE)], None)
    batches = TrainBatches(photos, 0, share=32, stride=32, end=64, resolution=SIDE, crop="random", threads=2)
    batch = batches(0)
    batches.close()
    if tuple(batch.shape) != (32, 3, SIDE, SIDE):
        raise SystemExit(f"the first batch has shape {tuple(batch.shape)}")


def timed(step: str, *words: str) -> dict[str, object]:
    """Run a step in a process of its own. Returns seconds and its peak of memory in GiB."""
    done = subprocess.run(
        [sys.executable, __file__, *words, "--step", step], stdout=subprocess.PIPE, text=True, check=True
    )
    return {"step": step, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Write what is missing, run every step, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=IMAGENET)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--step", choices=("prepare", "first batch"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for kind in options.kind or KINDS:
        root = options.folder / {"tree": "tree", "zip": "many.zip", "parquet": "shards"}[kind]
        output = options.folder / f"manifest-{kind}"
        if options.step:
            begin = time.monotonic()
            prepare(root, output) if options.step == "prepare" else first_batch(output)
            usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            print(json.dumps({"seconds": time.monotonic() - begin, "peak_gib": max(usage) / 2**20}))
            return
        write(kind, root, options.count)
        words = (str(options.folder), "--kind", kind)
        for step, what in (("prepare", "prepare"), ("prepare", "prepare again"), ("first batch", "first batch")):
            found = timed(step, *words)
            print(f"| {kind} | {what} | {found['seconds']:.1f} s | {found['peak_gib']:.2f} GiB |", flush=True)


if __name__ == "__main__":
    main()
