import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.records.subject import TrainedPhase
from dcae_bench.tables.reconstruction.judge import HIGHER_IS_BETTER, RECORD_KEYS, _obstacles, judge
from dcae_bench.tables.reported.verdict import Judgement, Verdict

METRICS = list(HIGHER_IS_BETTER)


def interval(key, value, noise):
    """Interval of a metric by half-width; none without noise."""
    return {key: (value - noise, value + noise)} if noise else {}


def test_the_reason_states_the_interval(verified_row, make_released):
    near = make_released(psnr=26.2, intervals={"psnr": (26.1, 26.3)})
    far = make_released(psnr=25.0, intervals={"psnr": (24.9, 25.1)})
    assert judge(verified_row, near, "psnr").reason.endswith("apart by no more than the 95% interval of ±0.1")
    assert judge(verified_row, far, "psnr").reason.endswith("worse by 1.1500, beyond the 95% interval of ±0.1")
    assert judge(verified_row, make_released(psnr=25.0), "psnr").reason.endswith("worse by 1.1500")


@pytest.mark.parametrize(
    "settings", [{"tf32": "off"}, {"posterior": "mean", "tf32": "on"}, {"precision": "bf16"}, {"tiles": "on"}]
)
def test_other_switches_than_the_protocols_are_not_compared(verified_row, make_released, settings):
    judgement = judge(verified_row, make_released(settings=settings), "rfid")
    assert judgement.verdict is Verdict.NOT_COMPARABLE
    assert f"{next(iter(settings))} differs" in judgement.reason


def test_the_protocols_own_switches_are_compared(verified_row, make_released):
    settings = {"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"}
    assert judge(verified_row, make_released(settings=settings), "rfid").verdict is Verdict.MATCH


@pytest.mark.parametrize("metric", METRICS)
def test_the_authors_own_digits_match_their_printed_ones(verified_row, make_released, metric):
    judgement = judge(verified_row, make_released(), metric)
    assert judgement.verdict is Verdict.MATCH, judgement.reason


@pytest.mark.parametrize(
    ("psnr", "noise", "expected"),
    [
        (26.15, 0.0, Verdict.MATCH),
        (26.155, 0.0, Verdict.MATCH),  # half a unit of the last printed decimal, on either side
        (26.145, 0.0, Verdict.MATCH),
        (26.1551, 0.0, Verdict.BETTER),
        (26.1449, 0.0, Verdict.DEVIATES),
        (26.155, 0.1, Verdict.MATCH),  # noise never turns a match into less
        (26.255, 0.1, Verdict.WITHIN_NOISE),
        (26.045, 0.1, Verdict.WITHIN_NOISE),
        (26.2551, 0.1, Verdict.BETTER),
        (26.0449, 0.1, Verdict.DEVIATES),
    ],
)
def test_higher_is_better(verified_row, make_released, psnr, noise, expected):
    record = make_released(psnr=psnr, intervals=interval("psnr", psnr, noise))
    assert judge(verified_row, record, "psnr").verdict is expected


@pytest.mark.parametrize(
    ("lpips", "noise", "expected"),
    [
        (0.0805, 0.0, Verdict.MATCH),
        (0.0795, 0.0, Verdict.MATCH),
        (0.0806, 0.0, Verdict.DEVIATES),
        (0.0794, 0.0, Verdict.BETTER),
        (0.0825, 0.002, Verdict.WITHIN_NOISE),
        (0.0826, 0.002, Verdict.DEVIATES),
        (0.0774, 0.002, Verdict.BETTER),
    ],
)
def test_lower_is_better(verified_row, make_released, lpips, noise, expected):
    record = make_released(lpips=lpips, intervals=interval("lpips_alex_u8", lpips, noise))
    assert judge(verified_row, record, "lpips").verdict is expected


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"protocol": "reconstruction/photos-v1"}, "protocol"),
        ({"data_set": "photos-indoor"}, "data set"),
        ({"resolution": 256}, "resolution"),
        ({"images": 49_999}, "sample count"),
        ({"weights_source": "retrained"}, "weights source"),
        ({"parameters": 2_340_000}, "parameters"),
        ({"kind": "training"}, "training"),
        ({"rfid": None, "rfd": 0.22}, "rfid_pytorch_fid"),
    ],
)
def test_unequal_measurements_are_not_compared(verified_row, make_released, change, word):
    judgement = judge(verified_row, make_released(**change), "rfid")
    assert judgement.verdict is Verdict.NOT_COMPARABLE
    assert word in judgement.reason


def test_other_autoencoders_are_not_compared(reported, verified_row, make_released):
    for row in reported:
        if row != verified_row:
            assert judge(row, make_released(), "psnr").verdict is Verdict.NOT_COMPARABLE


def test_a_small_sd_vae_does_not_stand_for_the_papers(reported, make_record):
    row = next(row for row in reported if row.family == "sd-vae" and row.compression == 32)
    facts = {"data_set": "imagenet", "resolution": 256, "images": 50_000, "protocol": "reconstruction/paper-v1"}
    small = make_record("sd-vae", psnr=22.13, **facts)
    large = make_record("sd-vae", psnr=22.13, parameters=140_700_000, **facts)
    known = row.model_copy(update={"training_images": 1000})
    trained = {"trained": (TrainedPhase(phase=1, datasets=("imagenet",), images=1000),)}
    small, large = (
        one.model_copy(update={"subject": one.subject.model_copy(update=trained)}) for one in (small, large)
    )
    assert "parameters" in judge(known, small, "psnr").reason
    assert judge(known, large, "psnr").verdict is Verdict.MATCH


TWO_PHASES = (
    TrainedPhase(phase=1, datasets=("imagenet", "ffhq"), images=600),
    TrainedPhase(phase=2, datasets=("ffhq",), images=400),
)
UNTOLD = "no source tells the {} of the reported value"
NOT_IN_RECORD = "the records do not tell the {} of the measured one"


@pytest.mark.parametrize(
    ("trained_on", "images", "trained", "reasons"),
    [
        (("ffhq", "imagenet"), 1000, TWO_PHASES, []),
        (("imagenet",), 1000, TWO_PHASES, ["training data differ: imagenet reported, ffhq + imagenet measured"]),
        (
            ("ffhq", "imagenet"),
            1001,
            TWO_PHASES,
            ["images seen in training differ: 1,001 reported, 1,000 measured"],
        ),
        (
            ("imagenet",),
            None,
            TWO_PHASES,
            [
                "training data differ: imagenet reported, ffhq + imagenet measured",
                UNTOLD.format("images seen in training"),
            ],
        ),
        (None, 1000, TWO_PHASES, [UNTOLD.format("training data")]),
        (
            ("imagenet",),
            1000,
            None,
            [NOT_IN_RECORD.format("training data"), NOT_IN_RECORD.format("images seen in training")],
        ),
    ],
)
def test_retrained_weights_need_equal_training_data_and_images_seen(
    reported, make_record, trained_on, images, trained, reasons
):
    row = next(row for row in reported if row.family == "sd-vae" and row.compression == 32)
    row = row.model_copy(update={"trained_on": trained_on, "training_images": images})
    facts = {"data_set": "imagenet", "resolution": 256, "images": 50_000, "protocol": "reconstruction/paper-v1"}
    record = make_record("sd-vae", psnr=22.13, parameters=140_700_000, **facts)
    record = record.model_copy(update={"subject": record.subject.model_copy(update={"trained": trained})})
    judgement = judge(row, record, "psnr")
    if not reasons:
        assert judgement.verdict is Verdict.MATCH
    else:
        assert judgement == Judgement(Verdict.NOT_COMPARABLE, "; ".join(reasons))


def test_no_source_tells_how_long_a_row_of_table_2_was_trained(reported, make_record):
    for row in reported:
        assert row.trained_on and row.training_images is None
        if row.weights_source == "retrained" and row.metrics["rfid"].trusted:
            sizes = (row.family, row.compression, row.latent_channels)
            place = {"data_set": row.dataset, "resolution": row.resolution, "protocol": row.protocol}
            reason = judge(row, make_record(*sizes, **place), "rfid").reason
            assert UNTOLD.format("images seen in training") in reason


def test_other_released_weights_do_not_stand_for_a_row(verified_row, make_released):
    judgement = judge(verified_row, make_released(autoencoder="dc-ae-f64c128-mix-1.0"), "psnr")
    assert judgement.reason == "weights differ: dc-ae-f64c128-in-1.0 reported, dc-ae-f64c128-mix-1.0 measured"


def test_recalled_values_are_never_judged(reported, make_record):
    row = next(row for row in reported if row.family == "sd-vae" and row.compression == 32)
    facts = {"data_set": "imagenet", "resolution": 256, "images": 50_000, "protocol": "reconstruction/paper-v1"}
    judgement = judge(row, make_record("sd-vae", parameters=140_700_000, lpips=0.117, **facts), "lpips")
    assert judgement.verdict is Verdict.NOT_COMPARABLE and "recalled" in judgement.reason


def test_an_unknown_sample_count_is_not_compared(reported, make_record):
    row = next(row for row in reported if row.dataset == "ffhq" and row.metrics["psnr"].trusted)
    record = make_record(
        "dc-ae",
        128,
        512,
        autoencoder="dc-ae-f128c512-mix-1.0",
        phase=None,
        data_set="ffhq",
        resolution=1024,
        protocol="reconstruction/paper-v1",
        weights_source="released",
        parameters=1_120_682_252,
        psnr=31.18,
    )
    judgement = judge(row, record, "psnr")
    assert judgement.verdict is Verdict.NOT_COMPARABLE and "not known" in judgement.reason


def test_no_record_is_not_run_for_the_given_reason(verified_row):
    judgement = judge(verified_row, None, "psnr", not_run_reason="no ImageNet here")
    assert (judgement.verdict, judgement.reason) == (Verdict.NOT_RUN, "no ImageNet here")


@given(
    metric=st.sampled_from(METRICS),
    offset=st.floats(-0.2, 0.2),
    noise=st.floats(0, 0.1),
)
def test_the_four_verdicts_split_the_line_in_order(verified_row, make_released, metric, offset, noise):
    # From far worse to far better a value passes deviates, noise, match, noise, better - and never skips back.
    reported = verified_row.metrics[metric]
    value = reported.value + offset
    record = make_released(**{metric: value}, intervals=interval(RECORD_KEYS[metric], value, noise))
    verdict = judge(verified_row, record, metric).verdict
    gain = offset if HIGHER_IS_BETTER[metric] else -offset
    half = 0.5 * 10**-reported.decimals
    if abs(gain) < half - 1e-6:
        assert verdict is Verdict.MATCH
    elif half + 1e-6 < abs(gain) < half + noise - 1e-6:
        assert verdict is Verdict.WITHIN_NOISE
    elif abs(gain) > half + noise + 1e-6:
        assert verdict is (Verdict.BETTER if gain > 0 else Verdict.DEVIATES)


def test_a_training_that_started_from_weights_is_not_compared(reported, make_released):
    """Data and images seen may be the paper's; the start is not."""
    row = reported[0].model_copy(update={"trained_on": ("imagenet",), "training_images": 8})
    record = make_released(weights_source="retrained")
    for fields, says in (({"initial": "mine.pt"}, "phase 1 started from mine.pt"), ({"frozen": ("a.*",)}, "froze a.*")):
        phase = TrainedPhase(phase=1, datasets=("imagenet",), images=8, **fields)
        subject = record.subject.model_copy(update={"trained": (phase,), "phase": 1})
        found = list(_obstacles(row, record.model_copy(update={"subject": subject}), "psnr"))
        assert any(f"the training differs: {says}" in line or says in line for line in found)
        assert not any("images seen" in line for line in found)
