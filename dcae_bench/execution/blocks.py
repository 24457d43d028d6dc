"""The blocks of a model: activation checkpointing and compilation, block by block."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.batch_norm import SharedBatchNorm
from dcae_bench.models.dc_ae import Head
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.efficientvit import EfficientViTBlock
from dcae_bench.models.residual import Downsample, ResBlock, Upsample

# torch keeps one compiled variant of a block per width, side and training mode. Its default limit of 8 variants is too
# low for one model.
COMPILED_VARIANTS = 128


def blocks(model: nn.Module) -> list[nn.Module]:
    """List the model's blocks in order; no block lies inside another.

    An autoencoder's blocks are its residual, attention and resampling layers, a denoiser's are its transformer blocks.
    Raises :class:`ConfigError` for a model without such blocks.
    """
    if isinstance(model, Denoiser):
        return model.transformer_blocks()
    kinds: tuple[type[nn.Module], ...] = (ResBlock, EfficientViTBlock, Downsample, Upsample)
    if "diffusers" in sys.modules:  # without it, no layer can be one of its
        from diffusers.models.attention_processor import Attention
        from diffusers.models.downsampling import Downsample2D
        from diffusers.models.resnet import ResnetBlock2D
        from diffusers.models.upsampling import Upsample2D

        kinds += (ResnetBlock2D, Attention, Downsample2D, Upsample2D)
    found: list[nn.Module] = [module for module in model.modules() if isinstance(module, kinds)]
    if not found:
        raise ConfigError(
            f"training.execution: {type(model).__name__} has none of the blocks that checkpoint_activations and "
            "compile work on; set both to false"
        )
    return found


def known_blocks(model: nn.Module) -> list[nn.Module]:
    """The model's blocks; none for a user's class that has no known blocks."""
    try:
        return blocks(model)
    except ConfigError:
        return []


def checkpoint_blocks(model: nn.Module) -> None:
    """Keep only each block's input for the backward pass, which computes the block a second time.

    With deterministic kernels the result is equal to the last bit. The second computation leaves BatchNorm's statistics
    alone. Parameters and state dict do not change. Raises :class:`ConfigError` for a model without blocks.
    """
    for block in blocks(model):
        block.forward = partial(
            checkpoint,
            block.forward,
            use_reentrant=False,
            preserve_rng_state=False,  # no block draws random numbers
            context_fn=partial(_contexts, block),
        )


def restore_blocks(model: nn.Module) -> None:
    """Undo :func:`checkpoint_blocks`: each block's forward pass is its class's again."""
    for block in blocks(model):
        block.__dict__.pop("forward", None)


def compile_blocks(model: nn.Module) -> None:
    """Compile each block by itself, so that equal blocks share compiled code.

    The head of DC-AE's decoder is compiled too: its norm works on the largest map of all. Raises :class:`ConfigError`
    for a model without blocks.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_VARIANTS)
    shared: list[nn.Module] = [module for module in model.modules() if isinstance(module, SharedBatchNorm)]
    for module in shared:  # torch cannot compile the exchange between processes, so the block is split around it
        module.forward = torch.compiler.disable(module.forward)
    heads = [module for module in model.modules() if isinstance(module, Head)]
    for block in [*blocks(model), *heads]:
        block.forward = torch.compile(block.forward, dynamic=False)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the block's first and second computation."""
    return nullcontext(), _unmoved_statistics(block)


@contextmanager
def _unmoved_statistics(block: nn.Module) -> Iterator[None]:
    """Give BatchNorm layers in training mode copies of their statistics to update, and drop the copies afterwards."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    kept = [dict(norm._buffers) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
