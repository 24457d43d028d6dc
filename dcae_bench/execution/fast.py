"""Networks rewritten for speed: the same function, equal up to rounding, with fewer passes over memory.

Nothing here is done unless someone asks for it. docs/performance.md says what each rewriting saves.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.residual import ResBlock
from dcae_bench.models.uvit import UViTBlock

Network = TypeVar("Network", bound=nn.Module)


def fast_inference(network: Network) -> Network:
    """A copy of ``network`` for inference, in evaluation mode and without gradients; ``network`` stays as it is.

    BatchNorm is folded into the convolution before it, so that the copy's state dict has other keys. Weights that do
    not change are not copied: both networks read the same memory until one of them is moved, cast or loaded anew.
    Make the copy before a cast to half precision: the folded weights are then rounded once.
    """
    fast = _copy_sharing_weights(network).eval()
    for module in list(fast.modules()):
        if isinstance(module, ResBlock):
            _fold_norm(module)
            if isinstance(module.activation, nn.ReLU | nn.SiLU):
                module.activation.inplace = True  # nothing else reads the output of the first convolution
    split_merges(fast)
    return fast


def keep_stream_in(network: Denoiser, dtype: torch.dtype) -> None:
    """Keep the tokens between the blocks of ``network`` in ``dtype``, which norms and sums then read and write.

    Without it they are fp32 under autocast: in DiT between all blocks, in UViT up to the first merge of a long skip.
    The norms still compute in fp32 and the products in the type of autocast.
    Weights and state dict stay as they are.
    """
    network.stream_dtype = dtype


def fast_training(network: nn.Module, stream: torch.dtype | None) -> None:
    """Let a denoiser train with fewer passes over memory: split merges, and its tokens kept in ``stream``, if given.

    This is done in place; weights and state dict stay as they are, as do other networks.
    """
    split_merges(network)
    if stream is not None and isinstance(network, Denoiser):
        keep_stream_in(network, stream)


@contextmanager
def searched_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new shape of a convolution and keep the fastest.

    Results may differ from run to run by rounding, so nothing is searched where torch is asked for determinism.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled())
    try:
        yield
    finally:
        cudnn.benchmark = before


def split_merges(network: nn.Module) -> None:
    """Let UViT's blocks merge a long skip by two products that are added, without a copy of both inputs side by side.

    Other networks stay as they are, as do weights and state dict.
    """
    for module in network.modules():
        if isinstance(module, UViTBlock):
            module.splits_merge = True


def _copy_sharing_weights(network: Network) -> Network:
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    memo |= {id(buffer): buffer.detach() for buffer in network.buffers()}
    return copy.deepcopy(network, memo)


def _fold_norm(block: ResBlock) -> None:
    """Fold the BatchNorm after the second convolution into it; another norm stays."""
    conv, norm = block.conv2, block.norm
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return
    weight, bias = fuse_conv_bn_weights(
        _wide(conv.weight),
        None,  # the convolution has no bias of its own
        _wide(norm.running_mean),
        _wide(norm.running_var),
        norm.eps,
        None if norm.weight is None else _wide(norm.weight),
        None if norm.bias is None else _wide(norm.bias),
    )
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.detach().to(dtype, memory_format=torch.channels_last), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    block.norm = nn.Identity()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
