"""The fast path is taken only where it agrees with eager PyTorch; whoever asked is told, and so is the record."""

import math

import pytest
import torch

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.agreement import LIMITS
from dcae_bench.execution.inference import Compared, FastDenoiser, FixedBatch, error_of, filled_up, largest
from dcae_bench.execution.path import Fast, choose_path, wants_fast
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.running.processes import Worker
from dcae_bench.specs.denoisers import Architecture, LatentSpace
from tests.measurement import graphs

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def choose(request, device, error, said=None, **more):
    def error_of_network(network):
        assert network == "fast"
        if isinstance(error, Exception):
            raise error
        return error

    say = (said if said is not None else []).append
    return choose_path(
        request, device, "eager", lambda: Fast("fast", "tricks"), error_of_network, what="outputs", say=say, **more
    )


@pytest.mark.parametrize(
    ("request_", "device", "wanted"),
    [("auto", CPU, False), ("auto", GPU, True), ("eager", GPU, False), ("fast", CPU, True), ("fast", GPU, True)],
)
def test_the_fast_path_is_the_default_of_a_gpu_alone(request_, device, wanted):
    assert wants_fast(request_, device) == wanted
    chosen = choose(request_, device, 1e-5)
    assert (chosen.network, chosen.path.name) == (("fast", "fast") if wanted else ("eager", "eager"))
    assert (chosen.path.agreement is not None) == wanted and (chosen.path.reason is None) == wanted


def test_a_fast_path_that_agrees_is_told_with_its_error():
    said = []
    path = choose("auto", GPU, 2e-4, said).path
    assert (path.how, path.agreement.error, path.agreement.limit, path.reason) == ("tricks", 2e-4, LIMITS["fp32"], None)
    assert said == ["the path is fast (error 0.0002, limit 0.001): tricks"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (0.3, "outputs differ by 0.3, above 0.001"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        (RuntimeError("\n  no compiler\nat line 3"), "RuntimeError: no compiler"),
        (ImportError(), "ImportError: no message"),
    ],
)
def test_a_fast_path_that_disagrees_or_breaks_is_left_and_told(error, told):
    said = []
    chosen = choose("auto", GPU, error, said)
    assert chosen.network == "eager" and told in chosen.path.reason
    assert said == [f"the path is eager: {chosen.path.reason}"]
    assert (chosen.path.agreement is None) == (error != 0.3)
    with pytest.raises(ConfigError, match=r"--path fast: cannot be taken: .*; use --path auto or --path eager"):
        choose("fast", GPU, error)


def test_tf32_has_a_limit_of_its_own():
    assert choose("auto", GPU, 3e-3).path.name == "eager"
    assert choose("auto", GPU, 3e-3, tf32=True).path.name == "fast"
    assert LIMITS["fp32"] < LIMITS["tf32"] < LIMITS["fp16"]


def test_all_processes_take_the_same_path():
    class Second(Worker):
        def names_everywhere(self, names):
            assert names == ["fast"], "this process could"
            return []

    path = choose("auto", GPU, 1e-5, process=Second(1, 2)).path
    assert path.name == "eager" and path.reason == "another process cannot take the fast path"


@pytest.mark.parametrize("graph", [False, True])
def test_a_fixed_batch_computes_any_number_of_images(graph, monkeypatch):
    made = graphs.use(monkeypatch)
    sizes = []

    def function(x, nothing, t):
        assert nothing is None
        sizes.append(len(x))
        return 2 * x + t[:, None]

    call = FixedBatch(function, 4, graph=graph)
    for count in (4, 1, 9):
        x, t = torch.randn(count, 3), torch.randn(count)
        kept = call(x, None, t)
        assert kept.equal(2 * x + t[:, None])
        call(torch.zeros(4, 3), None, torch.zeros(4))
        assert kept.equal(2 * x + t[:, None]), "an output outlives the next call"
    assert set(sizes) == {4} and len(made) == graph
    wide = torch.randn(3, 5)
    assert call(wide, None, torch.zeros(3)).equal(2 * wide)
    assert len(made) == 2 * graph, "another shape is another graph"


def test_a_batch_is_filled_up_with_its_last_image():
    x = torch.arange(6.0).view(3, 2)
    assert filled_up(x, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert filled_up(x, 3) is x


def test_the_largest_error_keeps_nan():
    x = torch.randn(4)
    assert error_of(x, x) == 0 and error_of(1.01 * x, x) == pytest.approx(0.01, rel=1e-3)
    assert math.isnan(error_of(x / 0, x)) and math.isnan(largest(1.0, math.nan, 2.0)) and largest(1.0, 2.0) == 2


def test_predictions_are_compared_while_a_sampler_runs():
    latent = LatentSpace(channels=4, side=4, patch=2)
    spec = Architecture(family="uvit", width=16, depth=2, heads=2).on(latent, 3)
    model = build_denoiser(spec, seed=0).eval()
    x, t, y = torch.randn(2, 4, 4, 4), torch.rand(2), torch.tensor([0, 2])
    calls = []

    def drifting(*inputs):
        calls.append(inputs)
        return model(*inputs) * (1.05 if len(calls) == 2 else 1)

    compared = Compared(model, FastDenoiser(spec, drifting))
    assert not list(compared.parameters())
    with torch.inference_mode():
        for _ in range(3):
            assert compared(x, t, y).equal(model(x, t, y)), "the plain prediction goes on"
    assert compared.error == pytest.approx(0.05, rel=1e-3)
