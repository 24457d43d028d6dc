"""Timings run when asked for (``pytest --benchmark-only``) and never as part of the tests."""

import pytest
import torch


def pytest_ignore_collect(collection_path, config):
    return None if config.getoption("benchmark_only") else True


@pytest.fixture(autouse=True)
def one_thread():
    """Time on one CPU thread, as the demo's jobs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["torch"] = torch.__version__
    machine_info["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
