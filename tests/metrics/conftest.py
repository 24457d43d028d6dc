import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """Convert the embedded weights once for this session, and leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCAE_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)
