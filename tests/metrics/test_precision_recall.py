import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.metrics import precision_recall as module
from dcae_bench.metrics.precision_recall import precision_recall


def by_definition(real, fake):
    """Shares inside the other side's balls, straight from the paper's equations (1) and (2)."""

    def inside(points, centres):
        own = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        radii = np.sort(own, axis=1)[:, 3]
        return np.mean((np.linalg.norm(points[:, None] - centres[None], axis=2) <= radii).any(axis=1))

    return inside(fake, real), inside(real, fake)


@given(st.integers(0, 2**32 - 1), st.integers(5, 40), st.integers(5, 40))
@settings(max_examples=15, deadline=None)
def test_is_the_definition(seed, n, m):
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", 7)
        found = precision_recall(torch.from_numpy(real), torch.from_numpy(fake))
    assert (found.precision, found.recall) == pytest.approx(by_definition(real, fake))


def test_few_modes_are_precise_and_far_ones_are_not():
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(200, 4, generator=rng)
    one_mode = precision_recall(real, 0.05 * torch.randn(200, 4, generator=rng))
    assert one_mode.precision == 1 and one_mode.recall < 0.1
    far = precision_recall(real, real + 100)
    assert (far.precision, far.recall) == (0, 0)


def test_unusable_features_are_refused():
    for real, fake in ((torch.zeros(3, 2), torch.zeros(9, 2)), (torch.zeros(9, 2), torch.zeros(9, 3))):
        with pytest.raises(ValueError, match="need two sets"):
            precision_recall(real, fake)
    with pytest.raises(ValueError, match="not finite"):
        precision_recall(torch.full((9, 2), torch.nan), torch.zeros(9, 2))
