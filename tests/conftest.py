"""What every test shares."""


def pytest_ignore_collect(collection_path, config):
    """Leave the tests out of a benchmark run."""
    return True if config.getoption("benchmark_only") else None
