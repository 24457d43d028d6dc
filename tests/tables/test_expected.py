"""Expectations, and the command that holds a record against them."""

import json
import sys

import pytest

from dcae_bench.base.errors import CheckError, ConfigError
from dcae_bench.cli.main import main
from dcae_bench.data.sample_manifest import SampleManifest
from dcae_bench.evaluation.samples_run import settings_of
from dcae_bench.profile.profile import load_profile
from dcae_bench.records.record import Metric, save
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.reported.expected import EXPECTED, compare_with_expectation, find_expectation, load_expected


@pytest.fixture
def oracle(make_released):
    """The record that repeats the authors' measurement exactly."""

    def make(**changes):
        return make_released(**({"autoencoder": "dc-ae-f64c128-in-1.0"} | changes))

    return make


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Run ``check`` on a record; returns exit code and what stands on standard error."""

    def run(record, *arguments):
        save(record, tmp_path / "r.json")
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "check", str(tmp_path / "r.json"), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


def test_the_official_oracle_is_expected_of_the_released_profile(oracle):
    expectation = load_expected()[0]
    profile = load_profile("released")
    assert expectation.protocol == profile.evaluation.protocol
    assert f"{expectation.dataset}-{expectation.resolution}" in [
        item.label for item in profile.sets_of(expectation.autoencoder)
    ]
    values = {key: round(wanted.value, 5) for key, wanted in expectation.metrics.items()}
    assert values == {"rfid_pytorch_fid": 0.21678, "psnr": 26.14893, "ssim": 0.71049, "lpips_alex_u8": 0.08023}
    assert find_expectation(oracle(), load_expected()) == expectation


@pytest.mark.parametrize(("version", "rfid", "psnr"), [("1.0", 0.339, 29.31), ("1.1", 0.314, 29.74)])
def test_the_second_oracle_is_of_other_weights_and_images(make_released, check, version, rfid, psnr):
    name = f"dc-ae-f32c32-sana-{version}"
    assert [item.label for item in load_profile("released").sets_of(name)] == ["mjhq-1024"]
    facts = {"autoencoder": name, "data_set": "mjhq", "resolution": 1024, "images": 30_000}
    assert check(make_released(rfid=rfid + 0.005, psnr=psnr - 0.01, **facts))[0] == 0
    for changed in ({"rfid": rfid + 0.006}, {"psnr": psnr + 0.016}, {"images": 29_999}, {"resolution": 512}):
        code, printed = check(make_released(**({"rfid": rfid, "psnr": psnr} | facts | changed)))
        assert code == 2 and "Traceback" not in printed


@pytest.mark.parametrize(
    ("metric", "value", "tolerance"),
    [
        ("rfid", 0.2167766520628902, 0.005),
        ("psnr", 26.1489275, 0.01),
        ("ssim", 0.7104861, 0.001),
        ("lpips", 0.0802312, 0.001),
    ],
)
def test_a_value_may_be_off_by_its_tolerance_and_no_more(oracle, metric, value, tolerance):
    expectation = load_expected()[0]
    for factor, holds in ((0.99, True), (-0.99, True), (1.01, False), (-1.01, False)):
        found = compare_with_expectation(oracle(**{metric: value + factor * tolerance}), expectation)
        assert [row.holds for row in found].count(False) == (not holds)


def with_reflected(record, value):
    reflected = Metric(label="SSIM (torchmetrics)", value=value, better="higher")
    return record.model_copy(update={"metrics": {**record.metrics, "ssim_torchmetrics": reflected}})


@pytest.mark.parametrize(
    ("inside", "reflected", "agrees"),
    [
        (0.7105, 0.7123, "ssim (windows inside the image)"),
        (0.7087, 0.7105, "ssim_torchmetrics (reflected borders)"),
        (0.7070, 0.7088, None),
    ],
)
def test_either_border_of_ssim_may_agree_and_the_result_says_which(check, oracle, tmp_path, inside, reflected, agrees):
    record = with_reflected(oracle(ssim=inside), reflected)
    comparison = compare_with_expectation(record, load_expected()[0])[2]
    assert comparison.holds == bool(agrees) and comparison.label == (agrees or "ssim_torchmetrics (reflected borders)")
    code, printed = check(record, "--output", tmp_path / "check.json")
    assert code == (0 if agrees else 2)
    if agrees:
        (written,) = [row for row in json.loads((tmp_path / "check.json").read_text())["comparisons"] if row["variant"]]
        assert f"{written['metric']} ({written['variant']})" == agrees and written["measured"] == 0.7105
    else:
        assert "ssim_torchmetrics (reflected borders) 0.70880 instead of 0.71049" in printed


def test_agreement_is_written_down(check, oracle, tmp_path):
    code, printed = check(oracle(), "--output", tmp_path / "check.json")
    assert code == 0 and printed.count("agrees") == 4
    written = json.loads((tmp_path / "check.json").read_text())
    assert written["record"] == oracle().key and len(written["comparisons"]) == 4


def test_deviation_is_one_line_and_exit_code_2(check, oracle, tmp_path):
    code, printed = check(oracle(psnr=25.0, lpips=0.13), "--output", tmp_path / "check.json")
    assert code == 2 and not (tmp_path / "check.json").exists()
    (line,) = [line for line in printed.splitlines() if line.startswith("dcae-bench: error:")]
    assert "r.json" in line and "psnr 25.00000 instead of 26.14893, lpips_alex_u8 0.13000 instead of 0.08023" in line
    assert "rfid" not in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 49_999}, "number of images is 49999, but 50000 is expected"),
        ({"settings": {"tf32": "off"}}, "tf32 is off, but on is expected"),
        ({"protocol": "reconstruction/photos-v1"}, "protocol is reconstruction/photos-v1"),
        ({"rfid": None}, "the record holds no rfid_pytorch_fid"),
        ({"autoencoder": "dc-ae-f64c128-mix-1.0"}, "nothing is expected of dc-ae-f64c128-mix-1.0 (released)"),
        ({"resolution": 256}, "nothing is expected of dc-ae-f64c128-in-1.0 (released) on imagenet-256"),
        ({"weights_source": "retrained"}, "nothing is expected of dc-ae-f64c128-in-1.0 (retrained)"),
    ],
)
def test_another_measurement_does_not_count(check, oracle, changes, words):
    code, printed = check(oracle(**changes))
    assert code == 2 and words in printed


DENOISERS = {
    ("dc-ae-f64c128-in-1.0-uvit-h-in-512px", "1"): 13.754458694549271,
    ("dc-ae-f64c128-in-1.0-uvit-h-in-512px", "1.5"): 2.963459255529642,
    ("dc-ae-f32c32-in-1.0-usit-h-in-512px", "1"): 3.791360749566877,
    ("dc-ae-f32c32-in-1.0-usit-h-in-512px", "1.2"): 1.883184155951767,
    ("dc-ae-f32c32-in-1.0-usit-2b-in-512px", "1.15"): 1.7210562991380698,
}


@pytest.fixture
def samples_record(make_released):
    """The record that the released profile would make of samples of one of its rows, up to its values."""
    profile = load_profile("released")

    def make(released, guidance, gfid, **settings):
        resolved = next(
            resolved for resolved in map(profile.row, profile.diffusion.rows) if resolved.spec.released == released
        )
        drawn = SampleManifest.model_construct(
            sampler=resolved.sampler,
            nfe=getattr(resolved.sampler, "nfe", None),
            guidance_scale=float(guidance),
            seed_policy=profile.diffusion.seed_policy,
            precision="fp32",
            tf32=False,
        )
        base = make_released(autoencoder=resolved.spec.source.autoencoder)
        size, latent = resolved.denoiser, resolved.denoiser.latent
        denoiser = DenoiserSubject(
            row=resolved.name,
            name=resolved.spec.denoiser,
            family=size.family,
            process=resolved.process,
            patch=latent.patch,
            tokens=latent.tokens,
            classes=size.classes,
            parameters=1,
            gmacs=1.0,
            weights_sha256="0" * 64,
            weights_source="released",
            released=released,
        )
        return base.model_copy(
            update={
                "kind": "generation",
                "protocol": "generation/paper-v1",
                "denoiser": denoiser,
                "data": base.data.model_copy(update={"split": "train"}),
                "settings": {**settings_of(profile, drawn, 1_281_167), **settings},
                "metrics": {"gfid_pytorch_fid": Metric(label="gFID", value=gfid, better="lower")},
            }
        )

    return make


@pytest.mark.parametrize(("released", "guidance"), DENOISERS)
def test_samples_of_the_released_profile_are_checked_against_the_authors_script(
    samples_record, check, released, guidance
):
    value = DENOISERS[released, guidance]
    code, printed = check(samples_record(released, guidance, value * 1.01))
    assert code == 0 and f"samples of {released} on imagenet-512 at s = {guidance}" in " ".join(printed.split())
    code, printed = check(samples_record(released, guidance, value * 1.02))
    assert code == 2 and "gfid_pytorch_fid" in printed


@pytest.mark.parametrize(
    ("guidance", "changes", "words"),
    [
        ("1.5", {"nfe": "20"}, "nfe is 20, but 30 is expected"),
        ("1.5", {"seed_policy": "sample"}, "seed_policy is sample, but paper_8gpu is expected"),
        ("1.5", {"reference_images": "50000"}, "reference_images is 50000, but 1281167 is expected"),
        ("1.5", {"tf32": "off"}, "tf32 is off, but on is expected"),
        ("2", {}, "nothing is expected of samples of dc-ae-f64c128-in-1.0-uvit-h-in-512px on imagenet-512 at s = 2"),
    ],
)
def test_other_samples_do_not_count(samples_record, check, guidance, changes, words):
    code, printed = check(samples_record("dc-ae-f64c128-in-1.0-uvit-h-in-512px", guidance, 2.96, **changes))
    assert code == 2 and words in printed


def test_nothing_is_expected_of_a_retrained_denoiser(samples_record, check):
    record = samples_record("dc-ae-f64c128-in-1.0-uvit-h-in-512px", "1.5", 2.96)
    retrained = record.denoiser.model_copy(update={"weights_source": "retrained", "released": None})
    code, printed = check(record.model_copy(update={"denoiser": retrained}))
    assert code == 2 and "nothing is expected of samples of row uvit-h-dc-ae-f64-p1 (retrained)" in printed


def test_no_expectation_is_an_error(oracle):
    with pytest.raises(CheckError, match="there are expectations for nothing"):
        find_expectation(oracle(), ())


@pytest.mark.parametrize(
    ("old", "new"), [("tolerance: 0.01", "tolerance: -1"), ("expected:", "expect:"), ("metrics:", "[")]
)
def test_a_spoilt_file_is_named(tmp_path, old, new):
    path = tmp_path / "spoilt.yaml"
    path.write_text(EXPECTED.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=r"spoilt\.yaml: .*; correct it") as caught:
        load_expected(path)
    assert "\n" not in str(caught.value)
