import csv
import hashlib
import io
import itertools
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import CONFIG, cache_dir, sha256_file, sha256_json
from dcae_bench.cli.main import main
from dcae_bench.data import listing as listing_module
from dcae_bench.data import prepare as prepare_module
from dcae_bench.data import scan as scan_module
from dcae_bench.data.external import external_datasets, image_folder
from dcae_bench.data.layout import Listed, list_images
from dcae_bench.data.manifest import ROWS, FileManifest, ManifestInfo, ManifestRow, info_path, open_writer, write_info
from dcae_bench.data.prepare import prepare_files
from dcae_bench.data.scan import ScanCache, read_image, scan
from tests.data.containers import write_zip
from tests.data.image_files import LAYOUTS, encoded, write_images

OWN = image_folder("own")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read from the disk."""
    seen = []

    def read(place):
        seen.append(place.file.name)
        return read_image(place)

    monkeypatch.setattr(scan_module, "read_image", read)
    return seen


def own(root, output, **options):
    return prepare_files(OWN, "eval", root, output, **options)


def run(monkeypatch, capsys, *arguments):
    """(exit code, lines on standard error) of ``dcae-bench prepare``."""
    monkeypatch.setattr("sys.argv", ["dcae-bench", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err.splitlines()


def test_a_manifest_has_a_row_per_file(root, tmp_path):
    paths = LAYOUTS["imagenet", "train"]["publisher"]
    write_images(root, paths)
    info = prepare_files(external_datasets()["imagenet"], "train", root, tmp_path / "out", partial=True)
    table = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [row["path"] for row in table] == paths
    for row in table:
        file = root / row["path"]
        assert (row["bytes"], row["sha256"]) == (file.stat().st_size, sha256_file(file))
        assert (row["width"], row["height"], row["mode"], row["status"]) == (48, 40, "RGB", "ok")
        assert row["label"] == file.parent.name
    written = json.loads((tmp_path / "out" / "train.json").read_text())
    assert written.pop("content_sha256") == sha256_json(written) and written == info.model_dump()
    assert info.sha256 == sha256_file(tmp_path / "out" / "train.parquet")
    assert (info.count, info.expected, info.partial) == (3, 1_281_167, True)
    assert info.bytes == sum(row["bytes"] for row in table)
    assert (tmp_path / "out" / "train.problems.csv").read_text() == "path,problem,detail\n"
    text = "".join(f"{row['sha256']} {row['bytes']} {row['path']}\0" for row in table)
    assert info.tree_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_every_split_of_a_data_set_is_prepared_by_one_command(root, tmp_path, monkeypatch, capsys):
    for split in ("train", "eval", "test"):
        write_images(root, LAYOUTS["mapillary-vistas", split]["publisher"])
    arguments = ["mapillary-vistas", "--root", root, "--output", tmp_path / "out", "--partial", "--workers", 1]
    code, lines = run(monkeypatch, capsys, *arguments)
    assert not code
    assert [line.split(", tree")[0] for line in lines] == [
        "mapillary-vistas train: 2 images, expected 18,000",
        "mapillary-vistas eval: 1 images, expected 2,000",
        "mapillary-vistas test: 1 images, expected 5,000",
    ]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == sorted(f"{s}.{e}" for s in ("train", "eval", "test") for e in ("parquet", "json", "problems.csv"))
    code, lines = run(monkeypatch, capsys, *arguments[:5], "--split", "eval", "--partial", "--workers", 1)
    assert not code and len(lines) == 1


def test_a_wrong_count_is_refused_unless_accepted(root, tmp_path, monkeypatch, capsys):
    write_images(root, LAYOUTS["mjhq", "eval"]["publisher"])
    code, (line,) = run(monkeypatch, capsys, "mjhq", "--root", root, "--output", tmp_path / "out")
    assert code == 2
    for part in (f"{root}: holds 2 eval images", "mjhq30k_imgs/<*>/*.jpg", "expected 30,000", "--partial"):
        assert part in line
    assert not (tmp_path / "out").exists()


def test_the_profile_accepts_a_subset_and_links(root, tmp_path, monkeypatch, capsys):
    """As a rule of the workflow can, which passes nothing but the profile."""
    write_images(tmp_path / "elsewhere", LAYOUTS["mjhq", "eval"]["alone"])
    root.mkdir()
    (root / "mjhq30k_imgs").symlink_to(tmp_path / "elsewhere")
    content = yaml.safe_load((CONFIG / "paper.yaml").read_text()) | {"data_roots": {"mjhq": str(root)}}
    profile = tmp_path / "mine.yaml"
    arguments = ["mjhq", "--profile", profile, "--output", tmp_path / "out", "--workers", 1]
    for vouched, code, words in [
        ({}, 2, "leads out of "),
        ({"follow_links": True}, 2, "accept the count (--partial, or partial of the profile)"),
        ({"follow_links": ["mjhq"], "partial": ["mjhq"]}, 0, "mjhq eval: 2 images, 2 small, expected 30,000, tree"),
        ({"follow_links": True, "partial": "mjhq"}, 0, "mjhq eval: 2 images"),
        ({"partial": 2}, 2, "'partial' is 2: write a list of data sets, such as [imagenet], or true for all"),
        ({"partial": ["mjqh"]}, 2, "partial has 'mjqh'; the profile uses ffhq, imagenet, mapillary-vistas, mjhq"),
    ]:
        profile.write_text(yaml.safe_dump(content | vouched))
        found, (line,) = run(monkeypatch, capsys, *arguments)
        assert (found or 0, words in line) == (code, True), line
    assert FileManifest(tmp_path / "out" / "eval.parquet").read(1).shape == (40, 48, 3)


def test_files_are_prepared_and_containers_beside_them_named(root, tmp_path, monkeypatch, capsys):
    write_images(root, ["a.png"])
    write_zip(root / "all.zip", {"b.png": encoded(1, ".png")})
    arguments = ["--output", tmp_path / "out", "--split", "eval", "--workers", 1]
    code, (_, named, line) = run(monkeypatch, capsys, "own", "--root", root, *arguments)
    assert not code and "all.zip not read, because image files lie beside" in named
    assert line.startswith("own eval: 1 images, 1 other files left out, tree")
    code, (_, line) = run(monkeypatch, capsys, "own", "--root", root / "all.zip", *arguments)
    assert not code and line.startswith("own eval: 1 images, in 1 container, tree")
    (root / "x.tar.gz").write_bytes(b"")
    code, (line,) = run(monkeypatch, capsys, "own", "--root", root / "x.tar.gz", *arguments)
    assert code == 2 and "x.tar.gz is a file and no container (.tar, .zip, .parquet), decompress it first; set" in line


def test_a_missing_split_names_the_ones_there_are(root, tmp_path, monkeypatch, capsys):
    write_images(root, LAYOUTS["imagenet", "eval"]["flat"])
    code, (line,) = run(monkeypatch, capsys, "imagenet", "--root", root, "--output", tmp_path / "out", "--partial")
    assert code == 2
    for part in ("holds no train images", "train/<n########>/n########_*.JPEG", "found val/", "(--split eval)"):
        assert part in line


def test_a_missing_split_does_not_send_to_others_that_are_missing(root, tmp_path, monkeypatch, capsys):
    arguments = ["mapillary-vistas", "--root", root, "--output", tmp_path / "out", "--partial", "--workers", 1]
    write_images(root, LAYOUTS["mapillary-vistas", "train"]["publisher"])
    code, (line,) = run(monkeypatch, capsys, *arguments, "--split", "eval")
    assert code == 2 and "holds no eval images" in line and line.endswith("(--split train)")
    write_images(root, LAYOUTS["mapillary-vistas", "eval"]["publisher"])
    code, (*_, line) = run(monkeypatch, capsys, *arguments)
    assert code == 2 and "holds no test images" in line and line.endswith("(--split train --split eval)")
    code, (line,) = run(monkeypatch, capsys, *["imagenet", *arguments[1:]])
    assert code == 2 and "holds no train images" in line and line.endswith("--root to the folder that holds them")


def test_any_folder_is_a_data_set_of_the_profile(root, tmp_path, monkeypatch, capsys):
    write_images(root, ["b/2.png", "a/1.webp"])
    code, (notice, line) = run(
        monkeypatch, capsys, "own", "--root", root, "--output", tmp_path, "--split", "eval", "--workers", 1
    )
    assert not code and line.startswith("own eval: 2 images, tree sha256 ")
    assert notice == (
        "own: none of imagenet, ffhq, mjhq, mapillary-vistas, sa-1b; taken for a folder, of which every image counts"
    )
    assert [row.path for row in FileManifest(tmp_path / "eval.parquet")] == ["a/1.webp", "b/2.png"]
    code, (line,) = run(monkeypatch, capsys, "own", "--output", tmp_path)
    assert code == 2 and "'own' does not exist; choose one of photos-indoor" in line


def test_options_of_files_are_refused_for_packages(tmp_path, monkeypatch, capsys):
    code, (line,) = run(monkeypatch, capsys, "photos-indoor", "--root", tmp_path, "--output", tmp_path / "out")
    assert code == 2 and "--root: data set 'photos-indoor' comes with the packages" in line


def test_images_with_problems_are_listed(root, tmp_path):
    write_images(root, ["a.png", "b.png"])
    (root / "grey.png").write_bytes(encoded(5, ".png", mode="L"))
    (root / "small.png").write_bytes(encoded(6, ".png", size=(31, 60), mode="LA"))
    info = own(root, tmp_path, min_side=32)
    assert info.problems == {"greyscale": 1, "greyscale+small": 1}
    assert [row.status for row in FileManifest(tmp_path / "eval.parquet")] == [
        "ok",
        "ok",
        "greyscale",
        "greyscale+small",
    ]
    with open(tmp_path / "eval.problems.csv") as file:
        assert list(csv.reader(file))[1:] == [
            ["grey.png", "greyscale", "mode L"],
            ["small.png", "greyscale", "mode LA"],
            ["small.png", "small", "31x60, asked for 32"],
        ]


def test_images_without_a_known_white_are_to_be_saved_otherwise(root, tmp_path):
    """Their publisher has no others."""
    root.mkdir(exist_ok=True)
    Image.fromarray(np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40)).save(root / "depth.tif")
    with pytest.raises(DataError, match=r"\(1 unsupported\): save them with 8 bits and run the same command again"):
        own(root, tmp_path)


def test_bad_images_stop_at_the_end_with_all_of_them_listed(root, tmp_path, reads):
    write_images(root, [f"{number}.png" for number in range(40)])
    first = own(root, tmp_path)
    before = (tmp_path / "eval.parquet").read_bytes()
    (root / "20.png").write_bytes(encoded(20, ".png")[:-300])
    (root / "text.jpg").write_text("no image")
    (root / "gone.jpg").symlink_to(root / "nothing")
    with pytest.raises(DataError) as caught:
        own(root, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{root / '20.png'}: truncated (")
    assert "3 of 42 files cannot be used" in message and "eval.problems.csv" in message and "\n" not in message
    with open(tmp_path / "eval.problems.csv") as file:
        found = {path: problem for path, problem, _ in list(csv.reader(file))[1:]}
    assert found == {"20.png": "truncated", "gone.jpg": "unreadable", "text.jpg": "not an image"}
    assert (tmp_path / "eval.parquet").read_bytes() == before, "what stood there stays"
    (root / "20.png").write_bytes(encoded(20, ".png"))
    for name in ("text.jpg", "gone.jpg"):
        (root / name).unlink()
    reads.clear()
    assert own(root, tmp_path) == first
    assert reads == ["20.png"]


def test_a_folder_that_changes_meanwhile_is_refused(root, tmp_path, monkeypatch):
    write_images(root, ["a.png", "b.png"])
    turns = [1, 2]
    monkeypatch.setattr(
        listing_module, "list_images", lambda *a, **k: itertools.islice(list_images(*a, **k), turns.pop())
    )
    with pytest.raises(DataError, match="held 2 eval images when they were counted and 1 when they were read"):
        own(root, tmp_path)
    assert not list(tmp_path.glob("eval.*"))


def test_progress_is_told_to_a_log_file(root, tmp_path, monkeypatch):
    write_images(root, [f"{number:02}.png" for number in range(17)])
    monkeypatch.setattr(prepare_module, "LINE_S", -1.0)
    log = io.StringIO()
    own(root, tmp_path, console=Console(file=log))
    assert log.getvalue().splitlines() == [f"own eval: {done} of 17 images" for done in (8, 16, 17)]


def test_progress_in_a_container_is_told_too(root, tmp_path, monkeypatch):
    path = write_zip(root / "x.zip", {f"{number}.png": encoded(number, ".png") for number in range(9)})
    monkeypatch.setattr(prepare_module, "LINE_S", -1.0)
    log = io.StringIO()
    own(path.parent, tmp_path, console=Console(file=log))
    lines = log.getvalue().splitlines()
    assert lines[:3] == ["own eval: 9 images found, listing x.zip", *(f"own eval: {n} of 9 images" for n in (8, 9))]


def test_unchanged_files_are_not_read_again(root, tmp_path, reads):
    write_images(root, [f"{number}.png" for number in range(5)])
    first = own(root, tmp_path / "one")
    assert len(reads) == 5
    reads.clear()
    assert own(root, tmp_path / "another profile's") == first
    assert reads == []
    os.utime(root / "3.png", ns=(1, 1))
    (root / "4.png").write_bytes(encoded(99, ".png"))
    second = own(root, tmp_path / "one")
    assert reads == ["3.png", "4.png"]
    assert second.tree_sha256 != first.tree_sha256


def test_processes_find_what_one_does(root, tmp_path):
    write_images(root, [f"{number:03}.jpg" for number in range(100)])
    (root / "050.jpg").write_bytes(b"")
    found = []
    for workers in (1, 2):
        with ScanCache(tmp_path / f"none-{workers}") as memory:
            images = [Listed(path.name, None) for path in sorted(root.iterdir())]
            done = []
            found.append(list(scan(root, images, memory, workers=workers, progress=done.append)))
            assert done == [*range(8, 97, 8), 100]
    assert found[0] == found[1]
    assert [image.path for image, reading in found[0] if reading.problem] == ["050.jpg"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scan_lists_only_a_little_ahead(root, tmp_path, workers):
    """However many images there are: what is in memory does not depend on their number."""
    write_images(root, [f"{number:03}.png" for number in range(100)])
    listed = 0

    def images():
        nonlocal listed
        for path in sorted(root.iterdir()):
            listed += 1
            yield Listed(path.name, None)

    with ScanCache(tmp_path / "none") as memory:
        for done, _ in enumerate(scan(root, images(), memory, workers=workers)):
            assert listed - done <= (2 * workers + 2) * scan_module.CHUNK
    assert listed == 100


@pytest.mark.parametrize("damage", [b"not a database" * 1000, b"\0" * 4096, b""])
def test_a_damaged_memory_is_begun_again(root, tmp_path, damage):
    write_images(root, ["a.png"])
    first = own(root, tmp_path)
    (path,) = cache_dir().rglob("*.sqlite")
    path.write_bytes(damage)
    assert own(root, tmp_path) == first
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM readings").fetchone() == (1,)


def test_a_changed_reading_is_not_believed(root, tmp_path):
    write_images(root, ["a.png"])
    first = own(root, tmp_path)
    (path,) = cache_dir().rglob("*.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE readings SET sha256 = ?", ["0" * 64])
    assert own(root, tmp_path) == first


@given(stop=st.integers(0, 12), again=st.integers(0, 12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_does_not_depend_on_where_the_scan_stopped(tmp_path_factory, monkeypatch, stop, again):
    folder = tmp_path_factory.mktemp("stopped")
    write_images(folder / "root", [f"{number:02}.png" for number in range(12)])
    monkeypatch.setattr(scan_module, "CHUNK", 2)
    monkeypatch.setattr(scan_module, "WRITE_S", -1.0)
    read: list[str] = []

    def stopping_at(count):
        def stop(place):
            if len(read) >= count:
                raise KeyboardInterrupt
            read.append(place.file.name)
            return read_image(place)

        return stop

    for count in (stop, stop + again):
        monkeypatch.setattr(scan_module, "read_image", stopping_at(count))
        try:
            own(folder / "root", folder / "out")
        except KeyboardInterrupt:
            assert not (folder / "out" / "eval.json").exists()
            assert not list((folder / "out").iterdir()), "nothing half-written"
    monkeypatch.setattr(scan_module, "read_image", stopping_at(1000))
    found = own(folder / "root", folder / "out")
    assert len(read) <= 12 + 2, "at most the chunk under way is read again, once for each stop"
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(folder / "other cache"))
    assert own(folder / "root", folder / "fresh") == found
    assert (folder / "fresh" / "eval.parquet").read_bytes() == (folder / "out" / "eval.parquet").read_bytes()


def test_a_killed_scan_goes_on(root, tmp_path, reads):
    """With a real SIGKILL in the middle; the images are slow to read there."""
    write_images(root, [f"{number:03}.png" for number in range(160)])
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dcae_bench.data import scan\n"
        "scan.WRITE_S, read = 0.0, scan.read_image\n"
        "scan.read_image = lambda place: (time.sleep(0.01), read(place))[1]\n"
        "from dcae_bench.data.prepare import prepare_files\n"
        "from dcae_bench.data.external import image_folder\n"
        "prepare_files(image_folder('own'), 'eval', Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, root, tmp_path / "out"])
    memory = ScanCache(root)
    deadline = time.monotonic() + 60
    while not memory.recall({"031.png": (root / "031.png").stat()}) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "eval.json").exists() and not (tmp_path / "out" / "eval.parquet").exists()
    info = own(root, tmp_path / "out")
    assert info.count == 160
    assert 0 < len(reads) <= 128, "the chunks before the kill are not read again"


rows = st.lists(
    st.tuples(st.text(st.sampled_from("ab/ \n"), min_size=1, max_size=5), st.integers(1, 9), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


def tree(folder, entries) -> str:
    with open_writer(folder / "eval.parquet") as writer:
        for path, size, content in entries:
            writer.add(ManifestRow(path, size, hashlib.sha256(bytes([content])).hexdigest(), 1, 1, "RGB", None, "ok"))
        return writer.finish()


@given(one=rows, other=rows)
@settings(max_examples=60, deadline=None)
def test_the_tree_hash_is_that_of_paths_sizes_contents_and_order(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("tree")
    assert (tree(folder, one) == tree(folder, other)) == (one == other)


def test_rows_stream_in_and_out(tmp_path):
    """200,000 rows: written in the memory of one row group and opened without reading any."""
    path, count = tmp_path / "train.parquet", 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digest = "0123456789abcdef" * 4
    with open_writer(path) as writer:
        for number in range(count):
            name = f"train/n{number // 1300:08}/n{number // 1300:08}_{number}.JPEG"
            writer.add(ManifestRow(name, number, digest, 400 + number % 7, 300, "RGB", name[6:15], "ok"))
        found = writer.finish()
    info = ManifestInfo(
        name="x",
        split="train",
        root=str(tmp_path),
        pattern="**",
        layout_version=1,
        count=count,
        expected=None,
        partial=False,
        bytes=writer.bytes,
        min_side=None,
        problems={},
        left_out=0,
        tree_sha256=found,
        sha256=sha256_file(path),
    )
    write_info(info, path)
    manifest = FileManifest(path)
    assert len(manifest) == count and not manifest._groups and manifest._sizes is None
    assert manifest.shortest_side() == 300
    for number in (0, ROWS - 1, ROWS, count - 1):
        assert manifest[number].bytes == number
    assert len(manifest._groups) <= 4
    names, places = manifest.labels()
    assert names == sorted(names) and len(names) == count // 1300 + 1
    assert all(names[places[number]] == manifest[number].label for number in (0, 1299, 1300, count - 1))
    assert sum(row.width for row in manifest) == sum(400 + number % 7 for number in range(count))
    assert manifest.sizes.shape == (count, 2) and manifest.sizes.nbytes == 8 * count
    # Rows as Python objects alone would be well above 100 MiB.
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60 * 1024, f"{grown} KiB"


@pytest.mark.parametrize("missing", ["eval.parquet", "eval.json"])
def test_a_manifest_that_is_not_there_is_named(root, tmp_path, missing):
    write_images(root, ["a.png"])
    own(root, tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=rf"{missing}: cannot be read .*; prepare the data again"):
        FileManifest(tmp_path / "eval.parquet")


def test_a_manifest_that_does_not_fit_is_refused(root, tmp_path):
    write_images(root, ["a.png"])
    info = own(root, tmp_path)
    path = tmp_path / "eval.parquet"
    write_info(info.model_copy(update={"tree_sha256": "0" * 64}), path)
    with pytest.raises(DataError, match=r"eval\.parquet: does not belong to eval\.json"):
        FileManifest(path)
    write_info(info.model_copy(update={"sha256": "0" * 64}), path)
    with pytest.raises(DataError, match=rf"eval\.parquet: sha256 is {info.sha256}, eval\.json says 0000"):
        FileManifest(path)
    path.write_bytes(b"PAR1 and more")
    with pytest.raises(DataError, match=r"eval\.parquet: (is not a manifest|cannot be read)"):
        FileManifest(path)
    info_path(path).write_text("{}")
    with pytest.raises(DataError, match=r"eval\.json: is not a manifest's summary"):
        FileManifest(path)
