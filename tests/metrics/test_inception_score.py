import math

import numpy as np
import pytest
import torch

from dcae_bench.metrics.inception_score import inception_score, unbiased_logits


def test_confident_and_even_classes_score_their_number():
    logits = 100 * torch.eye(4).repeat(500, 1)
    # The shuffle leaves splits of 200 a little uneven.
    assert inception_score(logits).value == pytest.approx(4, rel=0.02)


def test_one_class_scores_one():
    found = inception_score(torch.zeros(30, 7))
    assert found.value == pytest.approx(1) and found.spread == pytest.approx(0, abs=1e-9)


def test_definition_on_two_images_per_split():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]]).repeat(10, 1)
    # A split holds two equal images (1) or two opposite ones: exp of the mean divergence from (1/2, 1/2).
    opposite = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    order = np.random.RandomState(2020).permutation(20) % 2
    shares = [opposite if a != b else 1.0 for a, b in order.reshape(10, 2)]
    assert inception_score(logits).value == pytest.approx(np.mean(shares))


def test_logits_leave_the_bias_out():
    rng = np.random.default_rng(0)
    features, weight = rng.standard_normal((5, 3)).astype(np.float32), torch.arange(6.0).reshape(2, 3)
    assert torch.allclose(unbiased_logits(features, weight, rows=2), torch.from_numpy(features) @ weight.T)


def test_unusable_logits_are_refused():
    with pytest.raises(ValueError, match="10 images"):
        inception_score(torch.zeros(9, 3))
    with pytest.raises(ValueError, match="not finite"):
        inception_score(torch.full((10, 3), torch.inf))
