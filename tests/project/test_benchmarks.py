"""Benchmarks can be asked for; their timings are no test's business."""

import os
import subprocess
import sys

from dcae_bench.base.files import REPOSITORY


def test_benchmark_only_collects_benchmarks_and_no_tests():
    command = [sys.executable, "-m", "pytest", "--benchmark-only", "--collect-only", "-q", "-p", "no:cacheprovider"]
    # A worker of parallel tests tells its children so, and pytest-benchmark then refuses to time anything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line for line in done.stdout.splitlines() if "::" in line]
    assert names and all(name.startswith("benchmarks/bench_") for name in names)
