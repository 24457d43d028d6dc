import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_file
from dcae_bench.data import decode
from dcae_bench.data.decode import ImageError, open_image, path_inside, read_file, read_rgb, to_rgb
from tests.data.image_files import encoded, photograph


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    parts = [struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) for data in (chunk, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("pixels", [(9_500, 9_500), (60_000, 60_000)], ids=["ours", "Pillow's own limit"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(tmp_path, pixels):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*pixels))
    with pytest.raises(ImageError, match=r"bomb\.png: too large \(.*more than 89,478,485 pixels") as caught:
        read_rgb(path)
    assert caught.value.problem == "too large"


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_BYTES", 2**20)
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(2**20))
    assert len(read_file(path)) == 2**20
    path.write_bytes(bytes(2**20 + 1))
    with pytest.raises(ImageError, match=r"large\.jpg: too large \(more than 1 MiB\)"):
        read_file(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not an image"),
        (b"not an image at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),  # Pillow would start Ghostscript
        (encoded(0, ".jpg")[:-400], "truncated"),
        (encoded(0, ".png")[:-400], "truncated"),
        (encoded(0, ".png")[:1000] + b"\0" * 50 + encoded(0, ".png")[1050:], "corrupt"),
    ],
    ids=["empty", "text", "postscript", "jpeg", "png", "bytes changed"],
)
def test_what_cannot_be_decoded_is_named(tmp_path, content, problem):
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"file\.jpg: ") as caught:
        read_rgb(path)
    assert caught.value.problem == problem
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.jpg: unreadable \(No such file") as caught:
        read_file(tmp_path / "none.jpg")
    assert caught.value.problem == "unreadable"


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "1"])
def test_every_mode_is_converted_as_pillow_does(tmp_path, mode):
    image = photograph(0).crop((0, 0, 40, 30)).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    assert np.array_equal(read_rgb(path), np.asarray(image.convert("RGB")))
    assert to_rgb(open_image(path.read_bytes(), path)).mode == "RGB"


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def tiff(path, values, bits, photometric):
    """A TIFF of packed grey values, as no library writes it."""
    digits = "".join(f"{value:0{bits}b}" for value in values.reshape(-1).tolist())
    data = int(digits, 2).to_bytes(len(digits) // 8, "big")
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 134)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, 1)]
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, value in tags
    )
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(head.ljust(134, b"\0") + data)
    return path


def sixteen_bits(folder):
    """Files of 16-bit grey whose highest 8 bits are GREY."""
    wide = GREY.astype(np.uint16) * 257
    Image.fromarray(wide).save(folder / "16.png")
    Image.fromarray(wide).save(folder / "16.tif")
    Image.fromarray(wide).save(folder / "16-lzw.tif", compression="tiff_lzw")
    (folder / "16.pgm").write_bytes(b"P5 16 16 65535\n" + wide.astype(">u2").tobytes())
    tiff(folder / "12.tif", GREY.astype(np.uint16) * 16 + 15, 12, 1)
    Image.fromarray(GREY.astype(np.uint16) * 256 + 255 - GREY).save(folder / "low-bits.png")
    inverted = tiff(folder / "white-is-0.tif", np.uint16(65535) - wide, 16, 0)
    # Pillow reads 16-bit values in the file's byte order, which is little-endian here.
    inverted.write_bytes(inverted.read_bytes()[:134] + (np.uint16(65535) - wide).astype("<u2").tobytes())
    return sorted(folder.iterdir())


def test_sixteen_bits_keep_the_highest_eight(tmp_path):
    files = sixteen_bits(tmp_path)
    assert len(files) == 7
    for path in files:
        pixels = read_rgb(path)
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, GREY[..., None].repeat(3, axis=2)), path.name


@pytest.mark.filterwarnings("error")
def test_a_palette_with_alpha_is_read_without_a_warning(tmp_path):
    image = Image.fromarray(GREY[..., None].repeat(3, axis=2)).quantize(256)
    image.save(tmp_path / "image.png", transparency=bytes(range(256)))
    assert np.array_equal(read_rgb(tmp_path / "image.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16), "floating-point numbers"),
        (np.arange(256, dtype=np.int32).reshape(16, 16), "32-bit integers"),
        ("LAB", r"CIE L\*a\*b\*"),
    ],
)
def test_what_has_no_known_white_is_refused(tmp_path, content, words):
    path = tmp_path / "image.tif"
    image = Image.new("LAB", (16, 16)) if isinstance(content, str) else Image.fromarray(content)
    image.save(path)
    with pytest.raises(ImageError, match=rf"image\.tif: unsupported \(.*{words}.*\); save it with 8 bits") as caught:
        read_rgb(path)
    assert caught.value.problem == "unsupported"


@pytest.mark.parametrize("mode", sorted(decode.EIGHT_BITS))
def test_every_mode_that_is_taken_can_be_converted(mode):
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


def test_orientation_is_left_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(0).crop((0, 0, 40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (30, 40, 3)


def test_another_content_is_refused(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(1, ".png"))
    assert read_rgb(path, sha256_file(path)).shape == (40, 48, 3)
    with pytest.raises(DataError, match=rf"photo\.png: sha256 is {sha256_file(path)}, the manifest says 00"):
        read_rgb(path, "0" * 64)


def test_links_may_stay_inside_of_the_root_only(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "rooted"
    for folder in (root / "a", outside):
        folder.mkdir(parents=True)
        (folder / "x.jpg").write_bytes(b"x")
    (root / "in.jpg").symlink_to("a/x.jpg")
    (root / "out.jpg").symlink_to(outside / "x.jpg")
    (root / "outside").symlink_to(outside)
    assert path_inside(root, "in.jpg") == root / "in.jpg"
    (tmp_path / "link").symlink_to(root)
    path_inside(tmp_path / "link", "a/x.jpg")  # the root itself may be one
    for path in ("out.jpg", "outside/x.jpg", "../rooted/x.jpg"):
        with pytest.raises(DataError, match="leads out of"):
            path_inside(root, path)
