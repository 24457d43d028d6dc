import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from dcae_bench.metrics import kernel as module
from dcae_bench.metrics.kernel import kernel_distance


def pair(rng, n, m, d=16, shift=0.3):
    return torch.randn(n, d, generator=rng), torch.randn(m, d, generator=rng) * 1.1 + shift


# With subsets of 50 and 20 of them, sets of 60 go through one kernel, and sets of 400 through one for each subset.
@pytest.mark.parametrize(("n", "m"), [(60, 80), (400, 300), (50, 50)])
def test_is_torch_fidelitys(monkeypatch, rng, n, m):
    monkeypatch.setattr(module, "SUBSET_SIZE", 50)
    monkeypatch.setattr(module, "SUBSETS", 20)
    real, fake = pair(rng, n, m)
    theirs = kid_features_to_metric(fake, real, kid_subsets=20, kid_subset_size=50, rng_seed=2020, verbose=False)
    found = kernel_distance(real, fake)
    assert found.value == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-4)
    assert found.spread == pytest.approx(theirs[KEY_METRIC_KID_STD], rel=1e-3, abs=1e-6)
    assert (found.images, found.subset_size, found.notes) == (min(n, m), 50, ())


def test_subsets_shrink_to_the_set_and_say_so(rng):
    real, fake = pair(rng, 30, 24)
    found = kernel_distance(real, fake)
    theirs = kid_features_to_metric(fake, real, kid_subset_size=24, verbose=False)
    assert found.value == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-4)
    assert found.subset_size == 24 and "subsets of 24 instead of 1000" in found.notes[0]


def test_definition_on_two_pairs():
    # k(x, y) = (xy/d + 1)^3 with d = 1: unbiased MMD² of {0, 1} and {2, 3} by hand.
    def k(x, y):
        return (x * y + 1) ** 3

    expected = k(0, 1) + k(2, 3) - 2 * (k(0, 2) + k(0, 3) + k(1, 2) + k(1, 3)) / 4
    assert kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])).value == pytest.approx(expected)


def test_equal_sets_are_near_zero(rng):
    real, fake = pair(rng, 300, 300, shift=0.5)
    assert abs(kernel_distance(real, real).value) < 0.05 * kernel_distance(real, fake).value


def test_unusable_features_are_refused():
    for real, fake in ((torch.zeros(1, 3), torch.zeros(5, 3)), (torch.zeros(4, 3), torch.zeros(5, 4))):
        with pytest.raises(ValueError, match="needs two sets"):
            kernel_distance(real, fake)
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(torch.full((4, 3), torch.nan), torch.zeros(5, 3))
