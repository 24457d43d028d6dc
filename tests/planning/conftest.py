"""What every estimate is tested on: the profiles, and no counts of earlier runs."""

import pytest

from dcae_bench.profile.profile import load_profile


@pytest.fixture(scope="module", autouse=True)
def no_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCAE_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def paper():
    return load_profile("paper")


@pytest.fixture(scope="module")
def demo():
    return load_profile("demo")
