"""Which reason a row without a result gets."""

import pytest

from dcae_bench.config import load_profile
from dcae_bench.tables.absence import Absence
from dcae_bench.tables.reported import load_reported

ROWS = load_reported(measured={"mjhq"})


def rows(family, dataset=None):
    return [row for row in ROWS if row.family == family and dataset in (None, row.dataset)]


@pytest.mark.parametrize("source", ["released", "retrained"])
def test_a_profile_without_the_papers_data_gives_its_own_reason(source):
    demo = load_profile("demo")
    assert {Absence(demo, {}).reasons(row, source) for row in ROWS} == {(demo.paper_rows_not_run,)}


def test_the_released_profile():
    profile = load_profile("released")
    lacking = {("dc-ae-f64c128-in-1.0", "imagenet-512"): ("no images", "no weights")}
    absence = Absence(profile, lacking)
    (row,) = [row for row in rows("dc-ae", "imagenet") if (row.resolution, row.compression) == (512, 64)]
    assert absence.reasons(row, "released") == ("no images", "no weights")
    assert absence.reasons(row, "retrained") == (profile.paper_rows_not_run,)
    for row in rows("sd-vae"):
        assert absence.reasons(row, "released") == ("the authors did not publish the weights of this autoencoder",)
    (row,) = [row for row in rows("dc-ae", "mjhq") if row.compression == 128]
    assert absence.reasons(row, "released") == (
        "dc-ae-f128c512-mix-1.0 was not measured on mjhq-1024: run the workflow",
    )


def test_the_paper_profile():
    profile = load_profile("paper")
    absence = Absence(profile, {(name, "mjhq-1024"): ("no MJHQ",) for name in profile.autoencoders})
    assert {absence.reasons(row, "retrained") for row in (*rows("dc-ae", "mjhq"), *rows("sd-vae", "mjhq"))} == {
        ("no MJHQ",)
    }
    assert {absence.reasons(row, "released") for row in rows("dc-ae")} == {(profile.paper_rows_not_run,)}
    assert absence.reasons(rows("sd-vae", "ffhq")[0], "retrained") == (
        "sd-vae-f64c128 was not measured on ffhq-1024: run the workflow",
    )


def test_measurements_that_answer_no_row_are_told_apart():
    lacking = {
        ("dc-ae-f64c128-in-1.0", "imagenet-512"): ("a",),
        ("sd-vae-ft-ema", "imagenet-512"): ("b",),
        ("dc-ae-f64c128-mix-1.0", "mjhq-1024"): ("c",),
    }
    absence = Absence(load_profile("released"), lacking)
    assert absence.elsewhere(ROWS) == {("sd-vae-ft-ema", "imagenet-512"): ("b",)}
    assert len(absence.elsewhere(load_reported())) == 2
