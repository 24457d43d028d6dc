"""DiT on DC-AE's f32 latents compared with diffusers' DiTTransformer2DModel: same weights and inputs, one process.

On a GPU the model is DiT-XL in bf16 autocast. diffusers' model runs eagerly; ours runs eagerly and compiled, as
``execution: {compile: true}`` trains it. The target is 1.3 times diffusers' speed. On a CPU the model is DiT-S in fp32,
which only shows that the comparison runs and that both models compute the same.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext

import diffusers
import pytest
import torch
from torch import Tensor, nn

from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.execution.blocks import compile_blocks
from dcae_bench.models.denoiser_keys import to_diffusers
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace

pytestmark = pytest.mark.long
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
NAME = "dit-xl" if CUDA else "dit-s"
LATENT = LatentSpace(channels=32, side=16, patch=1)
# Images of a training step; images of a sampling pass, before guidance doubles them; passes per timing; rounds.
TRAIN_BATCH, SAMPLE_BATCH, REPEATS, ROUNDS = (32, 64, 5, 20) if CUDA else (2, 2, 1, 4)
NFE = 250
"""Number of function evaluations (passes) per sample, as in the paper."""
MODES = ["eager", "compiled"] if CUDA else ["eager"]
TARGET = 1.3


class Theirs(nn.Module):
    """diffusers' DiTTransformer2DModel with the signature of our denoisers."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.net(x, timestep=t, class_labels=y).sample


def pair(mode: str) -> dict[str, nn.Module]:
    """Both models with the same random weights.

    They drop no labels, because diffusers' model would draw the dropped labels itself.
    """
    spec = denoiser_catalogue().architecture(NAME).on(LATENT, 1000)
    assert isinstance(spec, DiTSpec)
    ours = build_denoiser(spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # DiT's weights that start as zeros would hide differences
        for parameter in ours.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.02, generator=generator)
    with torch.device("meta"):
        net = diffusers.DiTTransformer2DModel(
            num_attention_heads=spec.heads,
            attention_head_dim=spec.width // spec.heads,
            in_channels=LATENT.channels,
            out_channels=spec.out_channels,
            num_layers=spec.depth,
            sample_size=LATENT.side,
            patch_size=LATENT.patch,
            num_embeds_ada_norm=spec.classes,
            norm_eps=1e-6,
        )
    theirs = net.to_empty(device="cpu")
    # The fixed positions are not in the state dict of diffusers' model.
    theirs.pos_embed.pos_embed.copy_(ours.pos_embed.detach())
    theirs.load_state_dict(to_diffusers(ours.state_dict(), spec))
    for block in theirs.transformer_blocks:  # DiT's own frequencies, see dcae_bench/models/denoiser_keys.py
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    ours = ours.to(DEVICE).eval()
    if mode == "compiled":
        compile_blocks(ours)
    return {"diffusers": Theirs(theirs.to(DEVICE).eval()), "ours": ours}


def inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, LATENT.channels, LATENT.side, LATENT.side, generator=generator)
    t = torch.randint(0, 1000, (count,), generator=generator)
    return x.to(DEVICE), t.to(DEVICE), torch.randint(0, 1000, (count,), generator=generator).to(DEVICE)


def half() -> torch.autocast | nullcontext:
    return torch.autocast("cuda", torch.bfloat16) if CUDA else nullcontext()


def timed(call: Callable[[], object]) -> float:
    """Seconds per call. On a GPU the time ends when the GPU is idle again."""
    if CUDA:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(REPEATS):
        call()
    if CUDA:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / REPEATS


def in_turn(benchmark, calls: dict[str, Callable[[], object]], images: float, **info) -> None:
    """Time our call with the benchmark, and diffusers' call before each round. Compare the medians."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # warm up, compile
        timed(call)
    benchmark.pedantic(
        lambda: seconds["ours"].append(timed(calls["ours"])),
        setup=lambda: seconds["diffusers"].append(timed(calls["diffusers"])),
        rounds=ROUNDS,
    )
    medians = {name: torch.tensor(values).median().item() for name, values in seconds.items()}
    speed_up = medians["diffusers"] / medians["ours"]
    benchmark.extra_info |= {
        **info,
        "denoiser": NAME,
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "precision": "bf16 autocast" if CUDA else "fp32",
        "diffusers": diffusers.__version__,
        "images_per_s": {name: images / median for name, median in medians.items()},
        "speed_up": speed_up,
    }
    assert not CUDA or info["mode"] == "eager" or speed_up >= TARGET


@pytest.mark.benchmark(group="DiT beside diffusers")
@pytest.mark.parametrize("mode", MODES)
def test_sampling(benchmark, mode):
    """A pass of guided sampling: one doubled batch, half of it with class labels, half without."""
    models = pair(mode)
    x, t, y = (torch.cat([value, value]) for value in inputs(SAMPLE_BATCH))
    y[SAMPLE_BATCH:] = 1000
    with torch.inference_mode(), half():
        found = {name: model(x, t, y).float() for name, model in models.items()}
        error = (found["ours"] - found["diffusers"]).square().mean().sqrt() / found["diffusers"].square().mean().sqrt()
        assert error < (0.03 if CUDA else 1e-4)
        calls = {name: lambda model=model: model(x, t, y) for name, model in models.items()}
        in_turn(benchmark, calls, SAMPLE_BATCH / NFE, mode=mode, batch=SAMPLE_BATCH, nfe=NFE, error=error.item())


@pytest.mark.benchmark(group="DiT beside diffusers")
@pytest.mark.parametrize("mode", MODES)
def test_training_step(benchmark, mode):
    """Forward pass, squared error of all outputs, backward pass and AdamW on fp32 weights."""
    models, (x, t, y) = pair(mode), inputs(TRAIN_BATCH)
    wanted = torch.cat([x, x.flip(0)], dim=1)
    losses: dict[str, list[Tensor]] = {name: [] for name in models}

    def step(name: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with half():
            found = model(x, t, y)
        loss = (found.float() - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses[name].append(loss.detach())

    calls = {}
    for name, model in models.items():
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        calls[name] = lambda name=name, model=model, optimizer=optimizer: step(name, model, optimizer)
    in_turn(benchmark, calls, TRAIN_BATCH, mode=mode, batch=TRAIN_BATCH)
    first = {name: values[0].item() for name, values in losses.items()}
    assert first["ours"] == pytest.approx(first["diffusers"], rel=0.01 if CUDA else 1e-5)
