"""The evaluator's own check: what holds on real photographs, and that it can fail."""

import math

import pytest
import torch
from rich.console import Console

from dcae_bench.base.errors import CheckError
from dcae_bench.cli.main import main
from dcae_bench.data.crops import eval_crops
from dcae_bench.data.packed import Photos
from dcae_bench.data.photos import load_manifest, read_photo
from dcae_bench.evaluation import sanity as module
from dcae_bench.evaluation.protocols import PHOTOS_V1
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
from dcae_bench.evaluation.sanity import (
    QUALITIES,
    CheckedSet,
    RearrangedCrops,
    jpeg,
    measure_in_processes,
    measure_invariance,
    measure_ladder,
)
from dcae_bench.evaluation.suite import Suite
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.processes import Worker
from dcae_bench.tables.sanity import check_ladder, check_variants, page, relative_differences


def test_jpeg_ladder_of_photographs_holds_with_the_embedded_networks(make_crops, tmp_path):
    photos = load_manifest("photos-mixed").split("eval")[:5]
    crops = make_crops(eval_crops(Photos([read_photo(photo) for photo in photos], [p.name for p in photos]), 2, 0, 96))
    evaluator = ReconstructionEvaluator(Suite.load(PHOTOS_V1, torch.device("cpu")), batch_size=5)
    found = measure_ladder(evaluator, crops, tmp_path, Console(quiet=True))
    assert list(found) == ["identity", *(f"JPEG {quality}" for quality in QUALITIES)]
    variants = measure_invariance(evaluator, crops, tmp_path, Console(quiet=True))
    assert len(check_variants(variants)) == 4
    checks = [*check_ladder(found), *check_variants(variants)]
    assert [check.claim for check in checks if not check.holds] == []
    assert len(checks) == 12
    shown = page(found, variants, checks, "about")
    assert "| JPEG 10" in shown and "**no**" not in shown


@pytest.mark.parametrize(
    ("name", "key", "value", "claim"),
    [
        ("identity", "rfd", 0.5, "rfd of the identity is 0 within 1e-06 of the last rung's"),
        ("identity", "psnr", 90.0, "psnr of the identity is infinite"),
        ("identity", "ssim", 0.999, "ssim of the identity is 1 within 1e-06"),
        ("JPEG 50", "rfd", 0.5, "rfd rises with every rung"),
        ("JPEG 50", "psnr", 41.0, "psnr falls with every rung"),
    ],
)
def test_a_violation_is_found_and_shown(name, key, value, claim):
    sound = {
        "identity": {"rfd": 0.0, "psnr": math.inf, "ssim": 1.0},
        "JPEG 75": {"rfd": 1.0, "psnr": 40.0, "ssim": 0.9},
        "JPEG 50": {"rfd": 2.0, "psnr": 30.0, "ssim": 0.8},
    }
    assert all(check.holds for check in check_ladder(sound))
    rounded = {**sound, "identity": {"rfd": 3.6e-15, "psnr": math.inf, "ssim": 1 - 1e-12}}
    assert all(check.holds for check in check_ladder(rounded)), "another processor rounds otherwise"
    broken = {**sound, name: {**sound[name], key: value}}
    failed = [check.claim for check in check_ladder(broken) if not check.holds]
    assert claim in failed
    assert "**no**" in page(broken, sound, check_ladder(broken), "about")


def test_jpeg_of_high_quality_stays_close():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4), 32, mode="bicubic").clamp(0, 1)
    images = (smooth * 255).to(torch.uint8)
    close = (jpeg(95)(images, range(2)).int() - images.int()).abs().float().mean()
    far = (jpeg(10)(images, range(2)).int() - images.int()).abs().float().mean()
    assert close < far and close < 6


def test_a_score_that_moves_with_the_batch_is_found():
    variants = {"batches of 16": {"rfd": 2.0, "psnr": 30.0}, "batches of 1": {"rfd": 2.001, "psnr": 30.0}}
    (check,) = check_variants(variants)
    assert not check.holds and check.numbers == "apart by 5.0e-04"
    assert relative_differences(variants)["batches of 1"] == {"rfd": pytest.approx(5e-4), "psnr": 0.0}


def test_reversed_crops_are_the_same_ones(make_crops, images):
    crops = make_crops(images)
    backwards = RearrangedCrops(crops, range(20)[::-1], "reversed")
    assert [backwards.key(i) for i in range(20)] == [crops.key(i) for i in reversed(range(20))]
    assert torch.equal(backwards[0], images[-1]) and torch.equal(backwards[19], images[0])
    assert backwards.sha256 != crops.sha256


def test_the_first_images_can_be_checked_alone(tiny):
    profile = load_profile(tiny.folder / "tiny.yaml")
    whole, part = (CheckedSet(profile, profile.evaluation.sets[0], tiny.folder / "data", n).crops() for n in (None, 5))
    assert (len(whole), len(part)) == (14, 5) and part.sha256 != whole.sha256
    assert [part.key(index) for index in range(5)] == [whole.key(index) for index in range(5)]
    with pytest.raises(IndexError):
        part[5]


@pytest.mark.long
def test_processes_are_measured_beside_one(server, tiny, tmp_path):
    """Real gloo processes on real networks; 5 images in batches of 2 are shared out unevenly."""
    profile = load_profile(tiny.folder / "tiny.yaml")
    checked = CheckedSet(profile, profile.evaluation.sets[0], tiny.folder / "data", images=5)
    variants = measure_invariance(checked.evaluator(Worker()), checked.crops(), tmp_path, Console(quiet=True))
    variants |= measure_in_processes(checked, tmp_path, Console(quiet=True), counts=(2,), context=server)
    assert list(variants)[-1] == "2 processes" and not list(tmp_path.glob(".sanity*"))
    (*_, check) = check_variants(variants)
    assert check.claim.startswith("the scores of 2 processes") and check.holds
    broken = CheckedSet(profile, profile.evaluation.sets[0], tmp_path / "nowhere", images=5)
    with pytest.raises(CheckError, match="cannot be measured by 2 processes, one ended with exit code 1"):
        measure_in_processes(broken, tmp_path, Console(quiet=True), counts=(2,), context=server)


def test_one_command_writes_the_page_and_fails_where_a_check_does(tiny, monkeypatch, capsys):
    """Of noise, whose ladder is not monotone. The processes, which take seconds to start, have their test above."""
    page = tiny.folder / "sanity.md"
    monkeypatch.setattr(module, "measure_in_processes", lambda *_: {"2 processes": {"psnr": 1.0}})
    options = [*tiny.options[:2], "--data", tiny.folder / "data", "--output", page, "--images", 12]
    monkeypatch.setattr("sys.argv", ["dcae-bench", "sanity", *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    # The first number in the brackets is 0 up to rounding.
    assert f"{page}: rfd_efficientnet_lite0 rises with every rung does not hold (" in line
    shown = page.read_text()
    assert "on the first 12 crops of photos-indoor-32" in shown
    assert "| psnr of the identity is infinite " in shown and "| reversed order " in shown
    (processes,) = [line for line in shown.splitlines() if line.startswith("| the scores of 2 processes")]
    assert "**no**" in processes
