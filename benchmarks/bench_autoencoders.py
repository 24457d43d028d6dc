"""DC-AE f32c32 at full size compared with diffusers' AutoencoderDC: same weights, same inputs, one process.

One round runs a large matrix product, diffusers' model and our model one after another, so that a disturbance of the
machine slows all three. Results are the best of the rounds. ``python benchmarks/table.py`` prints the recorded JSON.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import diffusers
import pytest
import torch
from torch import Tensor, nn

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.execution.fast import fast_inference, searched_convolutions
from dcae_bench.measurement.instruments.ceiling import Matmul
from dcae_bench.models.cost import autoencoder_cost
from dcae_bench.models.diffusers_config import diffusers_config
from dcae_bench.models.keys import layouts, write_layout
from dcae_bench.models.zoo import build

pytestmark = pytest.mark.long
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
NAME = "dc-ae-f32c32"
# Side (px) and batch of encoding and decoding, then of the training step.
SIDE, BATCH, TRAIN_SIDE, TRAIN_BATCH = (512, 8, 512, 4) if CUDA else (256, 1, 128, 1)
ROUNDS = 20 if CUDA else 2
TRAIN_ROUNDS = ROUNDS if CUDA else 5
"""The first step also allocates AdamW's moments, so that the best of the rounds needs several further steps."""
DTYPES = {"bf16": torch.bfloat16} if CUDA else {"fp32": torch.float32, "bf16": torch.bfloat16}
MODES = ["eager", "compiled"] if CUDA else ["eager"]
FP32_MAX_ERROR = 1e-4
BF16_MAX_ERROR = 0.03
"""Relative RMS of the difference from diffusers' output in fp32, for either implementation."""


class Theirs(nn.Module):
    """diffusers' AutoencoderDC with the signatures of our autoencoders."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def encode(self, x: Tensor) -> Tensor:
        return self.net.encode(x).latent

    def decode(self, z: Tensor) -> Tensor:
        return self.net.decode(z).sample

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


@cache
def models(dtype: torch.dtype) -> dict[str, nn.Module]:
    spec = catalogue().spec(NAME)
    ours = build(spec, seed=0)
    state = write_layout(ours.state_dict(), layouts(spec, ours.state_dict())["diffusers"])
    with torch.device("meta"):
        theirs = diffusers.AutoencoderDC(**diffusers_config(spec))
    theirs.load_state_dict({key: value.contiguous().clone() for key, value in state.items()}, assign=True)
    return {"ours": ours.to(DEVICE, dtype).eval(), "diffusers": Theirs(theirs).to(DEVICE, dtype).eval()}


@pytest.fixture(autouse=True)
def searched():
    """cuDNN times its convolutions, for either implementation."""
    with searched_convolutions():
        yield


@cache
def exact(what: str) -> tuple[Tensor, Tensor]:
    """Input and output of diffusers' model in fp32."""
    x = 2 * torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) - 1
    theirs = models(torch.float32)["diffusers"]
    with torch.inference_mode():
        x = x.to(DEVICE) if what == "encode" else exact("encode")[1]
        return x, getattr(theirs, what)(x)


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Seconds and result of a call. On a CPU the seconds are processor time, which other programs do not lengthen."""
    clock = time.perf_counter if CUDA else time.process_time
    start = clock()
    out = function()
    if CUDA:
        torch.cuda.synchronize()
    return clock() - start, out


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found.float() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def in_turn(
    benchmark, calls: dict[str, Callable[[], object]], dtype: torch.dtype, gmacs: float, rounds: int, **info
) -> None:
    """Time our call with the benchmark; before each round, time the matrix product and diffusers' call separately."""
    matmul = Matmul(dtype, DEVICE)
    seconds: dict[str, list[float]] = {"matmul": [], "diffusers": [], "ours": []}
    calls = {"matmul": matmul, **calls}
    peak = {}
    for name, call in calls.items() if CUDA else ():  # warm up, compile, and measure the peak memory
        timed(call)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        timed(call)
        peak[name] = (torch.cuda.max_memory_allocated() - before) / 2**30

    def others() -> None:
        for name in ("matmul", "diffusers"):
            seconds[name].append(timed(calls[name])[0])

    benchmark.pedantic(lambda: seconds["ours"].append(timed(calls["ours"])[0]), setup=others, rounds=rounds)
    best = {name: min(values) for name, values in seconds.items()}
    ceiling = matmul.flops / best["matmul"] / 1e9
    benchmark.extra_info |= {
        **info,
        "autoencoder": NAME,
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "threads": torch.get_num_threads(),
        "diffusers": diffusers.__version__,
        "gmacs": gmacs,
        "matmul_gflops": ceiling,
        "seconds": {name: best[name] for name in ("ours", "diffusers")},
        "of_ceiling": {name: 2 * gmacs / best[name] / ceiling for name in ("ours", "diffusers")},
        "peak_gib": {name: peak[name] for name in ("ours", "diffusers") if name in peak},
    }


@pytest.mark.benchmark(group="autoencoders")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["encode", "decode"])
@pytest.mark.parametrize("precision", DTYPES)
def test_inference(benchmark, precision, what, mode):
    dtype = DTYPES[precision]
    x, wanted = exact(what)
    x = x.to(dtype)
    found = models(dtype)
    # Ours as evaluations and encodings on a GPU use it: rewritten before it is cast, for one rounding of the weights.
    fast = {"ours": fast_inference(models(torch.float32)["ours"]).to(dtype), "diffusers": found["diffusers"]}
    methods = {name: getattr(model, what) for name, model in fast.items()}
    if mode == "compiled":
        methods = {name: torch.compile(method) for name, method in methods.items()}
    with torch.inference_mode():
        found = {name: method(x) for name, method in methods.items()}
        errors = {name: relative(y, wanted) for name, y in found.items()}
        largest = {name: (y - wanted).abs().max().item() for name, y in found.items()}
        assert max(errors.values()) < BF16_MAX_ERROR
        assert dtype != torch.float32 or largest["ours"] <= FP32_MAX_ERROR
        gmacs = autoencoder_cost(catalogue().spec(NAME), [SIDE]).passes[SIDE]
        work = BATCH * (gmacs.encode_gmacs if what == "encode" else gmacs.decode_gmacs)
        info = {"what": what, "precision": precision, "mode": mode, "side": SIDE, "batch": BATCH}
        calls = {name: lambda method=method: method(x) for name, method in methods.items()}
        in_turn(benchmark, calls, dtype, work, ROUNDS, error=errors, largest_error=largest, **info)


@pytest.mark.benchmark(group="autoencoders")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", DTYPES)
def test_training_step(benchmark, precision, mode):
    """Forward pass, L1, backward pass and AdamW, on fp32 weights with bf16 by autocast.

    The backward pass counts as two forward passes.
    """
    dtype = DTYPES[precision]
    x = 2 * torch.rand(TRAIN_BATCH, 3, TRAIN_SIDE, TRAIN_SIDE, generator=torch.Generator().manual_seed(2)) - 1
    x = x.to(DEVICE)
    half = torch.autocast(DEVICE, dtype) if dtype != torch.float32 else nullcontext()

    def step(forward: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        with half:
            y = forward(x)
        loss = (y.float() - x).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    calls = {}
    losses: dict[str, list[float]] = {"ours": [], "diffusers": []}
    models.cache_clear()  # training changes the weights: build fresh models, and free the others
    for name, model in models(torch.float32).items():
        forward = torch.compile(model.train()) if mode == "compiled" else model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        calls[name] = lambda forward=forward, optimizer=optimizer, name=name: losses[name].append(
            step(forward, optimizer)
        )
    work = autoencoder_cost(catalogue().spec(NAME), [TRAIN_SIDE]).passes[TRAIN_SIDE]
    work = 3 * TRAIN_BATCH * (work.encode_gmacs + work.decode_gmacs)
    info = {"what": "training step", "precision": precision, "mode": mode, "side": TRAIN_SIDE, "batch": TRAIN_BATCH}
    in_turn(benchmark, calls, dtype, work, TRAIN_ROUNDS, **info)
    models.cache_clear()
    benchmark.extra_info["losses"] = {name: [float(value) for value in values] for name, values in losses.items()}
    first = {name: float(values[0]) for name, values in losses.items()}
    assert first["ours"] == pytest.approx(first["diffusers"], rel=1e-5 if dtype == torch.float32 else 0.01)
