"""Execution options of training: they save memory or time and do not change the trained function."""

from pydantic import Field

from dcae_bench.base.typed import Strict


class ExecutionSpec(Strict):
    """Execution options of a profile's training.

    No option changes the function, but an option may change the order of sums and so the last bits. The options are
    therefore part of the recipe: a run never resumes with other options than those it started with.
    """

    checkpoint_activations: bool = Field(
        default=False,
        description="store only the inputs of blocks and recompute the rest in the backward pass; same result",
    )
    channels_last: bool = Field(
        default=False, description="channels innermost in memory: faster convolutions in half precision on GPUs"
    )
    compile: bool = Field(
        default=False, description="torch.compile, block by block; needs a C++ compiler on CPU, Triton on GPU"
    )
