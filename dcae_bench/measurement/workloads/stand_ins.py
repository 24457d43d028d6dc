"""Stand-ins: networks of a second's work, with which a plan is rehearsed on processors.

They have names that no catalogue has, so that no timing of one is taken for a network's of the paper.
"""

from dcae_bench.specs.autoencoders import CoderSpec, DCAESpec
from dcae_bench.specs.denoisers import Architecture

_PREFIX = "stand-in-"
_WIDTHS = (8, 16, 32)
_BLOCKS = ("res", "res", "evit_glu")

AUTOENCODERS: dict[str, DCAESpec] = {
    f"{_PREFIX}dc-ae": DCAESpec(
        family="dc-ae",
        latent_channels=8,
        encoder=CoderSpec(widths=_WIDTHS, depths=(0, 1, 1), blocks=_BLOCKS),
        decoder=CoderSpec(
            widths=_WIDTHS,
            depths=(0, 1, 1),
            blocks=_BLOCKS,
            norms=("bn2d", "bn2d", "trms2d"),
            activations=("relu", "relu", "silu"),
        ),
    )
}
DENOISERS: dict[str, Architecture] = {
    f"{_PREFIX}{name}": Architecture(family="uvit" if name.startswith("uvit") else "dit", width=32, depth=2, heads=2)
    for name in ("uvit-h", "dit-xl", "uvit-s", "dit-s")
}


def stand_in(name: str) -> str:
    """Name of the stand-in of a network."""
    return f"{_PREFIX}{name}"
