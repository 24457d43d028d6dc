"""Small image files in the layouts of real data sets, cut out of embedded photographs."""

import io
from functools import cache
from pathlib import Path

from PIL import Image

from dcae_bench.data.photos import load_manifest, read_photo

NAMES = ("chelsea.png", "coffee.png")


@cache
def photograph(number: int) -> Image.Image:
    photos = {photo.name.split("/")[1]: photo for photo in load_manifest("photos-mixed").photos}
    return Image.fromarray(read_photo(photos[NAMES[number % len(NAMES)]]))


@cache
def encoded(number: int, suffix: str, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> bytes:
    """A part of a photograph as a file; another one for each number."""
    left, top = 7 * number % 200, 3 * number % 100
    part = photograph(number).crop((left, top, left + size[0], top + size[1])).convert(mode)
    buffer = io.BytesIO()
    part.save(buffer, format={".png": "PNG", ".webp": "WEBP"}.get(suffix.lower(), "JPEG"))
    return buffer.getvalue()


def write_images(root: Path, paths: list[str], **options) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(number, Path(path).suffix, **options))


LAYOUTS = {
    ("imagenet", "train"): {
        "publisher": [
            "train/n01440764/n01440764_10.JPEG",
            "train/n01440764/n01440764_9.JPEG",
            "train/n01443537/n01443537_2.JPEG",
        ],
        "kaggle": ["ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10.JPEG"],
        "hugging face": ["train/n01440764/n01440764_101_n01440764.JPEG"],
        "hugging face, flat": ["n01440764_101_n01440764.JPEG", "n01443537_2_n01443537.JPEG"],
        "hugging face, data": ["data/n01440764_101_n01440764.JPEG"],
        "alone": ["n01440764/n01440764_10.JPEG"],
    },
    ("imagenet", "eval"): {
        "classes": ["val/n01440764/ILSVRC2012_val_00000293.JPEG", "val/n01443537/ILSVRC2012_val_00000001.JPEG"],
        "flat": ["val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG"],
        "kaggle": ["ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG"],
        "alone": ["ILSVRC2012_val_00000001.JPEG"],
        "hugging face": ["val/n01440764/ILSVRC2012_val_00000293_n01440764.JPEG"],
        "hugging face, flat": ["ILSVRC2012_val_00000001_n01443537.JPEG", "ILSVRC2012_val_00000293_n01440764.JPEG"],
        "hugging face, val": ["val/ILSVRC2012_val_00000293_n01440764.JPEG"],
        "hugging face, data": ["data/ILSVRC2012_val_00000293_n01440764.JPEG"],
    },
    ("ffhq", "train"): {
        "publisher": ["images1024x1024/00000/00000.png", "images1024x1024/59000/59999.png"],
        "flat": ["images1024x1024/00000.png", "images1024x1024/59999.png"],
        "alone": ["00000/00000.png"],
    },
    ("ffhq", "eval"): {
        "publisher": ["images1024x1024/60000/60000.png", "images1024x1024/69000/69999.png"],
        "flat": ["60000.png", "69999.png"],
    },
    ("mjhq", "eval"): {
        "publisher": ["mjhq30k_imgs/animals/0a.jpg", "mjhq30k_imgs/vehicles/ff.jpg"],
        "alone": ["animals/0a.jpg", "vehicles/ff.jpg"],
    },
    ("mapillary-vistas", "train"): {"publisher": ["training/images/-0_a.jpg", "training/images/Zz.jpg"]},
    ("mapillary-vistas", "eval"): {"publisher": ["validation/images/aB-c.jpg"]},
    ("mapillary-vistas", "test"): {"publisher": ["testing/images/a.jpg"]},
    ("sa-1b", "train"): {
        "publisher": ["sa_000000/sa_1.jpg", "sa_000001/sa_11.jpg"],
        "flat": ["sa_1.jpg", "sa_2.jpg"],
    },
}
