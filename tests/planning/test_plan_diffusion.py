"""Estimates of the diffusion part against closed forms, real files, and what the authors measured."""

import re

import numpy as np
import pytest
import torch

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.costs.passes import AutoencoderPasses, DenoiserPass, PassCost, _Live, autoencoder_passes
from dcae_bench.costs.step import denoiser_step_cost, training_bytes
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.generation.sample import sample_images
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.cost import denoiser_cost
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.planning.diffusion import DiffusionEstimator
from dcae_bench.planning.estimate import Estimator
from dcae_bench.planning.plan import GIB
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import all_targets, needs_of
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.profile.profile import load_profile
from dcae_bench.specs.denoisers import LatentSpace
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion as tiny
from tests.planning.measured import measured

F32 = LatentSpace(channels=32, side=16)
F64 = LatentSpace(channels=128, side=8)


@pytest.fixture
def known(monkeypatch):
    """Passes of round numbers, so that sums can be written down."""
    one = PassCost(mac=3e9, peak_bytes=5e6)
    two = PassCost(mac=7e9, peak_bytes=2e6)
    where = "dcae_bench.planning.diffusion."
    monkeypatch.setattr(
        where + "autoencoder_passes", lambda *_: AutoencoderPasses(encode=one, decode=two, parameters=10**6)
    )
    monkeypatch.setattr(where + "denoiser_pass", lambda _: DenoiserPass(mac=11e9, peak_bytes=1e6, parameters=10**7))


def part(profile, **changes):
    return profile.model_copy(update={"diffusion": profile.diffusion.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("dtype", "images", "gib", "at_once"),
    [
        ("float32", "imagenet-512", 1_281_167 * (4 * 64**2 * 4 + 8), 64),
        ("float16", "ffhq-1024", 60_000 * (4 * 128**2 * 2 + 8), 16),
    ],
)
def test_the_disk_of_latents_is_exact(paper, known, dtype, images, gib, at_once):
    data = {images: paper.diffusion.data[images].model_copy(update={"dtype": dtype})}
    estimator = DiffusionEstimator(part(paper, data=data), Rates.read())
    row = estimator.encoding("sd-vae-ft-ema@released", images)
    assert row.disk_gib == (gib + 256) / GIB
    count = {"imagenet-512": 1_281_167, "ffhq-1024": 60_000}[images]
    assert row.gpu_hours == pytest.approx(2 * 3e9 * count / (67e12 * 0.4) / 3600)
    assert row.memory_gib == (10**6 * 4 + at_once * 5e6) / GIB
    flipped = part(paper, data={images: data[images].model_copy(update={"flips": True})})
    twice = DiffusionEstimator(flipped, Rates.read()).encoding("sd-vae-ft-ema@released", images)
    assert twice.gpu_hours == 2 * row.gpu_hours and twice.disk_gib - 256 / GIB == 2 * (row.disk_gib - 256 / GIB)


def test_files_of_a_real_pass_have_the_planned_size(tmp_path):
    profile, data = tiny.profile(), tiny.write_data(tmp_path / "data")
    weights = tiny.write_weights(tmp_path / "sd-vae.safetensors")
    row = profile.diffusion.rows["uvit"]
    latents = tmp_path / "latents"
    encode_dataset(profile, row.latent, row.data, data=data, output=latents, weights=weights)
    state = build_denoiser(profile.row("uvit").denoiser, seed=0).state_dict()
    save_weights(state, tmp_path / "model.safetensors", trained=TrainedWeights(kind="denoiser", name="uvit"))
    options = {"weights": tmp_path / "model.safetensors", "latents": latents, "autoencoder": weights}
    sample_images(profile, "uvit", output=tmp_path / "samples", **options)
    estimator = DiffusionEstimator(profile, Rates.read())
    # How many photographs there are is the pack's; the embedded sets know it without one.
    count = len(np.load(latents / "labels.npy"))
    estimator.count_images = lambda data: count
    for folder, planned in (
        (latents, estimator.encoding(row.latent, row.data)),
        (tmp_path / "samples", estimator.sampling("uvit", [1.0])),
    ):
        found = sum(path.stat().st_size for path in folder.glob("*.npy"))
        assert planned.disk_gib * GIB == pytest.approx(found, abs=0.5)


def test_the_demo_counts_the_windows_of_its_packs(demo):
    data = demo.diffusion.data["photos-128"]
    assert DiffusionEstimator(demo, Rates.read()).count_images(data) == (29 + 46) * 16


@pytest.mark.parametrize("size", ["uvit-s", "dit-s"])
def test_a_step_costs_three_passes_and_recomputation_makes_it_four(size):
    spec = denoiser_catalogue().architecture(size).on(F64, 1000)
    cost, known = denoiser_step_cost(spec, "bf16"), denoiser_cost(spec)
    assert cost.forward_mac / 1e9 == pytest.approx(known.gmacs, rel=1e-12)
    assert cost.backward_mac / cost.forward_mac == pytest.approx(2, rel=0.01)
    assert cost.recompute_mac / cost.forward_mac == pytest.approx(1, rel=0.01)
    assert (cost.trained, cost.parameters) == (known.parameters, known.all_parameters)


def test_hours_of_uvit_h_at_f64(paper, known):
    name = "uvit-h-dc-ae-f64-p1"
    row, weights = (
        DiffusionEstimator(paper, Rates.read()).training(name),
        4 * denoiser_cost(paper.row(name).denoiser).parameters,
    )
    # 33.25 GMAC; three passes and one computed again; 512 million images at 0.37 of 989 TFLOP/s.
    assert row.gpu_hours == pytest.approx(2 * 4 * 33.25e9 * 512e6 / (0.37 * 989e12) / 3600, rel=0.01)
    previews = 512_000_000 // 5_120_000 * 4 * 3 * 512**2
    assert row.disk_gib == (weights + previews) / GIB
    assert row.unfinished_gib == 2 * 4 * weights / GIB, "weights, average and two moments, once more while written"
    longer = DiffusionEstimator(paper, Rates.read()).training("uvit-h-dc-ae-f64-p1-2000k")
    assert longer.gpu_hours == pytest.approx(4 * row.gpu_hours) and longer.memory_gib == row.memory_gib


@pytest.mark.parametrize(("latent", "reported"), [(F32, 42.0), (F64, 30.2)], ids=["f32", "f64"])
def test_memory_is_near_what_the_authors_measured(latent, reported):
    """UViT-2B at batch 256 in fp16 with checkpointing and without an average of the weights, in GB."""
    cost = denoiser_step_cost(denoiser_catalogue().architecture("uvit-2b").on(latent, 1000), "fp16")
    planned = training_bytes(cost, 256, "fp16", ExecutionSpec(checkpoint_activations=True)) - 4 * cost.parameters
    assert planned / 1e9 == pytest.approx(reported, rel=0.12)


def test_what_autocast_copies_does_not_grow_with_the_batch():
    spec = denoiser_catalogue().architecture("uvit-s").on(F64, 1000)
    full, half = denoiser_step_cost(spec, "fp32"), denoiser_step_cost(spec, "bf16")
    assert half.kept_bytes < full.kept_bytes < 2 * half.kept_bytes


def test_samples_take_two_passes_where_they_are_guided(paper, known):
    estimator = DiffusionEstimator(paper, Rates.read())

    def hours(drawn, decoded):
        return (2 * drawn * 11e9 / (67e12 * 0.5) + 2 * decoded * 7e9 / (67e12 * 0.4)) / 3600

    uvit = estimator.sampling("uvit-h-dc-ae-f64-p1", [1.0, 1.5])
    assert uvit.jobs == 2 and uvit.gpu_hours == pytest.approx(hours(50_000 * 30 * 3, 100_000))
    assert uvit.disk_gib == 2 * (50_000 * (3 * 512**2 + 8) + 256) / GIB
    assert uvit.memory_gib == (1.1e7 * 4 + 64 * 2e6) / GIB
    plain = estimator.sampling("dit-xl-dc-ae-f32-p1", [1.0])
    assert plain.gpu_hours == pytest.approx(hours(50_000 * 250, 50_000))
    adaptive = estimator.sampling("usit-h-dc-ae-f32-p1", [1.0])
    assert adaptive.gpu_hours == pytest.approx(hours(50_000 * 120, 50_000))
    assert any(line.startswith("dopri5: 120 NFE (stated") for line in estimator.rates.used)


def test_originals_are_looked_at_once_for_all_rows(paper):
    estimator = DiffusionEstimator(paper, Rates.read())
    first, second = (estimator.evaluation("uvit-h-dc-ae-f64-p1", 2, reference=first) for first in (True, False))
    assert first.gpu_hours == pytest.approx((100_000 + 1_281_167) / 150 / 3600)
    assert second.gpu_hours == pytest.approx(100_000 / 150 / 3600)


def test_mirror_images_have_latents_but_are_no_reference(demo):
    estimator = DiffusionEstimator(demo, Rates.read())
    data = demo.diffusion.data["photos-128"]
    flipped = data.model_copy(update={"flips": True})
    assert estimator.count_latents(flipped) == 2 * estimator.count_latents(data)
    assert estimator.count_images(flipped) == estimator.count_images(data)


def test_images_of_a_split_that_is_not_there(paper):
    data = paper.diffusion.data["mjhq-1024"].model_copy(update={"split": "train"})
    with pytest.raises(DataError, match="train"):
        DiffusionEstimator(paper, Rates.read()).count_images(data)


def test_memory_of_a_pass_is_what_lives_at_once():
    layers = torch.nn.Sequential(
        torch.nn.Linear(8, 100), torch.nn.ReLU(), torch.nn.Linear(100, 50), torch.nn.Linear(50, 1)
    )
    x = torch.zeros(1, 8)
    with torch.no_grad(), _Live(layers) as live:
        layers(x)
    assert live.peak == 200 * 4  # of the ReLU, 100 numbers in and 100 out
    assert live.now <= 8


def test_memory_and_work_of_an_autoencoder_grow_with_its_pixels(paper):
    small, large = (
        autoencoder_passes(paper.latent_autoencoder("dc-ae-f64c128-mix-1.0@released"), r) for r in (256, 512)
    )
    assert large.decode.peak_bytes == pytest.approx(4 * small.decode.peak_bytes, rel=0.2)
    assert large.encode.mac == pytest.approx(4 * small.encode.mac, rel=0.05)


@pytest.fixture
def counted_once(demo, monkeypatch):
    """An estimator whose counts do not matter."""
    cost = denoiser_step_cost(demo.row("uvit-nano-dc-ae-f64c128").denoiser, "fp32")
    monkeypatch.setattr("dcae_bench.planning.estimate.step_cost", lambda *_: cost)
    monkeypatch.setattr("dcae_bench.planning.diffusion.denoiser_step_cost", lambda *_: cost)
    monkeypatch.setattr("dcae_bench.planning.estimate.forward_mac", lambda *_: 1.0)


def jobs(profile, *targets):
    rows = Estimator(profile, Rates.read()).plan(*targets).rows
    return {rule: sum(row.jobs for row in rows if row.rule == rule) for rule in dict.fromkeys(row.rule for row in rows)}


def test_every_rule_of_the_diffusion_part_has_a_line(demo, known, counted_once):
    """The names of rules are the plan's; tests/workflow compares the numbers of jobs with a dry run."""
    rules = re.findall(r"^rule (\w+):", (REPOSITORY / "workflow" / "rules" / "diffusion.smk").read_text(), re.M)
    found = jobs(demo, "results/table_diffusion.md")
    drawn = [rule for rule in rules if not rule.startswith(("table", "figure", "guidance_sweep", "check"))]
    assert drawn and set(drawn) < found.keys()
    assert found == {
        "prepare": 2,
        "train": 12,
        "encode": 4,
        "train_diffusion": 8,
        "sample": 14,
        "evaluate_samples": 14,
        "table": 1,
    }


@pytest.mark.long
def test_targets_choose_the_jobs(demo, paper, known, counted_once):
    root = "results/demo"
    assert jobs(demo, f"{root}/latent-cache/dc-ae-f32c32@retrained/photos-128/latents.npy") == {
        "prepare": 2,
        "train": 3,
        "encode": 1,
    }
    row = "uvit-nano-dc-ae-f32c32"
    before = {"prepare": 2, "train": 3, "encode": 1, "train_diffusion": 1}
    assert jobs(demo, f"{root}/diffusion/{row}/model.safetensors") == before
    assert jobs(demo, f"{root}/samples/{row}/s1.5/samples.npy") == {**before, "sample": 1}
    two = [f"{root}/generation/{row}/s{scale}.json" for scale in (1, 2)]
    assert jobs(demo, *two) == {**before, "sample": 2, "evaluate_samples": 2}
    assert jobs(demo, "results/figures/samples.png")["sample"] == 8
    assert "sample" not in jobs(demo, "results/figures/diffusion_loss.png")
    whole = jobs(demo, *all_targets(demo))
    assert whole["table"] == 5 and whole["train"] == 14 + 42, "what two targets need is done once"
    wrong_scales = [f"{root}/generation/{row}/s{scale}.json" for scale in ("x", "-1", "nan", "1e3")]
    for wrong in (*wrong_scales, f"{root}/diffusion/other/model.safetensors"):
        with pytest.raises(
            ConfigError, match=r"is nothing that a plan of profile demo counts; take all, results/table_diffusion\.md"
        ):
            needs_of(demo, wrong)
    with pytest.raises(ConfigError, match="take all, results/table_rfid"):
        needs_of(load_profile("sweep"), "results/table_diffusion.md")


def test_the_paper_plan_downloads_what_its_rows_need(paper, known, counted_once):
    plan = Estimator(paper, Rates.read()).plan("results/table_diffusion.md")
    fetched = {row.subject: row.download_gib for row in plan.rows if row.rule == "fetch"}
    assert fetched["dc-ae-f64c128-in-1.0"] == 676_896_140 * 4 / GIB
    assert {latent.split("@")[0] for latent, _ in needs_of(paper, plan.targets[0]).encodings} | {"inception"} == set(
        fetched
    )
    assert {row.subject for row in plan.rows if row.rule == "prepare"} == {
        "imagenet",
        "ffhq",
        "mjhq",
        "mapillary-vistas",
    }
    trained = [row.subject for row in plan.rows if row.rule == "train_diffusion"]
    assert trained == list(paper.diffusion.rows)
    assert any("samples are compared with all images" in line for line in plan.assumptions)
    assert not any(
        "samples are" in line for line in Estimator(paper, Rates.read()).plan("results/figures/losses.png").assumptions
    )


def test_released_denoisers_cost_samples_and_downloads(known, counted_once):
    released = load_profile("released")
    plan = Estimator(released, Rates.read()).plan("results/table_diffusion.md")
    found = {rule: sum(row.jobs for row in plan.rows if row.rule == rule) for rule in {row.rule for row in plan.rows}}
    assert found == {"prepare": 1, "fetch": 11 + 2 + 1, "sample": 22, "evaluate_samples": 22, "table": 1}
    fetched = {row.subject: row.download_gib for row in plan.rows if row.rule == "fetch"}
    name = "dc-ae-f64c128-in-1.0-uvit-h-in-512px"
    assert fetched[name] == (500_868_992 + 676_896_140) * 4 / GIB
    assert fetched["dc-ae-f64c128-in-1.0"] == 676_896_140 * 4 / GIB and "dc-ae-f32c32-in-1.0-dit-xl-in-512px" in fetched
    (sample,) = [row for row in plan.rows if (row.rule, row.subject) == ("sample", "uvit-h-dc-ae-f64-p1")]
    twin = DiffusionEstimator(load_profile("paper"), Rates.read()).sampling("uvit-h-dc-ae-f64-p1", [1.0, 1.5])
    assert (sample.memory_gib, sample.disk_gib) == (twin.memory_gib, twin.disk_gib) and sample.gpu_hours > 0
    assert any("samples are compared with all images" in line for line in plan.assumptions)
    one = jobs(released, "results/released/check/generation/usit-h-dc-ae-f32-p1/s1.2.json")
    assert one == {"prepare": 1, "fetch": 3, "sample": 1, "evaluate_samples": 1}
    assert jobs(released, "results/released/samples/usit-h-dc-ae-f32-p1/s1.2/samples.npy") == {"fetch": 2, "sample": 1}
    for wrong in ("results/released/diffusion/usit-h-dc-ae-f32-p1/record.json", "results/figures/diffusion_loss.png"):
        with pytest.raises(ConfigError, match="nothing that a plan of profile released counts"):
            needs_of(released, wrong)


def test_a_measured_speed_goes_before_the_stated_rate(demo, known, counted_once):
    name = "uvit-nano-dc-ae-f32c32"
    denoiser = {"row": name, "name": "uvit-nano", "family": "uvit", "process": "vp", "patch": 1, "tokens": 16}
    denoiser |= {"classes": 2, "parameters": 1, "gmacs": 1.0, "weights_sha256": "0"}
    # The resolution is that of phase 3, which the record does not speak of.
    side = demo.training.phases[3].resolution
    record = measured("diffusion_training", "dc-ae-f32c32", phase=3, resolution=side, denoiser=denoiser)
    estimator = Estimator(demo, Rates.read(), [record])
    row = estimator.diffusion.training(name)
    assert row.cpu_hours == pytest.approx(12_800 / 20 / 3600) and row.source == "measured on a processor"
    assert estimator.diffusion.training(f"{name.replace('f32c32', 'f64c128')}").source == "stated"
    assert estimator.training("dc-ae-f32c32", 3).source == "stated"
