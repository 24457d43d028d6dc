"""Benchmarks can be asked for; their timings are no test's business."""

import os
import subprocess
import sys

import pytest

from dcae_bench.base.files import REPOSITORY


def collected(*words: str) -> list[str]:
    """Names of what a benchmark run collects."""
    command = [sys.executable, "-m", "pytest", *words, "--benchmark-only", "--collect-only", "-q"]
    # A worker of parallel tests tells its children so, and pytest-benchmark then refuses to time anything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.long
def test_the_long_benchmarks_of_a_named_file_are_not_left_out():
    names = collected("benchmarks/bench_autoencoders.py", "-k", "eager")
    assert len(names) >= 3 and all("eager" in name for name in names)


@pytest.mark.long
def test_benchmark_only_collects_benchmarks_and_no_tests():
    names = collected()
    assert names and all(name.startswith("benchmarks/bench_") for name in names)
