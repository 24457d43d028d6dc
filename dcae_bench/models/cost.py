"""Cost of a model: parameters and multiply-accumulates, counted on tensors without values."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.specs.autoencoders import AutoencoderSpec, CustomSpec, DiffusersSpec, unfolded
from dcae_bench.specs.denoisers import DenoiserSpec, UViTSpec
from dcae_bench.specs.diffusers_classes import CLASSES


@dataclass(frozen=True)
class PassCost:
    """Cost of encoding and decoding one image."""

    latent: tuple[int, ...]
    """Shape (c, h, w) of the latent, or (tokens, c)."""
    encode_gmacs: float
    """1e9 multiply-accumulates of convolutions and matrix products, without elementwise operations."""
    decode_gmacs: float


@dataclass(frozen=True)
class AutoencoderCost:
    """Parameters of an autoencoder, and the cost of a pass at several resolutions."""

    parameters: int
    passes: dict[int, PassCost]
    """By the side of a square image in px."""


@dataclass(frozen=True)
class DenoiserCost:
    """Size of a denoiser, and the cost of one conditional forward pass of one latent."""

    parameters: int
    """Trainable parameters, as the papers count."""
    all_parameters: int
    tokens: int
    gmacs: float
    """1e9 multiply-accumulates of matrix products, without elementwise operations."""
    torchprofile_gmacs: float
    """1e9 multiply-accumulates with norms and elementwise products, as torchprofile counts. The authors print these."""


@contextmanager
def without_values(spec: AutoencoderSpec) -> Iterator[Autoencoder]:
    """Build an autoencoder whose tensors have shapes but no values, and enter ``FakeTensorMode`` while it is used.

    A class of the user's may read weights in its constructor, so such a class is built before the mode begins, as are
    some classes of diffusers. One of them also computes with values alone, and is counted as it is.
    """
    base = unfolded(spec)
    how = CLASSES[base.class_name].counted if isinstance(base, DiffusersSpec) else "without values"
    if how == "with values":
        yield build(spec)
        return
    if how == "without values" and not isinstance(base, CustomSpec):
        with FakeTensorMode():
            yield build(spec)
        return
    model = build(spec)
    # Tensors of the user's class that are not in its state dict keep their values.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model.load_state_dict({key: mode.from_tensor(value) for key, value in model.state_dict().items()}, assign=True)
        yield model


def autoencoder_cost(spec: AutoencoderSpec, resolutions: Iterable[int]) -> AutoencoderCost:
    """Count an autoencoder's parameters, and the cost of a pass at each of ``resolutions`` (px).

    Raises :class:`DataError` for a resolution that is not a multiple of f.
    """
    # The meta device would not do: attention switches autocast off, and the meta device has no autocast.
    with without_values(spec) as model, torch.no_grad():
        model.eval()
        passes = {}
        for side in resolutions:
            with FlopCounterMode(display=False) as encoding:
                z = model.encode(torch.zeros(1, 3, side, side))
            with FlopCounterMode(display=False) as decoding:
                model.decode(z)
            passes[side] = PassCost(
                tuple(z.shape[1:]), encoding.get_total_flops() / 2e9, decoding.get_total_flops() / 2e9
            )
        return AutoencoderCost(model.count_parameters(), passes)


def denoiser_cost(spec: DenoiserSpec) -> DenoiserCost:
    """Count a denoiser's parameters, and the cost of a forward pass of one latent."""
    latent = spec.latent
    with torch.device("meta"), torch.no_grad():
        model = build_denoiser(spec).eval()
        x, t = torch.zeros(1, latent.channels, latent.side, latent.side), torch.zeros(1)
        y = None if spec.classes is None else torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            model(x, t, y)
    macs = counter.get_total_flops() // 2
    return DenoiserCost(
        parameters=model.count_parameters(),
        all_parameters=model.count_parameters(trainable=False),
        tokens=latent.tokens,
        gmacs=macs / 1e9,
        torchprofile_gmacs=(macs + _elementwise(spec)) / 1e9,
    )


def _elementwise(spec: DenoiserSpec) -> int:
    """Products that torchprofile counts in addition to matrix products.

    In UViT: LayerNorm, and the scale of the attention logits. In DiT: the norms, which have no weights there, their
    modulation, and the gates.
    """
    numbers = spec.sequence * spec.width
    if isinstance(spec, UViTSpec):
        return (2 * (spec.depth + 1) + 1) * numbers + (spec.depth + 1) * spec.heads * spec.sequence**2
    return (5 * spec.depth + 1) * numbers
