"""Sharding: each process keeps a share of a net's weights, gradients and optimiser instead of a copy (torch's FSDP).

States on disk hold whole tensors, so a run may go on with or without sharding. The loaders here take such states for
plain nets too.
"""

from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.blocks import known_blocks

if TYPE_CHECKING:  # importing them takes most of a second, which a training without sharding need not spend
    from torch.distributed.tensor import DTensor


def shard(model: nn.Module, device: torch.device) -> None:
    """Keep a share of every parameter in each process. A block's weights are whole only while the block computes.

    Buffers stay whole. A model without known blocks is gathered as a whole. Call it before an optimiser takes the
    parameters. Raises :class:`ConfigError` for a model with a parameter that has no dimension.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if scalars := [name for name, parameter in model.named_parameters() if not parameter.ndim]:
        raise ConfigError(
            f"sharding 'full': parameter '{scalars[0]}' of {type(model).__name__} has no dimension to share; give it "
            "the shape (1,), or leave sharding out"
        )
    for parameter in model.parameters():  # whatever its memory format: torch gathers plain arrays
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in known_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` was applied to a model."""
    return hasattr(model, "reshard")


def whole(state: Any, *, keep: bool) -> Any:
    """A nested state with whole tensors in the place of shares. All processes must call it together.

    Processes without ``keep`` get None for them; with it, the whole tensors lie in the CPU's memory.
    """
    if is_share(state):
        gathered = state.full_tensor()
        return gathered.cpu() if keep else None
    if isinstance(state, dict):
        return {key: whole(value, keep=keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value, keep=keep) for value in state)
    return state


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's share of a whole tensor, if ``like`` is a share; else the tensor itself."""
    if not is_share(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    with torch.no_grad():
        # Every process has read the same file, so nothing is exchanged. The copy lets go of the whole tensor.
        shared = distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
        return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(shared)


def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state of whole tensors into a model, sharded or not."""
    own = model.state_dict()
    model.load_state_dict({key: share_of(value, own[key]) if key in own else value for key, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state of whole tensors; its parameters may be sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {
            # The count of steps is no share of anything.
            name: share_of(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def norm_as_float(norm: Tensor) -> float:
    """A gradient norm as a number. The processes add up that of a sharded net."""
    return (norm.full_tensor() if is_share(norm) else norm).item()


def is_share(value: object) -> "TypeGuard[DTensor]":
    """Whether a value is this process's share of a tensor."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")
