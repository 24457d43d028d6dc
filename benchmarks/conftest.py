"""Benchmarks run only with ``pytest --benchmark-only``, never as part of the tests."""

import pytest
import torch

LONG = "long"


def pytest_configure(config):
    config.addinivalue_line("markers", f"{LONG}: takes minutes; runs if its file is named, or with `-m long`")
    # pyproject.toml leaves out long tests, which would leave out the long benchmarks of a file that is named.
    if config.option.benchmark_only and config.option.markexpr == f"not {LONG}":
        config.option.markexpr = ""


def pytest_collection_modifyitems(config, items):
    """Skip the long benchmarks unless asked for, to keep a plain ``pytest --benchmark-only`` below five minutes."""
    if config.option.markexpr:
        return
    named = {(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args}
    reason = pytest.mark.skip(reason="long: name the file, or add -m long")
    for item in items:
        if item.get_closest_marker(LONG) and item.path.resolve() not in named:
            item.add_marker(reason)


def pytest_ignore_collect(collection_path, config):
    return None if config.getoption("benchmark_only") else True


@pytest.fixture(autouse=True)
def one_thread():
    """Use one CPU thread, as the demo's jobs do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["torch"] = torch.__version__
    machine_info["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
