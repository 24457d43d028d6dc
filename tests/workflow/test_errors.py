"""What a user sees of a workflow that fails, and what it refuses before the first job."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.logging import LogEvent

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.planning.options import check_options, on_shared_volume
from dcae_bench.running.failed_jobs import FailedJobs, describe
from tests.workflow.test_workflow import PROFILE, Checkout

OWN_IMAGES = PROFILE.replace("dataset: photos-indoor", "dataset: mine") + "data_roots: {mine: images}\n"
HOSTILE = "my $(touch PWNED) `touch PWNED`; touch PWNED; 'single' \"double\" \\ & {x}\n$HOME.yaml"


def error_lines(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("dcae-bench: error: ")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("errors"))
    (made.root / "images").mkdir()
    (made.root / "config" / "files.yaml").write_text(OWN_IMAGES.replace("name: tiny", "name: files"))
    return made


def make(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess:
    """Run make as a user would, with the packages of this environment."""
    for name in ("Makefile", "environment.post-deploy.sh", "requirements.txt", "requirements-build.txt"):
        shutil.copy(REPOSITORY / name, checkout.root / name)
    shutil.copy(REPOSITORY / "pyproject.toml", checkout.root)
    environment = checkout.root / ".venv"
    if not environment.exists():
        environment.mkdir()
        (environment / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".tools", ".installed"):
        (environment / stamp).touch()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    variables["PYTHONPATH"] = str(checkout.root)
    return subprocess.run(
        ["make", *arguments], cwd=checkout.root, env=variables, capture_output=True, text=True, timeout=300
    )


@pytest.mark.long
def test_the_error_of_a_failed_job_is_the_last_line_under_make(checkout):
    log = "results/files/logs/prepare-mine-eval.log"
    done = make(checkout, "results/files/data/mine/eval.json", "PROFILE=files")
    *_, last, of_make = done.stderr.splitlines()
    assert done.returncode == 2 and of_make.startswith("make: ***")
    (said,) = (checkout.root / log).read_text().splitlines()
    assert said.startswith("dcae-bench: error: ") and last == f"{said} (log: {log})"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("working\ndcae-bench: error: no space\n", "no space"),
        ("dcae-bench: error: no space\nlater\n", "no space"),
        ("Traceback\n  File x\nValueError: odd\n\n", "job train ended without an error of its own; its last line is: "),
        ("", "job train ended without a word"),
        (None, "job train ended without a word"),
    ],
)
def test_a_failed_job_is_described_in_one_line(tmp_path, text, reason):
    log = tmp_path / "train.log"
    if text is not None:
        log.write_text(text)
    line = describe("train", [log])
    assert line.startswith(f"dcae-bench: error: {reason}") and line.endswith(f" (log: {log})") and "\n" not in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "job train ended without an error of its own: SLURM status is: 'TIMEOUT'."),
        ("step 7\n", "job train ended without an error of its own: SLURM status is: 'TIMEOUT'."),
        ("dcae-bench: error: no space\n", "no space"),
    ],
)
def test_what_a_cluster_says_of_a_job_stands_in_for_its_own_error(tmp_path, text, reason):
    log = tmp_path / "train.log"
    log.write_text(text)
    line = describe("train", [log], "SLURM status is: 'TIMEOUT'.For further error details see the log\nsbatch call: x")
    assert line == f"dcae-bench: error: {reason} (log: {log})"


def test_a_job_that_a_retry_mends_is_no_failed_job(capsys):
    watching = FailedJobs()
    told = {"rule_name": "train", "log": [], "rule_msg": None}
    for job in (3, 4, 4):
        error = {"levelno": logging.ERROR, "event": LogEvent.JOB_ERROR, "jobid": job, **told}
        watching.handle(logging.makeLogRecord(error))
    watching.handle(logging.makeLogRecord({"levelno": logging.INFO, "event": LogEvent.JOB_FINISHED, "job_id": 4}))
    watching.print()
    assert capsys.readouterr().err.count("job train ended") == 1
    watching.handle(logging.makeLogRecord({"levelno": logging.INFO, "event": LogEvent.JOB_FINISHED, "job_id": 3}))
    watching.print()
    assert not capsys.readouterr().err


def test_the_end_of_a_log_of_any_bytes_is_read(tmp_path):
    log = tmp_path / "train.log"
    log.write_bytes(b"\xff\xfe" * 20_000 + b"\r50 %\rdcae-bench: error: odd \xff\n")
    assert describe("train", [log]).startswith("dcae-bench: error: odd ")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"profil": "mini"}, "did you mean profile=?"),
        ({"nonsense": 1}, "choose from profile, scales,"),
        ({"seed": 4}, "it is a field of profiles"),
        ({"scales": "abc"}, "is not a list of numbers"),
        ({"scales": "1,nan"}, "nan is no scale of guidance"),
        ({"scales": -1}, "-1 is no scale of guidance"),
        ({"degraded": "maybe"}, "is neither True nor False"),
        ({"longest_minutes": "1d"}, "is no number of minutes"),
        ({"longest_minutes": 0}, "is no number of minutes"),
        ({"longest_minutes": True}, "is no number of minutes"),
    ],
)
def test_a_wrong_option_names_the_remedy(options, remedy):
    (key, value), *_ = options.items()
    with pytest.raises(ConfigError, match=f"^--config {key}={value}: .*{re.escape(remedy)}"):
        check_options(options)


def test_results_in_a_bucket_are_refused():
    assert on_shared_volume("fs") and not on_shared_volume(None)
    with pytest.raises(ConfigError, match=r"^--default-storage-provider s3: results lie on a volume .*; name fs"):
        on_shared_volume("s3")


def test_right_options_are_accepted():
    check_options({"profile": "demo", "scales": "1,2.5", "throughput_plan": "cpu", "degraded": True, "adm_batch": "x"})


@pytest.mark.parametrize(
    ("option", "remedy"), [("profil=mini", "did you mean profile=?"), ("throughput_plan=../x", "choose cpu")]
)
def test_a_wrong_option_of_the_workflow_is_one_line_and_no_plan(checkout, option, remedy):
    done = checkout.snakemake("--dry-run", "results/table_rfid.md", options=(option,))
    (line,) = error_lines(done)
    assert done.returncode == 2 and remedy in line
    assert "Traceback" not in done.stderr and "Job stats" not in done.stdout


def test_a_value_that_a_late_job_would_refuse_is_refused_before_the_first(checkout):
    (checkout.root / "wrong.yaml").write_text(PROFILE.replace("samples: 1", "samples: 1\n  extractors: [dinov3]"))
    done = checkout.snakemake("--dry-run", "results/table_rfid.md", profile="wrong.yaml")
    (line,) = error_lines(done)
    assert done.returncode == 2 and "wrong.yaml: " in line and "extractor 'dinov3' does not exist; choose from" in line


def test_a_copy_that_keeps_its_name_is_refused(checkout):
    copy = checkout.root / "copy.yaml"
    copy.write_text(PROFILE.replace("seed: 3", "seed: 4"))
    done = checkout.snakemake("results/table_rfid.md", profile="copy.yaml")
    (line,) = error_lines(done)
    original = checkout.root / "config" / "tiny.yaml"
    assert done.returncode == 2 and f"{copy}: its name 'tiny' is that of {original}, whose results" in line


@pytest.mark.long
def test_a_profile_of_any_path_runs_and_runs_nothing_else(checkout):
    source = checkout.root / "$(touch PWNED);touch PWNED;" / HOSTILE
    source.parent.mkdir()
    source.write_text(PROFILE.replace("name: tiny", "name: hostile").replace("a test", "'{a} $(touch PWNED)'"))
    target = "results/hostile/data/photos-indoor/train.npy"
    path = str(source.relative_to(checkout.root))
    done = checkout.snakemake(target, "--configfile", path, profile=None)  # --config itself would fold the newline
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.root / target).exists()
    note = json.loads((checkout.root / "results" / "hostile" / "profile.json").read_text())
    assert note == {"profile": "hostile", "source": path}
    planned = checkout.snakemake("--dry-run", "results/table_rfid.md", "--configfile", path, profile=None)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert not list(checkout.root.rglob("PWNED"))


@pytest.mark.long
def test_make_runs_nothing_that_stands_in_the_profiles_path(checkout):
    name = "my '$(touch PWNED)' `touch PWNED`; \"x\".yaml"
    (checkout.root / name).write_text(PROFILE.replace("name: tiny", "name: quoted"))
    done = make(checkout, "results/quoted/data/photos-indoor/train.npy", f"PROFILE={name}", "SNAKEMAKE_FLAGS=--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prepare" in done.stdout + done.stderr and not list(checkout.root.rglob("PWNED"))
