"""The denoisers that the committed profiles train."""

from collections import Counter

import pytest

from dcae_bench.models.cost import denoiser_cost
from dcae_bench.profile.profile import load_profile
from dcae_bench.profile.recipes import diffusion_recipe
from dcae_bench.tables.reported.generation import load_reported_generation


@pytest.fixture(scope="module")
def demo():
    return load_profile("demo")


def cost(profile, name):
    resolved = profile.row(name)
    return resolved.spec.images * denoiser_cost(resolved.denoiser).gmacs


def test_the_demo_compares_at_equal_images_and_at_equal_flops(demo):
    rows = demo.diffusion.rows
    assert {row.source.autoencoder for row in rows.values()} == {
        name for name in demo.autoencoders if not demo.is_fitted(name)
    }
    costs = {name: cost(demo, name) for name in rows}
    for sd, dc in ((name, name.replace("sd-vae", "dc-ae")) for name in rows if "sd-vae" in name):
        assert rows[sd].images == rows[dc].images and costs[sd] == costs[dc]
    base = rows["uvit-nano-dc-ae-f32c32"].images, costs["uvit-nano-dc-ae-f32c32"]
    assert rows["uvit-nano-dc-ae-f64c128"].images == base[0]
    assert costs["uvit-nano-dc-ae-f64c128-equal-flops"] == pytest.approx(base[1], rel=2e-3)
    assert costs["uvit-nano-dc-ae-f64c128"] < base[1] / 2
    assert all(demo.row(name).denoiser.classes == 2 for name in rows)


def test_the_papers_rows_have_its_tokens_and_lengths():
    paper = load_profile("paper")
    rows = {name: paper.row(name) for name in paper.diffusion.rows}
    tokens = {name: resolved.denoiser.latent.tokens for name, resolved in rows.items()}
    for name, wanted in {
        "uvit-s-sd-vae-f8-p2": 1024,
        "uvit-s-flux-vae-p2": 1024,
        "uvit-s-ldm-f16-p2": 256,
        "uvit-s-ldm-f32-p1": 256,
        "dit-xl-dc-ae-f32-p1": 256,
        "uvit-s-sd-vae-f8-p8": 64,
        "uvit-s-ldm-f16-p4": 64,
        "uvit-s-ldm-f32-p2": 64,
        "uvit-s-dc-ae-f64-p1": 64,
        "dit-s-dc-ae-f32-p1-ffhq-1024": 1024,
        "dit-s-dc-ae-f64-p1-mapillary-vistas-2048": 1024,
    }.items():
        assert tokens[name] == wanted, name
    steps = {name: resolved.steps for name, resolved in rows.items()}
    assert steps["uvit-h-dc-ae-f64-p1"] == 500_000 and steps["uvit-h-dc-ae-f64-p1-2000k"] == 2_000_000
    assert steps["dit-xl-dc-ae-f32-p1"] == steps["dit-xl-dc-ae-f32-p1-batch-1024"] == 3_000_000
    scales = {name: resolved.guidance[-1].scale for name, resolved in rows.items()}
    assert scales["uvit-h-dc-ae-f64-p1"] == 1.5 and scales["dit-xl-dc-ae-f32-p1"] == 1.3
    assert scales["usit-h-dc-ae-f32-p1"] == 1.2 and scales["usit-2b-dc-ae-f32-p1"] == 1.15
    classes = {resolved.spec.data: resolved.denoiser.classes for resolved in rows.values()}
    assert classes == {"imagenet-512": 1000, "ffhq-1024": None, "mjhq-1024": 10, "mapillary-vistas-2048": None}
    assert paper.largest_resolution("mjhq", "train") is None and paper.largest_resolution("mjhq", "eval") is not None
    assert paper.largest_resolution("mapillary-vistas", "train") == 2048
    assert rows["uvit-h-dc-ae-f64-p1"].training.optimizer.warmup_images == 5000 * 1024


NO_ROW = {
    "pixart-alpha": "text to image",
    "asymmetric-vae": "not in v1 of the paper, and recalled alone",
}


def test_every_row_of_the_paper_profile_is_a_reported_one_and_the_other_way_round():
    paper = load_profile("paper")
    ours = [paper.row(name) for name in paper.diffusion.rows]
    mine = Counter(
        (
            resolved.spec.denoiser,
            resolved.process,
            resolved.spec.source.autoencoder,
            resolved.spec.patch,
            *resolved.data.datasets,
            resolved.data.resolution,
            (resolved.spec.images, resolved.training.batch_size),
        )
        for resolved in ours
    )
    assert max(mine.values()) == 1, "no row is trained twice"
    settings = {key[:-1] for key in mine}
    reported = {
        (row.denoiser, row.process, row.autoencoder, row.patch, row.dataset, row.resolution): row
        for row in load_reported_generation()
        if row.denoiser not in NO_ROW and row.autoencoder not in NO_ROW
    }
    assert settings == reported.keys()
    for resolved in ours:
        key = (resolved.spec.denoiser, resolved.process, resolved.spec.source.autoencoder, resolved.spec.patch)
        row = reported[(*key, *resolved.data.datasets, resolved.data.resolution)]
        assert resolved.denoiser.latent.tokens == row.tokens
        # A guided value is reported wherever samples are drawn with guidance, in rows with any value.
        guided = any(not guidance.plain for guidance in resolved.guidance)
        assert not row.metrics or guided == ("gfid_cfg" in row.metrics)
        if row.guidance is not None:
            assert [guidance.scale for guidance in resolved.guidance] == [1, row.guidance]


def test_the_full_size_autoencoders_have_a_uvit_s_on_their_latents():
    profile = load_profile("full-size")
    rows = [profile.row(name) for name in profile.diffusion.rows]
    assert {resolved.spec.source.autoencoder for resolved in rows} == set(profile.autoencoders)
    assert all(resolved.spec.denoiser == "uvit-s" and resolved.spec.source.weights == "retrained" for resolved in rows)
    assert [resolved.denoiser.latent.tokens for resolved in rows] == [64, 16]


COMMON = {"ema": (0.9999, 2000), "label_dropout": 0.1, "decay_all": True, "clip": None, "checkpointing": True}
TRAININGS = {  # the authors' commands: batch, rate, decay, betas, steps of warm-up, precision, scales, sampler
    "uvit": ("vp", 1024, 2e-4, 0.03, (0.99, 0.99), 5000, "bf16", [1, 1.5], {"name": "dpm-solver", "nfe": 30}),
    "dit": ("learned-range", 256, 1e-4, 0, (0.9, 0.999), 0, "fp16", [1, 1.3], {"name": "ddpm", "steps": 250}),
    "dit-batch-1024": (
        "learned-range",
        1024,
        2e-4,
        0,
        (0.9, 0.999),
        0,
        "fp16",
        [1, 1.3],
        {"name": "ddpm", "steps": 250},
    ),
    "usit": (
        *("flow", 1024, 1e-4, 0, (0.99, 0.99), 5000, "bf16", [1, 1.2]),
        {"name": "dopri5", "atol": 1e-6, "rtol": 1e-3, "step_control": "sample"},
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_papers_trainings_are_the_authors_commands(name):
    spec = load_profile("paper").diffusion.trainings[name]
    adamw, scales = spec.optimizer, [guidance.scale for guidance in spec.guidance]
    assert (
        *(spec.process, spec.batch_size, adamw.lr, adamw.weight_decay, adamw.betas),
        *(adamw.warmup_images / spec.batch_size, spec.precision, scales, spec.chosen_sampler.model_dump()),
    ) == TRAININGS[name]
    assert {
        "ema": (spec.ema.decay, spec.ema.warmup_steps),
        "label_dropout": spec.label_dropout,
        "decay_all": adamw.decay_all,
        "clip": adamw.clip_norm,
        "checkpointing": spec.execution.checkpoint_activations,
    } == COMMON


def test_a_recipe_holds_what_shapes_the_weights_and_nothing_else(demo):
    def changed(**training):
        spec = demo.diffusion.trainings["uvit"].model_copy(update=training)
        return demo.model_copy(update={"diffusion": demo.diffusion.model_copy(update={"trainings": {"uvit": spec}})})

    name = "uvit-nano-dc-ae-f32c32"
    base = diffusion_recipe(demo, name)
    assert diffusion_recipe(changed(guidance=(), previews=0), name) == base
    for shaping in ({"label_dropout": 0.2}, {"batch_size": 16}, {"process": "flow"}, {"precision": "bf16"}):
        assert diffusion_recipe(changed(**shaping), name) != base, shaping
    assert diffusion_recipe(demo, "uvit-nano-sd-vae-f32c32") != base
