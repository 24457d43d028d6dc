"""Noise by sample, and the authors' streams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.diffusion.noise import SampleNoise, paper_batches, paper_labels

SHAPE = (2, 3, 3)


@given(
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True),
    cut=st.integers(0, 8),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_a_samples_noise_does_not_depend_on_its_batch(indices, cut, seed):
    together = SampleNoise(seed, indices, SHAPE)
    parts = [SampleNoise(seed, part, SHAPE) for part in (indices[:cut], indices[cut:])]
    for _ in range(3):
        assert together().equal(torch.cat([part() for part in parts]))


def test_samples_seeds_and_draws_differ():
    noise = SampleNoise(0, range(200), SHAPE)
    draws = torch.stack([noise(), noise(), SampleNoise(1, range(200), SHAPE)()]).flatten(0, 1).flatten(1)
    assert draws.dtype == torch.float32 and len(draws.unique(dim=0)) == 600
    count = draws.numel()
    assert abs(draws.mean()) < 4 / count**0.5 and abs(draws.var() - 1) < 4 * (2 / count) ** 0.5
    correlation = torch.corrcoef(draws[:200].T.reshape(18, 200)) - torch.eye(18)
    assert correlation.abs().max() < 5 / 200**0.5


def test_the_stream_of_a_sample_is_pinned():
    assert SampleNoise(0, [7], (3,))().flatten().tolist() == pytest.approx([-0.7006, 1.2242, 0.2818], abs=1e-4)


def test_labels_of_the_paper():
    labels = paper_labels(50_000)
    assert labels[:20].tolist() == [
        *(44, 239, 933, 760, 963, 379, 427, 503, 497, 683),
        *(101, 866, 756, 399, 878, 376, 56, 868, 794, 33),
    ]
    counts = labels.bincount()
    assert (labels.sum().item(), counts.min().item(), counts.max().item()) == (24_998_842, 23, 73)


def test_the_papers_ranks_in_batches_of_64():
    batches = list(paper_batches(50_000, 0, (1,), "cpu"))
    assert [index for batch in batches for index in batch.indices] == list(range(50_000))
    assert [len(batch.indices) for batch in batches[:98]] == [64] * 97 + [42]
    assert [batch.rank for batch in batches] == [rank for rank in range(8) for _ in range(98)]


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("asked", [4, 3, 0])
def test_each_rank_draws_as_the_authors_do(doubled, asked):
    """The start from a generator of its own, the noise of the steps from torch's default one, both of seed + rank.

    Under guidance the steps are taken on the doubled batch. The last step draws noise that it does not add, and the
    sampler here does not ask for it (``asked`` of 4); a batch that is finished already asks for none.
    """
    found = []
    for batch in paper_batches(1100, 5, SHAPE, "cpu", ranks=[2, 3], steps=4, doubled=doubled):
        if batch.rank == 3:
            found.append((batch.indices, [batch.noise() for _ in range(1 + asked)] if asked else []))
    generator = torch.Generator().manual_seed(5 + 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5 + 3)
        for indices, draws in found:
            start = torch.randn(len(indices), *SHAPE, generator=generator)
            x = torch.cat([start, start]) if doubled else start
            expected = [start, *(torch.randn_like(x)[: len(indices)] for _ in range(4))]
            assert all(map(torch.equal, draws, expected))
    assert [len(indices) for indices, _ in found] == [64, 64, 10]


def test_ranks_replayed_apart_are_those_replayed_together():
    together = {batch.indices: batch.noise() for batch in paper_batches(1000, 0, SHAPE, "cpu")}
    apart = {
        batch.indices: batch.noise()
        for ranks in ([0, 4], [1, 5], [2, 6], [3, 7])
        for batch in paper_batches(1000, 0, SHAPE, "cpu", ranks=ranks)
    }
    assert together.keys() == apart.keys() and all(together[key].equal(apart[key]) for key in together)


def test_a_count_that_the_ranks_do_not_divide_wraps_around():
    indices = [index % 13 for batch in paper_batches(13, 0, (1,), "cpu") for index in batch.indices]
    assert indices == [*range(13), 0, 1, 2]
