"""The cache of counted costs."""

import json
from collections.abc import Callable

import pytest

from dcae_bench.base.files import cache_dir
from dcae_bench.base.typed import Strict
from dcae_bench.costs.cache import cached


class Cost(Strict):
    flops: int


@pytest.fixture
def count(tmp_path, monkeypatch) -> Callable[[], int]:
    """Asks for a cost of 7; returns how often it was counted so far."""
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    counted = []

    def counting() -> Cost:
        counted.append(1)
        return Cost(flops=7)

    def ask() -> int:
        assert cached(Cost, ["key"], counting) == Cost(flops=7)
        return len(counted)

    return ask


def test_a_kept_cost_is_not_counted_again(count):
    assert count() == count() == 1


@pytest.mark.parametrize(
    "damage", [lambda text: "", lambda text: "\0" * len(text), lambda text: text.replace("7", "8")]
)
def test_a_damaged_cost_is_counted_and_kept_again(count, damage):
    count()
    (path,) = cache_dir().glob("costs/*.json")
    whole = path.read_text()
    kept = json.loads(whole)
    for text in (damage(whole), json.dumps({**kept, "cost": {"flops": 8}}), json.dumps(kept["cost"]), "[]"):
        path.write_text(text)
        before = count()
        assert path.read_text() == whole and count() == before


def test_a_cache_that_cannot_be_written_only_costs_time(count, tmp_path, caplog):
    (tmp_path / "cache").write_text("in the way")
    assert (count(), count()) == (1, 2) and "the cost is counted again next time" in caplog.text
