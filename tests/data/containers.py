"""The same images as a folder, as tar and zip archives, and as Parquet files of the library ``datasets``."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dcae_bench.data.containers.kinds import place_of
from dcae_bench.data.decode import decode_rgb
from dcae_bench.data.external import image_folder
from dcae_bench.data.listing import find_images
from tests.data.image_files import encoded


class Opened:
    """Every image below a root, by index."""

    def __init__(self, root: Path):
        images = find_images(image_folder("own", ("eval",)), root, "eval")
        listed = list(images)
        self.places = [place_of(images.root, image.path, image.location, image.crc) for image in listed]
        self.labelled = [(image.path, image.label) for image in listed]
        self.names = [image.path for image in listed]

    def __len__(self):
        return len(self.names)

    def content(self, index: int) -> bytes:
        return self.places[index].read()

    def describe(self, index: int) -> str:
        return self.places[index].name

    def __getitem__(self, index: int):
        return decode_rgb(self.content(index), self.describe(index))


def contents(paths: list[str], **options) -> dict[str, bytes]:
    """A small image for each path, the same ones as :func:`tests.data.image_files.write_images` writes."""
    return {path: encoded(number, Path(path).suffix, **options) for number, path in enumerate(paths)}


def write_tar(path: Path, files: dict[str, bytes], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_parquet(
    path: Path,
    rows: list[tuple[str | None, bytes | None, int | None]],
    *,
    classes: list[str] | None = None,
    column: str = "image",
    group: int = 2,
) -> Path:
    """Rows of (name, content, label), with the notes that ``datasets`` leaves in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict = {column: {"_type": "Image"}}
    columns = {column: pa.array([{"bytes": content, "path": name} for name, content, _ in rows], kind)}
    if any(label is not None for *_, label in rows):
        features["label"] = {"names": classes or [], "_type": "ClassLabel"}
        columns["label"] = pa.array([label for *_, label in rows], pa.int64())
    table = pa.table(columns)
    notes = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(notes), path, row_group_size=group)
    return path
