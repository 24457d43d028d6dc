"""Expectations, and the command that holds a record against them."""

import json
import sys

import pytest

from dcae_bench.cli import main
from dcae_bench.config import load_profile
from dcae_bench.errors import CheckError, ConfigError
from dcae_bench.records import save
from dcae_bench.tables.expected import EXPECTED, compare, find_expectation, load_expected


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
    (expectation,) = load_expected()
    profile = load_profile("released")
    assert expectation.protocol == profile.evaluation.protocol
    assert f"{expectation.dataset}-{expectation.resolution}" in [
        item.label for item in profile.sets_of(expectation.autoencoder)
    ]
    values = {key: round(wanted.value, 5) for key, wanted in expectation.metrics.items()}
    assert values == {"rfid_pytorch_fid": 0.21678, "psnr": 26.14893, "ssim": 0.71049, "lpips_alex_u8": 0.08023}
    assert find_expectation(oracle(), load_expected()) == expectation


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
    (expectation,) = load_expected()
    for factor, holds in ((0.99, True), (-0.99, True), (1.01, False), (-1.01, False)):
        found = compare(oracle(**{metric: value + factor * tolerance}), expectation)
        assert [row.holds for row in found].count(False) == (not holds)


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


def test_no_expectation_is_an_error(oracle):
    with pytest.raises(CheckError, match="there are expectations for nothing"):
        find_expectation(oracle(), ())


@pytest.mark.parametrize(
    ("old", "new"), [("tolerance: 0.01", "tolerance: -1"), ("expected:", "expect:"), ("metrics:", "[")]
)
def test_a_spoilt_file_is_named(tmp_path, old, new):
    path = tmp_path / "spoilt.yaml"
    path.write_text(EXPECTED.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=r"spoilt\.yaml: is not a file of expectations") as caught:
        load_expected(path)
    assert "\n" not in str(caught.value)
