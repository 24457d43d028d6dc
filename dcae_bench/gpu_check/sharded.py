"""Sharded weights on one GPU: a step and a checkpoint beside those of a plain net."""

import copy

import torch
from torch import nn

from dcae_bench.execution.blocks import checkpoint_blocks
from dcae_bench.execution.sharding import load_model, load_optimizer, shard, whole
from dcae_bench.gpu_check import tiny
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.training import OptimizerSpec
from dcae_bench.specs.denoisers import DenoiserSpec
from dcae_bench.training.phases import make_optimizer

STEPS = 3


def sharded_error(device: str) -> float:
    """Relative difference of two denoisers' weights after a few steps, one of them sharded and loaded from its state.

    In the Euclidean norm over all weights, because Adam moves a weight whose gradient is only rounding as far as any
    other. A process group must be there.
    """
    profile = tiny.profile(device)
    row = profile.trained_row(next(iter(profile.required_diffusion.rows)))
    latent, spec = row.denoiser.latent, row.training.optimizer
    states = []
    for sharded in (False, True):
        torch.manual_seed(0)
        batch = torch.randn(4, latent.channels, latent.side, latent.side, device=device)
        net, optimizer = _open(row.denoiser, spec, device, sharded=sharded)
        for step in range(STEPS):
            if sharded and step == 1:  # as a run that was stopped
                kept = copy.deepcopy(whole({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, keep=True))
                net, optimizer = _open(row.denoiser, spec, device, sharded=True)
                load_model(net, kept["net"])
                load_optimizer(optimizer, kept["optimizer"])
            labels = torch.zeros(4, dtype=torch.int64, device=device)
            net(batch, torch.full((4,), 0.5, device=device), labels).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        states.append(whole(net.state_dict(), keep=True))
    plain, found = states
    differences = [(found[name].double().cpu() - value.double().cpu()).norm() for name, value in plain.items()]
    sizes = [value.double().norm().cpu() for value in plain.values()]
    return float(torch.stack(differences).norm() / torch.stack(sizes).norm())


def _open(
    spec: DenoiserSpec, optimizer: OptimizerSpec, device: str, *, sharded: bool
) -> tuple[nn.Module, torch.optim.Optimizer]:
    net = build_denoiser(spec, seed=0).to(device).train()
    checkpoint_blocks(net)
    if sharded:
        shard(net, torch.device(device))
    return net, make_optimizer(net.parameters(), optimizer)
