"""The blocks of a model, computed again instead of kept, or compiled one by one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dcae_bench.errors import ConfigError
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.efficientvit import EfficientViTBlock
from dcae_bench.models.residual import Downsample, ResBlock, Upsample
from dcae_bench.training.batch_norm import SharedBatchNorm

# A block's compiled code is kept per width, side and training mode; torch's default of 8 is fewer than a model has.
COMPILED_VARIANTS = 128


def blocks(model: nn.Module) -> list[nn.Module]:
    """Blocks in order, none inside another: an autoencoder's residual, attention and resampling, or a transformer's.

    Raises :class:`ConfigError` for a model that has none.
    """
    if isinstance(model, Denoiser):
        return model.transformer_blocks()
    from diffusers.models.attention_processor import Attention  # slow imports, wanted only here
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    kinds = (ResBlock, EfficientViTBlock, Downsample, Upsample, ResnetBlock2D, Attention, Downsample2D, Upsample2D)
    found = [module for module in model.modules() if isinstance(module, kinds)]
    if not found:
        raise ConfigError(
            f"training.execution: {type(model).__name__} has none of the blocks that checkpoint_activations and "
            "compile work on; set both to false"
        )
    return found


def checkpoint_blocks(model: nn.Module) -> None:
    """Keep only each block's input for the backward pass, which computes the block again.

    The result is the same to the last bit where kernels are deterministic. The second computation does not move
    BatchNorm's statistics. Parameters and state dict stay as they are. Raises :class:`ConfigError`.
    """
    for block in blocks(model):
        block.forward = partial(
            checkpoint,
            block.forward,
            use_reentrant=False,
            preserve_rng_state=False,  # no block draws random numbers
            context_fn=partial(_contexts, block),
        )


def compile_blocks(model: nn.Module) -> None:
    """Compile each block by itself, so that equal blocks share their code. Raises :class:`ConfigError`."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_VARIANTS)
    for module in model.modules():
        if isinstance(module, SharedBatchNorm):  # its exchange between processes stands between two compiled parts
            module.forward = torch.compiler.disable(module.forward)
    for block in blocks(model):
        block.forward = torch.compile(block.forward, dynamic=False)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the first and of the second computation."""
    return nullcontext(), _unmoved_statistics(block)


@contextmanager
def _unmoved_statistics(block: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers in training mode move copies of their statistics, which are then dropped."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    kept = [dict(norm._buffers) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
