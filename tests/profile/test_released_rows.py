"""Rows of a profile that name a released denoiser."""

import copy

import pytest

from dcae_bench.base.errors import ConfigError
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.profile.profile import Profile, load_profile, parse_profile
from dcae_bench.profile.recipes import diffusion_recipe, sampling_recipe
from dcae_bench.profile.rows import ReleasedRow, TrainedRow
from dcae_bench.specs.diffusion import GuidanceSpec
from dcae_bench.tables.reported.generation import load_reported_generation

NAME = "dc-ae-f64c128-in-1.0-uvit-h-in-512px"


PRINTED = denoiser_catalogue().denoisers.keys() - {"dc-ae-f32c32-in-1.0-sit-xl-in-512px"}
"""Released denoisers of which the authors print a result."""


@pytest.fixture(scope="module")
def released():
    return load_profile("released")


@pytest.fixture
def refused(released):
    """The one line that refuses the released profile with another row; ``data`` change its images."""
    content = released.model_dump(mode="json", exclude_defaults=True)

    def refuse(row, **data) -> str:
        changed = copy.deepcopy(content)
        changed["diffusion"]["rows"]["r"] = row
        changed["diffusion"]["data"]["imagenet-512"] |= data
        with pytest.raises(ConfigError) as caught:
            parse_profile(changed, "some.yaml")
        message = str(caught.value)
        assert message.startswith("some.yaml: ") and "\n" not in message and "(released row)" not in message
        return message

    return refuse


def test_the_catalogue_states_everything_but_the_images(released):
    resolved = released.row("usit-2b-dc-ae-f32-p1")
    assert isinstance(resolved, ReleasedRow) and resolved.process == "flow" and resolved.sampler.name == "dopri5"
    assert [guidance.scale for guidance in resolved.guidance] == [1, 1.15]
    assert resolved.denoiser == denoiser_catalogue().spec("dc-ae-f32c32-in-1.0-usit-2b-in-512px")
    assert (resolved.spec.latent, resolved.spec.patch, resolved.spec.denoiser) == (
        "dc-ae-f32c32-in-1.0@released",
        1,
        "uvit-2b",
    )
    assert resolved.scaling.factor == 0.3189 and released.row("uvit-h-dc-ae-f64-p1").scaling.factor == 0.2889
    assert (
        released.row("dit-xl-dc-ae-f32-p1").sampler.steps == 250
        and released.row("uvit-s-dc-ae-f32-p1").sampler.nfe == 30
    )


def test_the_released_profile_has_every_released_denoiser_under_the_name_of_its_retrained_one(released):
    paper = load_profile("paper")
    rows = {name: released.row(name) for name in released.diffusion.rows}
    assert {resolved.spec.released for resolved in rows.values()} == PRINTED and len(PRINTED) == 11
    for name, resolved in rows.items():
        twin = paper.row(name)
        assert isinstance(twin, TrainedRow) and resolved.denoiser == twin.denoiser and resolved.process == twin.process
        assert (resolved.sampler, resolved.guidance, resolved.spec.latent) == (
            twin.sampler,
            twin.guidance,
            twin.spec.latent,
        )
        # A shift concerns the cached latents, which the retrained rows alone have.
        assert resolved.data == twin.data.model_copy(update={"shift": True})
    ours, theirs = released.diffusion, paper.diffusion
    assert (ours.samples, ours.seed_policy, ours.sample_batch) == (
        theirs.samples,
        theirs.seed_policy,
        theirs.sample_batch,
    )
    assert released.largest_resolution("imagenet", "train") == 512
    assert released.largest_resolution("imagenet", "eval") is not None


def test_every_released_denoiser_answers_one_reported_row(released):
    rows = [row for row in load_reported_generation() if row.released]
    assert sorted(row.released for row in rows) == sorted(PRINTED)
    for row in rows:
        preset = denoiser_catalogue().preset(row.released)
        theirs = (preset.architecture, preset.process, preset.autoencoder, preset.patch, preset.resolution)
        assert (row.denoiser, row.process, row.autoencoder, row.patch, row.resolution) == theirs
        assert row.guidance == preset.guidance.scale and "gfid_cfg" in row.metrics
        assert ("2M steps" in row.label) == row.released.endswith("2000k")
        assert ("batch 1024" in row.label) == row.released.endswith("bs1024")


def test_guidance_may_be_overridden(released):
    row = {"released": NAME, "data": "imagenet-512", "guidance": [{"w": 2}]}
    content = released.model_dump(mode="json", exclude_defaults=True)
    content["diffusion"]["rows"] = {"r": row}
    profile = parse_profile(content, "some.yaml")
    assert [guidance.scale for guidance in profile.row("r").guidance] == [3]


def test_a_sampling_recipe_holds_the_weights_name_and_their_scale(released):
    def recipe(name):
        return sampling_recipe(released, name, GuidanceSpec(s=1))

    assert recipe("uvit-h-dc-ae-f64-p1")["released"] == NAME
    assert recipe("uvit-h-dc-ae-f64-p1")["scaling"]["factor"] == 0.2889
    assert recipe("uvit-h-dc-ae-f64-p1") != recipe("uvit-h-dc-ae-f64-p1-2000k")
    trained = sampling_recipe(load_profile("demo"), "uvit-nano-dc-ae-f32c32", GuidanceSpec(s=1))
    assert "released" not in trained and "scaling" not in trained, "or trained rows would be sampled again"


def test_a_released_row_is_not_trained(released):
    for call in (Profile.trained_row, diffusion_recipe):
        with pytest.raises(ConfigError, match=rf"its weights are released \({NAME}\).*dcae-bench sample"):
            call(released, "uvit-h-dc-ae-f64-p1")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"released": NAME, "data": "imagenet-512", "denoiser": "uvit-h", "training": "uvit"},
            "'diffusion.rows.r' has 'released', whose weights state 'denoiser', 'training' themselves",
        ),
        ({"released": NAME.replace("128", "64"), "data": "imagenet-512"}, f"did you mean {NAME}"),
        ({"released": NAME, "data": "imagenet"}, "row r has data 'imagenet'; there are imagenet-512"),
        ({"released": NAME}, "key 'diffusion.rows.r.data' is missing"),
        (
            {"released": NAME, "data": "imagenet-512", "guidence": []},
            "'diffusion.rows.r.guidence' (value []); did you mean",
        ),
        ({"release": NAME, "data": "imagenet-512"}, "unknown key 'diffusion.rows.r.release'"),
        ({"released": NAME, "data": "imagenet-512", "guidance": []}, "'diffusion.rows.r.guidance' is []"),
        ([], "'diffusion.rows.r' is []"),
    ],
)
def test_a_wrong_row_is_one_line(refused, row, words):
    assert words in refused(row)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            {"resolution": 256},
            "have 256 px, but dc-ae-f32c32-in-1.0-uvit-s-in-512px was trained on 512 px; name other data",
        ),
        ({"classes": 10}, "have 10 classes, but"),
        ({"labels": None, "classes": None}, "have no classes, but"),
    ],
)
def test_images_that_the_weights_do_not_fit(refused, data, words):
    assert words in refused({"released": NAME, "data": "imagenet-512"}, **data)


def test_a_profile_that_trains_a_denoiser_needs_its_training(refused):
    row = {"denoiser": "uvit-h", "latent": "dc-ae-f64c128-in-1.0@released", "data": "imagenet-512"}
    assert "row r has training 'uvit'; there are none" in refused({**row, "training": "uvit", "images": 1024})
