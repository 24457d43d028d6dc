"""Which reason a row without a result gets."""

import pytest

from dcae_bench.profile.profile import load_profile
from dcae_bench.tables.absence import GenerationAbsence, ReconstructionAbsence
from dcae_bench.tables.reported.generation import load_reported_generation
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction

ROWS = load_reported_reconstruction(measured={"mjhq"})


def rows(family, dataset=None):
    return [row for row in ROWS if row.family == family and dataset in (None, row.dataset)]


@pytest.mark.parametrize("source", ["released", "retrained"])
def test_a_profile_without_the_papers_data_gives_its_own_reason(source):
    demo = load_profile("demo")
    assert {ReconstructionAbsence(demo, {}).reasons(row, source) for row in ROWS} == {(demo.paper_rows_not_run,)}


def test_the_released_profile():
    profile = load_profile("released")
    lacking = {("dc-ae-f64c128-in-1.0", "imagenet-512"): ("no images", "no weights")}
    absence = ReconstructionAbsence(profile, lacking)
    (row,) = [row for row in rows("dc-ae", "imagenet") if (row.resolution, row.compression) == (512, 64)]
    assert absence.reasons(row, "released") == ("no images", "no weights")
    assert absence.reasons(row, "retrained") == (profile.paper_rows_not_run,)
    for row in rows("sd-vae"):
        if row.weights_source == "retrained":
            assert absence.reasons(row, "released") == ("the authors did not publish the weights of this autoencoder",)
    for row in ROWS:
        if row.dataset == "mjhq" and row.released:
            assert absence.reasons(row, "released") == (
                f"{row.released} was not measured on mjhq-1024: run the workflow",
            )


def test_the_paper_profile():
    profile = load_profile("paper")
    absence = ReconstructionAbsence(profile, {(name, "mjhq-1024"): ("no MJHQ",) for name in profile.autoencoders})
    unreported = [row for row in (*rows("dc-ae", "mjhq"), *rows("sd-vae", "mjhq")) if not row.metrics]
    assert {absence.reasons(row, "retrained") for row in unreported} == {("no MJHQ",)}
    assert {absence.reasons(row, "released") for row in rows("dc-ae")} == {(profile.paper_rows_not_run,)}


@pytest.mark.parametrize(("dataset", "data"), [("imagenet", "in"), ("ffhq", "mix"), ("mapillary-vistas", "mix")])
def test_a_row_wants_an_autoencoder_that_was_trained_on_its_data(dataset, data):
    absence = ReconstructionAbsence(load_profile("paper"), {})
    for family in ("dc-ae", "sd-vae"):
        for row in rows(family, dataset):
            name = f"{family}-f{row.compression}c{row.latent_channels}-{data}"
            label = f"{dataset}-{row.resolution}"
            assert absence.reasons(row, "retrained") == (f"{name} was not measured on {label}: run the workflow",)


def test_measurements_that_answer_no_row_are_told_apart():
    lacking = {
        ("dc-ae-f64c128-in-1.0", "imagenet-512"): ("a",),
        ("sd-vae-ft-ema", "imagenet-512"): ("b",),
        ("dc-ae-f64c128-mix-1.0", "mjhq-1024"): ("c",),
    }
    absence = ReconstructionAbsence(load_profile("released"), lacking)
    assert absence.beyond_paper(ROWS) == {("sd-vae-ft-ema", "imagenet-512"): ("b",)}
    assert len(absence.beyond_paper(load_reported_reconstruction())) == 2


def denoisers(released):
    """Reported rows of known latents whose denoisers the authors did, or did not publish."""
    return [row for row in load_reported_generation() if row.autoencoder and bool(row.released) == released]


def test_denoisers_of_the_released_profile():
    profile = load_profile("released")
    absence = GenerationAbsence(profile, {"uvit-h-dc-ae-f64-p1": ("no weights",)})
    for row in denoisers(released=True):
        name = next(name for name, own in profile.diffusion.rows.items() if own.released == row.released)
        wanted = "no weights" if name == "uvit-h-dc-ae-f64-p1" else f"row {name} was not measured: run the workflow"
        assert absence.reasons(row, "released") == (wanted,)
        assert absence.reasons(row, "retrained") == (profile.paper_rows_not_run,)
    for row in denoisers(released=False):
        assert absence.reasons(row, "released") == ("the authors did not publish the weights of this denoiser",)


def test_denoisers_of_the_paper_profile():
    profile = load_profile("paper")
    absence = GenerationAbsence(profile, {"uvit-h-dc-ae-f64-p1-2000k": ("no ImageNet",)})
    (row,) = [row for row in denoisers(released=True) if row.released.endswith("uvit-h-in-512px-train2000k")]
    assert absence.reasons(row, "retrained") == ("no ImageNet",)
    assert absence.reasons(row, "released") == (profile.paper_rows_not_run,)
    left_out = ("profile paper does not train this denoiser: it would be a row of its 'diffusion'",)
    unanswered = {row.latent for row in denoisers(released=False) if absence.reasons(row, "retrained") == left_out}
    assert unanswered == {"Asymmetric VAE"}, "every other row that the paper may have is a row of the profile"
    assert all(absence.reasons(row, "retrained") != left_out for row in denoisers(released=True))


@pytest.mark.parametrize("source", ["released", "retrained"])
def test_denoisers_of_a_profile_without_the_papers_data(source):
    demo = load_profile("demo")
    assert {
        GenerationAbsence(demo, {}).reasons(row, source) for row in denoisers(released=True) + denoisers(released=False)
    } == {(demo.paper_rows_not_run,)}
