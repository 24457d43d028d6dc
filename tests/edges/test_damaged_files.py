"""Damaged and hostile files: each reader of the edges gives a value or a typed error, and nothing else.

The draws are the same in every run; an input that once escaped stands as an example.
"""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from dcae_bench.base.errors import UserError
from dcae_bench.base.files import CONFIG, REPOSITORY, sha256_file
from dcae_bench.base.reading import load_array, load_arrays, map_array, read_json
from dcae_bench.data.decode import read_rgb
from dcae_bench.data.external import external_datasets
from dcae_bench.data.latents import read_latent_manifest
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.packed import PackedPhotos, PackIndex
from dcae_bench.data.prepare import prepare_files
from dcae_bench.data.sample_manifest import read_sample_manifest
from dcae_bench.measurement import evidence
from dcae_bench.measurement.instruments.nvml import read_trace
from dcae_bench.measurement.record import load as load_timing
from dcae_bench.models.weight_files import read_state
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.records.record import load
from dcae_bench.tables.figures.losses import log_curve
from dcae_bench.training.checkpoint import load_checkpoint
from dcae_bench.training.log import read_log
from tests.data.containers import Opened, write_parquet, write_tar, write_zip
from tests.data.image_files import LAYOUTS, write_images
from tests.tables.conftest import record

DEMO = (CONFIG / "demo.yaml").read_bytes()
EVIDENCE = sorted((REPOSITORY / "results" / "reference").glob("amd-*"))[0]
EDGES = [b"", b"\0", b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe\0", b"1" * 10_000, b"\x93NUMPY\x01\0", b"PK\x03\x04"]
FUZZED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A damage to a file's content: cut, overwritten, removed, doubled or replaced bytes."""
    kind = draw(st.sampled_from(["cut", "overwrite", "remove", "insert", "repeat", "replace"]))
    place, length = draw(st.floats(0, 1)), draw(st.integers(1, 40))
    new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b'"', b"{", b"-1", b"1e999", b"null", b"9" * 30]))

    def damage(content: bytes) -> bytes:
        at = int(place * len(content))
        return {
            "cut": content[:at],
            "overwrite": content[:at] + new + content[at + len(new) :],
            "remove": content[:at] + content[at + length :],
            "insert": content[:at] + new + content[at:],
            "repeat": content[:at] + content[at : at + length] * 3 + content[at + length :],
            "replace": new * length,
        }[kind]

    return damage


def array(**kinds: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **kinds)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(24, dtype=np.float32).reshape(4, 6))
    return buffer.getvalue()


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(buffer, kind)
    return buffer.getvalue()


def packed(write: Callable[[Path, dict[str, bytes]], Path]) -> bytes:
    with TemporaryDirectory() as folder:
        return write(Path(folder) / "images", {"a.png": picture("png"), "b.png": picture("png")}).read_bytes()


def read_container(path: Path) -> None:
    images = Opened(path)
    for index in range(len(images)):
        assert images[index].shape[2] == 3


def timing() -> bytes:
    return next(path for path in sorted((EVIDENCE / "records").glob("*.json"))).read_bytes()


def reconstruction() -> bytes:
    return record("dc-ae", 64, 128).model_dump_json(indent=2).encode()


LOG = b"".join(json.dumps({"images": 4 * n, "loss": 0.5, "l1": 0.1, "lpips": 0.2}).encode() + b"\n" for n in range(9))
TRACE = json.dumps({"origin": "recorded", "identity": {}, "samples": [{"t": 1.0}]}).encode()
READERS: dict[str, tuple[Callable[[], bytes], Callable[[Path], object]]] = {
    "profile.yaml": (lambda: DEMO, load_profile),
    "record.json": (reconstruction, load),
    "timing.json": (timing, load_timing),
    "trace.json": (lambda: TRACE, read_trace),
    "log.jsonl": (lambda: LOG, read_log),
    "curve.jsonl": (lambda: LOG, lambda path: log_curve(path, ("l1", "lpips"))),
    "checkpoint.pt": (
        lambda: pickled({"recipe_sha256": "0" * 64, "x": torch.ones(4)}),
        lambda p: load_checkpoint(p, "0"),
    ),
    "weights.safetensors": (lambda: save({"x": torch.ones(4)}), read_state),
    "weights.pt": (lambda: pickled({"state_dict": {"x": torch.ones(4)}}), read_state),
    "image.png": (lambda: picture("png"), read_rgb),
    "image.jpg": (lambda: picture("jpeg"), read_rgb),
    "image.webp": (lambda: picture("webp"), read_rgb),
    "images.tar": (lambda: packed(write_tar), read_container),
    "images.zip": (lambda: packed(write_zip), read_container),
    "images.parquet": (
        lambda: packed(lambda path, files: write_parquet(path, [(*file, 1) for file in files.items()])),
        read_container,
    ),
    "latents/manifest.json": (lambda: b'{"version": 1}', lambda path: read_latent_manifest(path.parent)),
    "samples/samples.json": (lambda: b'{"version": 1}', lambda path: read_sample_manifest(path.parent)),
}


@pytest.mark.parametrize("name", READERS)
@FUZZED
@given(damage=damages())
def test_a_damaged_file_is_read_or_refused(tmp_path, name, damage):
    content, read = READERS[name]
    attempt(tmp_path / name, damage(content()), read)


@pytest.mark.parametrize("name", READERS)
def test_edges(tmp_path, name):
    for content in EDGES:
        attempt(tmp_path / name, content, READERS[name][1])


def attempt(path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        read(path)
    except UserError as error:
        assert len(str(error)) < 3000, "one line that a terminal can show"


@FUZZED
@given(damage=damages())
def test_arrays_and_json_raise_two_kinds_of_errors_alone(tmp_path, damage):
    readers = [
        (npy(), load_array),
        (npy(), map_array),
        (array(mu=np.ones(3), sigma=np.ones((3, 3))), lambda path: load_arrays(path, ("mu", "sigma"))),
        (timing(), read_json),
    ]
    for content, read in readers:
        for damaged in (damage(content), *EDGES):
            path = tmp_path / "file"
            path.write_bytes(damaged)
            with suppress(OSError, ValueError):
                read(path)


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> Path:
    """A folder with a manifest of images."""
    root = tmp_path_factory.mktemp("files")
    write_images(root / "ffhq", LAYOUTS["ffhq", "eval"]["flat"], size=(40, 36))
    prepare_files(external_datasets()["ffhq"], "eval", root / "ffhq", root / "data" / "ffhq", partial=True)
    return root / "data" / "ffhq"


@pytest.mark.parametrize("file", ["eval.json", "eval.parquet"])
@FUZZED
@given(damage=damages())
def test_a_damaged_manifest_is_read_or_refused(listed, tmp_path, file, damage):
    for name in ("eval.json", "eval.parquet"):
        content = (listed / name).read_bytes()
        (tmp_path / name).write_bytes(damage(content) if name == file else content)
    try:
        manifest = FileManifest(tmp_path / "eval.parquet")
        for row in range(len(manifest)):
            manifest.read(row)
        assert len(manifest.sizes) == len(manifest) and manifest.labels() and manifest.shortest_side()
    except UserError:
        pass


@FUZZED
@given(damage=damages())
def test_a_damaged_index_of_a_pack_is_read_or_refused(tmp_path, damage):
    pack = tmp_path / "eval.npy"
    pack.write_bytes(npy())
    index = PackIndex(
        name="x",
        split="eval",
        short_side=2,
        sha256=sha256_file(pack),
        manifest_sha256="0" * 64,
        photos=(),
    )
    attempt(
        tmp_path / "eval.json",
        damage(index.model_dump_json().encode()),
        lambda _: PackedPhotos.open(tmp_path / "eval.npy"),
    )


@FUZZED
@given(damage=damages(), number=st.integers(0, 5))
def test_damaged_evidence_is_told(tmp_path, damage, number):
    folder = tmp_path / "evidence"
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*.*"):
        path.unlink()
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    path = sorted((EVIDENCE / "records").glob("*.json"))[number]
    (folder / "records" / path.name).write_bytes(damage(path.read_bytes()))
    evidence.seal(folder)
    evidence.verify(folder)
    attempt(folder / "SHA256SUMS", damage((folder / "SHA256SUMS").read_bytes()), lambda _: evidence.verify(folder))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**31, 2**63, 10**30, 1e308, float("inf"), float("nan"), "", "x" * 5000, "\0", "[/x]", [], {}]
    ),
    st.integers(),
    st.text(max_size=5),
)


def places(content: object, path: tuple = ()) -> list[tuple]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(inner for key, value in items for inner in places(value, (*path, key)))]


@settings(FUZZED, max_examples=300)
@given(data=st.data())
def test_any_value_anywhere_in_a_profile_is_accepted_or_refused(data):
    content = yaml.safe_load(DEMO)
    *outer, last = data.draw(st.sampled_from(places(content)[1:]))
    inner = content
    for key in outer:
        inner = inner[key]
    inner[last] = data.draw(VALUES)
    try:
        profile = parse_profile(content, "x.yaml")
    except UserError as error:
        assert len(str(error)) < 1000
    else:
        profile.model_dump_json()
