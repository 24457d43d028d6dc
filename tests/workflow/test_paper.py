"""The paper profile's whole plan, shown without any data."""

import os
import re
import subprocess
import sys

from dcae_bench.files import REPOSITORY


def test_a_dry_run_shows_every_job_without_data(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["results/table_rfid.md", "--cores", "1", "--directory", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    config = str(REPOSITORY / "config" / "paper.yaml")
    done = subprocess.run(
        [*command, "--configfile", config], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.split("Job stats:")[-1]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
    assert jobs == {
        "prepare_files": 7,  # both splits of three data sets, MJHQ's one
        "train_phase": 18,
        "evaluate_reconstruction": 18,
        "table_rfid": 1,
        "total": 44,
    }
