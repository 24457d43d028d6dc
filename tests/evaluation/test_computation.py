"""Evaluation in half precision and in tiles: what records hold of it, and that nothing is mixed with other rows."""

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.evaluation.reconstruction_run import Evaluation
from dcae_bench.execution.half import HalfPrecision
from dcae_bench.execution.tiles import Tiled
from dcae_bench.planning.meaning import Meaning
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.profile.recipes import evaluation_recipe
from dcae_bench.records.record import load
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.page import markdown
from tests.fixtures.commands import run_command

LABEL = "photos-indoor-32"


def change(tiny, **evaluation):
    """Change the evaluation part of the profile."""
    path = tiny.folder / "tiny.yaml"
    content = yaml.safe_load(path.read_text())
    content["evaluation"] |= evaluation
    path.write_text(yaml.safe_dump(content))


@pytest.fixture
def evaluate(tiny, monkeypatch, capsys):
    """Runs the command, which must end with the exit code ``ends``; returns the record, or the error's line."""
    change(tiny, bootstrap=0, gallery=0, samples=1)

    def run(name, *options, ends=0):
        capsys.readouterr()
        code = run_command(monkeypatch, "evaluate", *tiny.options, "--output", tiny.folder / name, *options)
        assert code == ends
        if ends:
            (line,) = capsys.readouterr().err.splitlines()
            return line
        return load(tiny.folder / name / f"{LABEL}.json")

    return run


def no_row(row, source):
    return ("not asked for",)


def test_a_record_in_bf16_has_a_key_of_its_own_and_its_row_is_marked(tiny, evaluate):
    plain, half = evaluate("fp32"), evaluate("bf16", "--precision", "bf16")
    assert "precision" not in plain.settings and half.settings == {**plain.settings, "precision": "bf16"}
    assert (plain.provenance.device.precision, half.provenance.device.precision) == ("fp32", "bf16")
    assert plain.key != half.key and plain.subject.weights_sha256 == half.subject.weights_sha256
    psnr = [
        pq.read_table(tiny.folder / name / f"{LABEL}.images.parquet")["psnr"].to_pylist() for name in ("fp32", "bf16")
    ]
    assert psnr[0] != psnr[1] and psnr[0] == pytest.approx(psnr[1], abs=0.1)
    profile = load_profile(tiny.folder / "tiny.yaml")
    meaning = Meaning(profile, tiny.folder / "data")
    assert meaning.differences(half) == ("the profile asks for other settings now than when it was made",)
    asked = profile.evaluation.model_copy(update={"precision": "bf16"})
    meaning = Meaning(profile.model_copy(update={"evaluation": asked}), tiny.folder / "data")
    assert meaning.differences(half) == () and meaning.differences(plain)
    path = tiny.folder / "bf16" / f"{LABEL}.json"
    assert "computed in bf16" in markdown(build("tiny", {path: half}, [], no_row))
    table = build("tiny", {path: half, tiny.folder / "fp32" / f"{LABEL}.json": plain}, [], no_row)
    assert len(table.runs) == 2 and not table.pairs


def test_tiles_and_their_error_stand_in_the_record(tiny, evaluate):
    record = evaluate("tiled", "--tile-size", 16, "--tile-overlap", 4)
    assert record.settings["tiles"] == "16 px, overlap 4 px"
    tiling = record.tiling
    assert (tiling.size, tiling.overlap, tiling.encode, tiling.images) == (16, 4, True, 4)
    assert 10 < tiling.psnr < 80 and 0 < tiling.max_difference <= 255
    assert tiling.described in markdown(build("tiny", {tiny.folder / "x.json": record}, [], no_row))


def test_what_cannot_be_is_refused_in_one_line(tiny, evaluate):
    assert "--precision half: is none of fp32, bf16, fp16" in evaluate("x", "--precision", "half", ends=2)
    assert "there are no tiles; give their --tile-size" in evaluate("x", "--tile-overlap", 4, ends=2)
    line = evaluate("x", "--tile-size", 16, "--tile-overlap", 10, ends=2)
    assert "overlap 10 of the tiles is more than half of their size 16" in line
    assert "tiles: size 15 is not a multiple of 2, the f of" in evaluate("x", "--tile-size", 15, ends=2)
    change(tiny, tiles={"size": 16, "overlap": 3})
    with pytest.raises(ConfigError, match="3 of the tiles' overlap is not a multiple of 2, the f of sd-vae-f2c4"):
        load_profile(tiny.folder / "tiny.yaml")


def test_a_pass_resumes_only_in_its_own_way(tiny, evaluate, monkeypatch):
    names = []
    monkeypatch.setattr(Evaluation, "_run", lambda self, item, crops, output, state, clock: names.append(state.name))
    for options in ((), ("--precision", "bf16"), ("--precision", "fp16"), ("--tile-size", 16), ("--precision", "fp32")):
        with pytest.raises(Exception, match=LABEL):  # there is no record, as nothing was measured
            evaluate("same", *options)
    assert len(set(names)) == 4 and names[0] == names[-1]


def test_the_profile_says_it_too_and_other_recipes_stay(tiny):
    plain = load_profile(tiny.folder / "tiny.yaml")
    change(tiny, precision="fp16", tiles={"size": 16})
    changed = load_profile(tiny.folder / "tiny.yaml")
    assert changed.evaluation.computation == {"precision": "fp16", "tiles": "16 px, overlap 4 px"}
    assert evaluation_recipe(changed) == evaluation_recipe(plain) == evaluation_recipe(plain, reconstructs=True)
    assert evaluation_recipe(changed, reconstructs=True)["settings"] == changed.evaluation.computation
    change(tiny, tiles={"size": 16, "overlap": 8, "encode": False})
    assert load_profile(tiny.folder / "tiny.yaml").evaluation.computation["tiles"].endswith("8 px, decoder only")
    content = yaml.safe_load((tiny.folder / "tiny.yaml").read_text())
    for wrong in (
        {"precision": "fp8"},
        {"tiles": {"overlap": 4}},
        {"tiles": {"size": 0}},
        {"tiles": {"size": 8, "overlap": 5}},
    ):
        with pytest.raises(ConfigError, match=r"evaluation\.(precision|tiles)"):
            parse_profile({**content, "evaluation": content["evaluation"] | wrong}, "x.yaml")


@pytest.mark.long
def test_an_image_of_one_tile_has_no_error(evaluate):
    tiling = evaluate("one", "--tile-size", 32, "--tile-overlap", 0).tiling
    assert tiling.psnr is None and tiling.max_difference == 0
    assert tiling.described == "tiles of 32 px, overlap 0 px: equal to the untiled result on the first 4 images"


@pytest.mark.long
def test_an_image_that_does_not_fit_whole_is_told(tiny, evaluate, monkeypatch):
    encode = HalfPrecision._encode

    def small(self, x):
        if x.shape[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, x)

    monkeypatch.setattr(HalfPrecision, "_encode", small)
    record = evaluate("tiled", "--tile-size", 16, "--precision", "bf16")
    assert record.tiling.images == 0 and record.tiling.psnr is None and record.tiling.max_difference is None
    assert record.tiling.described.endswith("the whole image 0 does not fit in memory")
    assert record.settings["precision"] == "bf16" and issubclass(Tiled, torch.nn.Module)
