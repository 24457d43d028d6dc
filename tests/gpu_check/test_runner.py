"""A check that fails, hangs or dies is one line, and the checks after it go on."""

import json
import os
import signal
import time

import pytest
from typer.testing import CliRunner

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.gpu_check import SKIPPED
from dcae_bench.cli.main import app
from dcae_bench.gpu_check import catalogue, runner, summary
from dcae_bench.gpu_check.outcome import Check, Skip, require, within
from dcae_bench.gpu_check.runner import attempt, run_checks


def good(device, folder):
    (folder / "file").write_text("a folder of its own")
    return f"ran on {device} in process {os.getpid()}"


def bad(device, folder):
    raise ValueError("\nthe first line\nand the second")


def wrong(device, folder):
    return within("outputs", 0.5, 0.1)


def skipping(device, folder):
    raise Skip("there is nothing to try")


def lacking(device, folder):
    import no_such_package  # noqa: F401


def hanging(device, folder):
    time.sleep(60)


def dying(device, folder):
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(runner, "PRELOADED", ["dcae_bench.gpu_check.outcome"])


def test_no_check_stops_the_others():
    checks = [
        Check("first", good),
        Check("error", bad),
        Check("limit", wrong),
        Check("after", good),
        Check("nothing", skipping),
        Check("package", lacking),
        Check("distribution", good, needs=("no-such-distribution",)),
        Check("gpu", good, gpu_only=True),
        Check("hangs", hanging, limit_s=0.5),
        Check("dies", dying),
        Check("alone", good, alone=True),
        Check("last", good),
    ]
    said = []
    outcomes = {one.name: one for one in run_checks(checks, "cpu", budget_s=100, say=said.append)}
    assert said == list(outcomes.values()) and len(said) == len(checks)
    found = {name: (one.status, one.said) for name, one in outcomes.items()}
    processes = {name: found.pop(name)[1].rsplit(" ", 1)[1] for name in ("first", "after", "alone", "last")}
    assert len(set(processes.values())) == 4, "a failure, and a check that needs it, gets a new process"
    assert found == {
        "error": ("failed", "ValueError: the first line"),
        "limit": ("failed", "CheckError: outputs: error 0.5, limit 0.1"),
        "nothing": ("skipped", "there is nothing to try"),
        "package": ("skipped", "package no_such_package is not installed"),
        "distribution": ("skipped", "package no-such-distribution is not installed"),
        "gpu": ("skipped", "only a CUDA device can do it"),
        "hangs": ("failed", "took longer than 0.5 s"),
        "dies": ("failed", "its process was ended by SIGSEGV"),
    }
    assert outcomes["hangs"].line.startswith("failed  hangs ") and "took longer" in outcomes["hangs"].line


def test_a_check_that_would_begin_too_late_is_skipped():
    checks = [Check("slow", hanging, limit_s=30), Check("late", good)]
    begin = time.monotonic()
    outcomes = run_checks(checks, "cpu", budget_s=1)
    assert time.monotonic() - begin < 20
    assert [(one.status, one.said) for one in outcomes][1] == ("skipped", "not begun: the time is over")
    assert outcomes[0].status == "failed" and "took longer than" in outcomes[0].said


def test_a_part_of_ours_that_is_missing_is_a_failure():
    def broken(device, folder):
        raise ModuleNotFoundError("No module named 'dcae_bench.gone'", name="dcae_bench.gone")

    assert attempt(Check("x", broken), "cpu", None)[0] == "failed"


def test_nan_is_above_every_limit():
    from dcae_bench.base.errors import CheckError

    with pytest.raises(CheckError, match="error nan, limit 1"):
        within("x", float("nan"), 1.0)
    require(True, "no error")


def test_the_exit_code_says_whether_something_failed(monkeypatch, tmp_path):
    file = tmp_path / "summary.json"
    for run, code in ((good, 0), (bad, 1)):
        monkeypatch.setattr(catalogue, "all_checks", lambda run=run: [Check("one", run), Check("two", good)])
        found = CliRunner().invoke(app, ["gpu-check", "--device", "cpu", "--output", str(file)])
        assert found.exit_code == code, found.output
        content = json.loads(file.read_text())
        assert [one["status"] for one in content["outcomes"]] == ["ok" if code == 0 else "failed", "ok"]
        assert content["device"] == "cpu" and content["versions"]["torch"]
    assert "1 ok, 1 failed, 0 skipped in" in found.output


def test_without_a_cuda_device_nothing_is_tried(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = CliRunner().invoke(app, ["gpu-check"])
    assert (found.exit_code, found.output) == (SKIPPED, "skipped, no CUDA device\n")


def test_options_that_name_nothing_are_refused():
    for options, told in (
        (["--device", "tpu"], "neither cuda nor cpu"),
        (["--only", "tea"], "no check has such a name"),
    ):
        found = CliRunner().invoke(app, ["gpu-check", *options])
        assert isinstance(found.exception, ConfigError) and told in str(found.exception)


def test_the_name_of_the_processor_needs_no_other_process(monkeypatch):
    monkeypatch.setattr(summary.multiprocessing, "get_context", lambda method: pytest.fail(method))
    assert summary.device_name("cpu")
