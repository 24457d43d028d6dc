"""The verb ``score``: images that exist, against their originals or against a reference."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from dcae_bench.cli.main import main
from dcae_bench.data.external import image_folder
from dcae_bench.data.prepare import prepare_files
from dcae_bench.evaluation import score_run
from dcae_bench.evaluation.store import Store
from dcae_bench.extractors import by_name
from dcae_bench.metrics.frechet import FeatureStatistics
from dcae_bench.records.record import load
from dcae_bench.records.score import load_score
from tests.data.containers import write_parquet, write_tar, write_zip
from tests.data.image_files import write_images
from tests.fixtures.commands import run_command
from tests.fixtures.evaluation import Average

SET = "photos-indoor-32"


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture
def real_network():
    """Asks for the network of the protocol in place of a cheap one."""


@pytest.fixture(autouse=True)
def cheap_network(request, monkeypatch):
    if "real_network" not in request.fixturenames:
        monkeypatch.setitem(by_name.EMBEDDED, "efficientnet-lite0", Average)


@pytest.fixture
def score(tiny, monkeypatch):
    """Score by the tiny profile; returns the record."""

    def run_score(*arguments, batch_size=2):
        profile = yaml.safe_load((tiny.folder / "tiny.yaml").read_text())
        profile["evaluation"] |= {"batch_size": batch_size, "bootstrap": 0}
        (tiny.folder / "score.yaml").write_text(yaml.safe_dump(profile))
        output = tiny.folder / "scores" / "score.json"
        options = ("--profile", tiny.folder / "score.yaml", "--output", output)
        assert run_command(monkeypatch, "score", *arguments, *options) == 0
        names = {"score.json"} | ({"score.images.parquet"} if "--originals" in arguments else set())
        assert {path.name for path in output.parent.iterdir()} == names, "and no state of the pass is left"
        return load_score(output)

    return run_score


@pytest.fixture
def refused_score(tiny, refused):
    def run_score(*arguments):
        options = ("--profile", tiny.folder / "tiny.yaml", "--output", tiny.folder / "refused" / "score.json")
        line = refused("score", *arguments, *options)
        assert not (tiny.folder / "refused").exists(), "nothing is left of a score that was refused"
        return line

    return run_score


def pictures(count=6, side=32, seed=0):
    """Smooth images uint8 (n, side, side, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, side // 4, side // 4, 1), np.uint8))


def changed(images, seed=1):
    noise = np.random.default_rng(seed).integers(-20, 20, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def save(folder, images, names="{:06}.png"):
    for index, image in enumerate(images):
        path = folder / names.format(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def values(record):
    return {key: (metric.value, metric.interval) for key, metric in record.metrics.items()}


def test_a_score_of_the_exported_pngs_is_the_evaluation_to_the_last_digit(tiny, monkeypatch, score, real_network):
    pngs, out = tiny.folder / "pngs", tiny.folder / "out"
    profile = tiny.folder / "tiny.yaml"
    profile.write_text(profile.read_text().replace("bootstrap: 10", "bootstrap: 0"))
    assert run_command(monkeypatch, "evaluate", *tiny.options, "--output", out, "--png", pngs) == 0
    found = score(pngs / SET / "reconstructions", "--originals", pngs / SET / "originals")
    evaluated = load(out / f"{SET}.json")
    assert values(found) == values(evaluated)
    assert found.protocol == evaluated.protocol and found.profile == "tiny"
    ours, theirs = (
        pq.read_table(path) for path in (tiny.folder / "scores/score.images.parquet", out / f"{SET}.images.parquet")
    )
    assert ours.drop_columns("key").equals(theirs.drop_columns("key"))
    assert (found.images.images, found.reference.images, found.resolution) == (14, 14, 32)


@pytest.mark.long
def test_scores_by_the_papers_protocol_agree_with_the_evaluation_of_files(tiny, monkeypatch, score, inception_file):
    """Of photographs in class folders, their exported crops, and the photographs themselves cropped anew."""
    load_extractor = by_name.load

    def load_any(name, weights=None, **_):
        return load_extractor(name, inception_file if name.startswith("inception") else weights, any_hash=True)

    monkeypatch.setattr(by_name, "load", load_any)
    root, out, pngs = tiny.folder / "files", tiny.folder / "out", tiny.folder / "pngs"
    paths = [f"{name}.{suffix}" for name in ("b/2", "b-1/x", "a/3", "a/30", "c") for suffix in ("jpg",)] + ["a-0.png"]
    write_images(root, paths, size=(170, 90))
    prepare_files(image_folder("own"), "eval", root, tiny.folder / "data" / "own")
    profile = yaml.safe_load((tiny.folder / "tiny.yaml").read_text())
    profile["evaluation"] |= {"protocol": "reconstruction/paper-v1", "crops_per_photo": 1, "bootstrap": 0}
    profile["evaluation"]["sets"] = [{"dataset": "own", "resolution": 64}]
    (tiny.folder / "tiny.yaml").write_text(yaml.safe_dump(profile))
    assert run_command(monkeypatch, "evaluate", *tiny.options, "--output", out, "--png", pngs) == 0
    evaluated = load(out / "own-64.json")
    assert len(evaluated.metrics) == 3 + 1 + 5
    sides = pngs / "own-64" / "reconstructions", pngs / "own-64" / "originals"
    assert values(score(sides[0], "--originals", sides[1])) == values(evaluated)
    anew = score(sides[0], "--originals", root, "--resolution", 64, "--pair-by", "order")
    assert values(anew) == values(evaluated) and anew.reference.cropped == 6


def test_whole_images_of_several_sizes_have_the_numbers_of_their_evaluation(tiny, monkeypatch, score, refused):
    root, out, pngs = tiny.folder / "files", tiny.folder / "out", tiny.folder / "pngs"
    write_images(root, ["a.png", "c.jpg"], size=(50, 40))
    write_images(root, ["b.png", "d/e.png"], size=(40, 64))
    prepare_files(image_folder("own"), "eval", root, tiny.folder / "data" / "own")
    profile = yaml.safe_load((tiny.folder / "tiny.yaml").read_text())
    profile["evaluation"] |= {"protocol": "reconstruction/native-v1", "crops_per_photo": 1, "bootstrap": 0}
    profile["evaluation"] |= {"sets": [{"dataset": "own", "resolution": 256}], "multiple": 8}
    (tiny.folder / "tiny.yaml").write_text(yaml.safe_dump(profile))
    assert run_command(monkeypatch, "evaluate", *tiny.options, "--output", out, "--png", pngs) == 0
    sides = pngs / "own-256" / "reconstructions", pngs / "own-256" / "originals"
    found = score(sides[0], "--originals", sides[1])
    assert values(found) == values(load(out / "own-256.json")) and found.settings["crop"] == "whole images"
    assert values(score(root, "--originals", root)).keys() == values(found).keys() - {"psnr"}, "50 x 40 px stay whole"
    options = ("--profile", tiny.folder / "tiny.yaml", "--output", tiny.folder / "x.json")
    line = refused("score", root, "--originals", root, "--resolution", 32, *options)
    assert line.startswith("--resolution 32: reconstruction/native-v1 measures whole images")
    assert "compares with originals alone" in refused("score", root, "--reference", root, *options)


def test_pngs_that_cannot_be_written_are_refused_first(tiny, refused):
    (tiny.folder / "file").write_text("no folder")
    line = refused("evaluate", *tiny.options, "--output", tiny.folder / "out", "--png", tiny.folder / "file" / "pngs")
    assert line.startswith(f"{tiny.folder / 'file'}: cannot be written") and not (tiny.folder / "out").exists()


def test_a_killed_evaluation_goes_on_with_its_pngs(tiny, monkeypatch, capsys):
    pngs, write = tiny.folder / "pngs", Store.write

    def stopped(self, *arguments):
        write(self, *arguments)
        raise Stopped

    command = ("evaluate", *tiny.options, "--output", tiny.folder / "out", "--png", pngs)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Store, "write", stopped)
        patch.setattr("sys.argv", ["dcae-bench", *map(str, command)])
        main()
    gone = pngs / SET / "originals" / "000001.png"
    before = gone.read_bytes()
    gone.unlink()
    assert run_command(monkeypatch, *command) == 2
    assert f"{gone}: was removed while the pass was interrupted" in capsys.readouterr().err
    assert run_command(monkeypatch, *command) == 0 and gone.read_bytes() == before
    (pngs / SET / "originals" / "000014.png").write_bytes(before)
    assert run_command(monkeypatch, *command) == 2
    assert "holds 1 other images (000014.png)" in capsys.readouterr().err


@pytest.fixture
def sides(tmp_path):
    originals = pictures()
    return save(tmp_path / "originals", originals), save(tmp_path / "images", changed(originals))


def test_neither_names_nor_container_nor_batches_move_a_number(score, sides, tmp_path):
    originals, images = sides
    wanted = score(images, "--originals", originals)
    assert wanted.metrics["psnr"].interval and wanted.settings["pairs"] == "by path"
    pixels = changed(pictures())
    np.savez(tmp_path / "images.npz", arr_0=pixels, arr_1=np.zeros(6))
    np.savez_compressed(tmp_path / "packed.npz", pixels)
    np.save(tmp_path / "images.npy", pixels)
    for name in ("images.npz", "packed.npz", "images.npy"):
        assert values(score(tmp_path / name, "--originals", originals)) == values(wanted)
    bitmaps = save(tmp_path / "bmp", pixels, "deep/{:06}.bmp")
    assert values(score(bitmaps, "--originals", originals, "--pair-by", "name")) == values(wanted)
    plain = save(tmp_path / "plain", pixels, "{}.png")
    equal = score(plain, "--originals", tmp_path / "images.npz").metrics
    assert equal["ssim"].value == pytest.approx(1, abs=1e-9) and "psnr" not in equal, "numbers are told as numbers"
    for key, metric in score(images, "--originals", originals, batch_size=5).metrics.items():
        assert metric.value == pytest.approx(wanted.metrics[key].value, rel=1e-5), key


def test_containers_are_their_folder(score, sides, tmp_path):
    originals, images = sides
    wanted = score(images, "--originals", originals)
    files = {path.name: path.read_bytes() for path in sorted(images.iterdir(), reverse=True)}
    rows = [(name, content, None) for name, content in files.items()]
    half = list(files)[::2]
    for packed in (
        write_zip(tmp_path / "train.zip", files),  # a name that says of which split of a data set it would be
        write_tar(tmp_path / "images.tar", files),
        write_parquet(tmp_path / "images.parquet", rows),
        write_zip(tmp_path / "parts" / "train-0.zip", {name: files[name] for name in half}).parent,
    ):
        if packed.is_dir():
            write_tar(packed / "test-1.tar", {name: files[name] for name in files if name not in half})
        found = score(packed, "--originals", originals)
        assert values(found) == values(wanted) and found.key == wanted.key, packed
    unnamed = write_parquet(tmp_path / "rows.parquet", [(None, files[name], None) for name in sorted(files)])
    found = score(unnamed, "--originals", originals, "--pair-by", "order")
    assert values(found) == values(wanted) and found.key != wanted.key


def test_links_out_of_a_folder_are_followed_if_the_user_vouches_for_them(score, refused_score, sides, tmp_path):
    originals, images = sides
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for path in images.iterdir():
        (linked / path.name).symlink_to(path)
    assert "--follow-links" in refused_score(linked, "--originals", originals)
    found = score(linked, "--originals", originals, "--follow-links")
    assert values(found) == values(score(images, "--originals", originals))


def test_keys_tell_scores_apart(score, sides, tmp_path):
    originals, images = sides
    wanted = score(images, "--originals", originals)
    copied = shutil.copytree(images, tmp_path / "elsewhere")
    assert score(copied, "--originals", originals).key == wanted.key
    Image.fromarray(pictures(1, seed=9)[0]).save(copied / "000003.png")
    other = score(copied, "--originals", originals)
    assert other.key != wanted.key and other.metrics["psnr"] != wanted.metrics["psnr"]
    assert score(images, "--originals", copied).key != wanted.key
    assert score(images, "--reference", originals).key != wanted.key


def test_pairs_are_told_by_name_or_refused(refused_score, score, sides, tmp_path):
    originals, images = sides
    (images / "000003.png").rename(images / "x.png")
    line = refused_score(images, "--originals", originals)
    assert line == (
        f"{images}/x.png: has no partner in {originals}, as 1 of 6 images; complete the folder, or score the images "
        "that both have (--common)"
    )
    found = score(images, "--originals", originals, "--common")
    assert (found.images.images, found.images.left_out, found.reference.left_out) == (5, 1, 1)
    shutil.copy(images / "x.png", images / "000003.bmp")
    shutil.copy(images / "x.png", images / "000003.png")
    line = refused_score(images, "--originals", originals)
    assert f"{images}/000003.png: has the name without its suffix of 000003.bmp" in line
    other = save(tmp_path / "other", pictures(), "deep/img{}.png")
    line = refused_score(other, "--originals", originals)
    assert "no image has the name of one in" in line and "--pair-by order" in line
    assert score(other, "--originals", originals, "--pair-by", "order").images.images == 6
    shutil.copy(originals / "000003.png", originals / "z.png")
    assert "must be as many" in refused_score(other, "--originals", originals, "--pair-by", "order")


def test_sizes_are_equal_or_refused(refused_score, score, sides, tmp_path):
    originals, images = sides
    large = save(tmp_path / "large", pictures(side=64))
    line = refused_score(images, "--originals", large)
    assert line.startswith(f"{images}/000000.png: is 32x32, its original {large}/000000.png 64x64, as 6 of 6 pairs")
    assert "take --resolution 32" in line
    found = score(images, "--originals", large, "--resolution", 32)
    assert (found.reference.cropped, found.images.cropped, found.settings["crop"]) == (6, 0, "dm-crop/1, 32 px")
    assert values(found) == values(score(images, "--originals", originals)), "boxes of these pictures are their pixels"
    assert "save images of the originals' size" in refused_score(images, "--originals", large, "--resolution", 48)
    Image.fromarray(pictures(1, side=64)[0][:40]).save(large / "000005.png")
    line = refused_score(large, "--originals", large)
    assert "000005.png: is 64x40, not 64x64, as 1 of 6 images; take --resolution 40" in line
    line = refused_score(large, "--originals", large, "--resolution", 48)
    assert "is 64x40 and would be enlarged to 48 px, as 1 of 6 images; take --upscale" in line
    assert score(large, "--reference", large, "--resolution", 48, "--upscale").resolution == 48
    small = save(tmp_path / "small", pictures(side=16))
    line = refused_score(small, "--originals", small)
    assert "is measured at 16x16 px; the networks of the metrics need 32 px" in line


def test_samples_are_compared_with_images_and_with_statistics(score, sides, tmp_path):

    originals, images = sides
    wanted = score(images, "--reference", originals)
    keys = {f"{name}_efficientnet_lite0" for name in ("gfd", "kd", "precision", "recall")}
    assert wanted.metrics.keys() == keys and wanted.against == "reference"
    np.savez(tmp_path / "reference.npz", arr_0=pictures())
    assert values(score(images, "--reference", tmp_path / "reference.npz")) == values(wanted)

    features = Average()(torch.from_numpy(pictures()).permute(0, 3, 1, 2)).numpy()
    statistics = FeatureStatistics.of(features)
    own = {"mu": statistics.mean, "sigma": statistics.covariance}
    np.savez(tmp_path / "statistics.npz", **own)
    of = ("--statistics-of", "efficientnet-lite0")
    found = score(images, "--reference", tmp_path / "statistics.npz", *of)
    assert found.metrics.keys() == {"gfd_efficientnet_lite0"}
    metric = found.metrics["gfd_efficientnet_lite0"]
    assert metric.value == pytest.approx(wanted.metrics["gfd_efficientnet_lite0"].value, rel=1e-3)
    assert metric.label == "gFD (average)" and "statistics.npz" in metric.notes[0]
    assert (found.reference.images, found.reference.statistics_of) == (None, "efficientnet-lite0")
    np.savez(tmp_path / "both.npz", **own, arr_0=pictures())
    both = score(images, "--reference", tmp_path / "both.npz", *of)
    assert both.metrics["gfd_efficientnet_lite0"].value == metric.value
    for key in keys - {"gfd_efficientnet_lite0"}:
        assert both.metrics[key] == wanted.metrics[key]


def test_other_sources_are_refused_in_one_line(refused_score, sides, tmp_path):
    originals, images = sides
    for content in ({"mu": np.zeros(3), "sigma": np.eye(3)}, {"x": np.zeros(3), "y": np.zeros(3)}):
        np.savez(tmp_path / f"{'-'.join(content)}.npz", **content)
    np.save(tmp_path / "float.npy", np.zeros((3, 32, 32, 3), np.float32))
    (tmp_path / "text.txt").write_text("no images")
    (tmp_path / "packed.tar.gz").write_bytes(b"")
    write_zip(tmp_path / "empty.zip", {"notes.txt": b"no image"})
    (tmp_path / "cut.zip").write_bytes((tmp_path / "empty.zip").read_bytes()[:40])
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x-y.npz").read_bytes()[:100])
    for name, option, message in (
        ("mu-sigma.npz", "--reference", "does not say of which network; name it"),
        ("x-y.npz", "--reference", "it holds x, y, not arr_0"),
        ("float.npy", "--originals", "holds float32 (3, 32, 32, 3); save the images as uint8 (n, height, width, 3)"),
        ("text.txt", "--originals", "is no folder of images, nor one of .tar, .zip, .parquet, .npz, .npy"),
        ("packed.tar.gz", "--originals", "decompress it first"),
        ("empty.zip", "--originals", "holds no images"),
        ("cut.zip", "--originals", "cut.zip"),
        ("gone", "--originals", "is not there"),
        ("empty", "--originals", "holds no images"),
        ("cut.npz", "--reference", "is not a .npz archive"),
    ):
        line = refused_score(images, option, tmp_path / name)
        assert line.startswith(f"{tmp_path / name}: ") and message in line, line
    line = refused_score(images, "--originals", tmp_path / "empty.zip", "--follow-links")
    assert line.startswith(f"{tmp_path / 'empty.zip'}: holds no images") and "--root" not in line, "it is of `prepare`"
    shards = write_zip(tmp_path / "shards" / "x-00001-of-00002.zip", {"a.png": b""}).parent
    line = refused_score(images, "--originals", shards)
    assert line == (
        f"{shards}/x-00000-of-00002.zip: is missing, as 1 of 2 shards; get it, or name those that you mean by a "
        "pattern (x-*.zip)"
    )
    np.save(tmp_path / "few.npy", pictures(3))
    for arguments, message in (
        ((tmp_path / "few.npy", "--reference", images), "3 samples cannot be evaluated: generation/photos-v1 needs"),
        ((images, "--reference", tmp_path / "few.npy"), "3 reference images cannot be evaluated"),
        ((tmp_path / "few.npy", "--originals", tmp_path / "few.npy", "--resolution", 64), "would be enlarged to 64 px"),
        ((images,), "--originals and --reference are both missing"),
        ((images, "--originals", images, "--reference", images), "are both given"),
        ((images, "--originals", originals, "--pair-by", "luck"), "--pair-by luck: there is no such way"),
        ((images, "--reference", originals, "--common"), "--common: images have partners only among --originals"),
        ((images, "--reference", originals, "--upscale"), "--upscale: nothing is enlarged without --resolution"),
        ((images, "--reference", originals, "--statistics-of", "vgg16"), "holds no mu and sigma"),
        ((images, "--reference", originals, "--statistics-of", "x"), "there is no such network; choose one of"),
    ):
        assert message in refused_score(*arguments)


def test_an_unusable_file_is_named(tiny, refused, sides):
    originals, images = sides
    (images / "000004.png").write_bytes(b"no image")
    options = ("--profile", tiny.folder / "tiny.yaml", "--output", tiny.folder / "score.json")
    line = refused("score", images, "--originals", originals, *options)
    assert line.startswith(f"{images}/000004.png: not an image") and "1 of 6 files cannot be used" in line
    assert "000004.png,not an image" in Path(line.rsplit("listed in ")[1]).read_text()


def test_an_image_that_changes_meanwhile_is_named(tiny, refused, sides, monkeypatch, score):
    originals, images = sides
    find_pairs = score_run.pair

    def change(*arguments, **options):
        shutil.copy(images / "000003.png", images / "000002.png")
        return find_pairs(*arguments, **options)

    options = ("--profile", tiny.folder / "tiny.yaml", "--output", tiny.folder / "score.json")
    with monkeypatch.context() as patch:
        patch.setattr(score_run, "pair", change)
        line = refused("score", images, "--originals", originals, *options)
    assert line.startswith(f"{images}/000002.png: is not what it was when the command began")
    assert score(images, "--originals", originals).images.images == 6


WORKER = """
import os
os.environ.update({environment!r})
from pathlib import Path
from dcae_bench.data.set_crops import Size
from dcae_bench.evaluation.score_run import score_pairs, score_samples
from dcae_bench.profile.profile import load_profile
folder = Path({folder!r})
profile = load_profile(folder / "score.yaml")
score_pairs(profile, folder / "images", folder / "originals.npz", output=folder / "2.json", size=Size())
score_samples(profile, folder / "images", folder / "originals.npz", output=folder / "2g.json", size=Size())
"""


@pytest.mark.long
def test_two_processes_give_the_numbers_of_one(score, sides, tmp_path, server, real_network):
    _, images = sides
    np.savez_compressed(tmp_path / "originals.npz", pictures())
    wanted = [score(images, option, tmp_path / "originals.npz") for option in ("--originals", "--reference")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    common |= {"DCAE_BENCH_CACHE": str(tmp_path / "another cache")}
    started = []
    for rank in ("0", "1"):
        code = WORKER.format(environment={**common, "RANK": rank, "LOCAL_RANK": rank}, folder=str(tmp_path))
        started.append(server.Process(target=exec, args=(code, {})))
        started[-1].start()
    for process in started:
        process.join(timeout=120)
    assert [process.exitcode for process in started] == [0, 0]
    found = [load_score(tmp_path / name) for name in ("2.json", "2g.json")]
    assert [values(one) for one in found] == [values(one) for one in wanted]
    assert found[0].provenance.device.processes == 2 and not list(tmp_path.glob(".2*"))


def test_lossy_images_are_told(score, sides, tmp_path):
    originals, _ = sides
    images = save(tmp_path / "jpeg", pictures(), "{:06}.jpg")
    (note,) = score(images, "--originals", originals).notes
    assert note.startswith("6 of 6 images are in a lossy format (000000.jpg)")


def test_a_score_is_shown_and_taken_by_no_table(score, sides, tmp_path, monkeypatch, capsys, refused):
    originals, images = sides
    found = score(images, "--originals", originals)
    path = tmp_path / "scores" / "score.json"
    monkeypatch.setenv("COLUMNS", "200")
    assert run_command(monkeypatch, "show", path) == 0
    text = capsys.readouterr().out
    for fact in (str(images), str(originals), found.images.sha256, found.key, "PSNR", "pairs", "by path", "6"):
        assert fact in text, fact
    line = refused("table", path, "--output", tmp_path / "t.md")
    assert line == f"{path}: is a record of score, which has no place here; pass another"
    path.write_text(path.read_text().replace('"PSNR"', '"PNSR"'))
    assert "edited or damaged" in refused("show", path)


def test_a_killed_score_goes_on(score, sides, tiny, monkeypatch):
    originals, images = sides
    wanted = score(images, "--originals", originals)
    write, reads = Store.write, []

    def stopped(self, *arguments):
        write(self, *arguments)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Store, "write", stopped)
        output = ("--profile", tiny.folder / "score.yaml", "--output", tiny.folder / "scores" / "score.json")
        patch.setattr("sys.argv", ["dcae-bench", "score", *map(str, (images, "--originals", originals, *output))])
        main()

    def counted(self, rows, *arguments):
        reads.append(rows)
        write(self, rows, *arguments)

    monkeypatch.setattr(Store, "write", counted)
    assert values(score(images, "--originals", originals)) == values(wanted)
    assert len(reads) == 2, "one of three batches was measured before"
