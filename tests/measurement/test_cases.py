"""What is timed and at which batch, against the authors' map and counted costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dcae_bench.base.errors import ConfigError, MeasurementError
from dcae_bench.measurement.workloads.cases import DENOISERS, LATENTS, Case, Latent, authors_batch, equal_tokens_batch
from dcae_bench.measurement.workloads.costs import timed_model
from dcae_bench.measurement.workloads.recipes import CPU, PAPER, TUNED, with_effort


def case(denoiser="uvit-h", latent="sd-vae-f8c4-p2", resolution=512, work="train") -> Case:
    return Case(denoiser=denoiser, latent=Latent.parse(latent), resolution=resolution, work=work)


@pytest.mark.parametrize(
    ("denoiser", "latent", "work", "batch"),
    [
        ("uvit-h", "sd-vae-f8c4-p2", "train", 256),
        ("uvit-h", "dc-ae-f64c128-p1", "train", 4096),
        ("uvit-h", "dc-ae-f64c128-p1", "forward", 2048),
        ("uvit-2b", "dc-ae-f32c32-p1", "train", 512),
        ("dit-xl", "dc-ae-f128c512-p1", "forward", 16384),
        ("uvit-s", "ldm-f16c16-p2", "train", 4096),
    ],
)
def test_batches_are_the_authors(denoiser, latent, work, batch):
    assert authors_batch(case(denoiser, latent, work=work)) == (batch, "the authors' map")


def test_batches_beyond_the_map_have_as_many_tokens_and_say_so():
    batch, source = authors_batch(case(resolution=1024))
    assert batch == 64 and "1024 tokens" in source
    # Never more than their largest batch, however few the tokens.
    assert authors_batch(case(latent="dc-ae-f128c512-p1"))[0] == 4096
    with pytest.raises(MeasurementError, match="--batch"):
        authors_batch(case("uvit-m"))


def test_inference_takes_the_batches_of_training_where_the_authors_list_no_others():
    batch, source = authors_batch(case("dit-s", "dc-ae-f32c32-p1", resolution=1024, work="forward"))
    assert (batch, source) == (1024, "the authors' map of training")
    assert authors_batch(case("dit-s", "dc-ae-f32c32-p1", resolution=1024)) == (1024, "the authors' map")


@given(st.sampled_from(DENOISERS), st.sampled_from(LATENTS), st.sampled_from([512, 1024, 2048]))
def test_every_case_of_the_matrix_has_batches(denoiser, latent, resolution):
    for work in ("train", "forward"):
        one = Case(denoiser=denoiser, latent=latent, resolution=resolution, work=work)
        assert authors_batch(one)[0] >= 1
        tokens = one.space.tokens
        assert 1024 - tokens < equal_tokens_batch(one) * tokens <= max(1024, tokens)


@pytest.mark.parametrize(
    ("latent", "gmacs", "parameters"),
    [("sd-vae-f8c4-p2", 59.2153, 45_165_584), ("dc-ae-f64c128-p1", 2.9732, 44_788_864)],
)
def test_work_counts_one_forward_and_three_for_training(latent, gmacs, parameters):
    model, forward = timed_model(case("uvit-s", latent, work="forward"))
    assert model.gmacs == pytest.approx(gmacs, abs=1e-4) and model.parameters == parameters
    assert forward == pytest.approx(2e9 * gmacs, rel=1e-4)
    assert timed_model(case("uvit-s", latent))[1] == pytest.approx(3 * forward)
    # 30 evaluations, two passes each: the convention of the paper's later versions.
    assert timed_model(case("uvit-s", latent, work="sample"))[1] == pytest.approx(60 * forward)


def test_names_are_explained():
    with pytest.raises(MeasurementError, match="patch size"):
        Latent.parse("dc-ae-f64c128")
    with pytest.raises(ConfigError, match="did you mean"):
        Latent.parse("dc-ae-f64c127-p1")
    with pytest.raises(MeasurementError, match="multiple"):
        case(resolution=100).space  # noqa: B018
    for wrong in ({"work": "encode"}, {"denoiser": None}):
        with pytest.raises(ValidationError):
            Case.model_validate(case().model_dump() | wrong)
    assert case().name == "uvit-h.sd-vae-f8c4-p2.512px.train"


def test_protocols_are_what_they_say():
    paper = PAPER.schedule
    assert paper.warm_up_iterations == 20 and paper.blocks * paper.block_iterations == 100
    assert PAPER.precision(case()) == PAPER.precision(case(work="forward")) == "fp16 autocast"
    assert PAPER.checkpointing == "full" and TUNED.checkpointing == "where memory needs it"
    assert CPU.precision(case()) == "fp32" and CPU.first_batch(case())[0] == 1
    short = with_effort(PAPER, "short")
    assert short.schedule.warm_up_iterations < 20 and short.schedule.blocks == paper.blocks
    assert short.protocol == PAPER.protocol and short.what == PAPER.what
