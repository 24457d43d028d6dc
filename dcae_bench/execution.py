"""How training computes: options that save memory or time and leave the trained function as it is."""

from pydantic import BaseModel, ConfigDict, Field


class ExecutionSpec(BaseModel):
    """Options of a profile's training. None changes the function, but sums in another order give other bits.

    They are part of the recipe for that reason: a run never goes on with other options than it began with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint_activations: bool = Field(
        default=False,
        description="keep only the inputs of blocks and compute the rest again in the backward pass; same result",
    )
    channels_last: bool = Field(
        default=False, description="channels innermost in memory: faster convolutions in half precision on GPUs"
    )
    compile: bool = Field(
        default=False, description="torch.compile, block by block; needs a C++ compiler on CPU, Triton on GPU"
    )
