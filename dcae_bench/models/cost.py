"""What a model costs, without running it: parameters and multiply-accumulates on tensors that have no data."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.denoiser_specs import DenoiserSpec, UViTSpec
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.specs import AutoencoderSpec, CustomSpec, core


@dataclass(frozen=True)
class Pass:
    """Encoding and decoding one image."""

    latent: tuple[int, int, int]
    encode_gmacs: float
    """1e9 multiply-accumulates of convolutions and matrix products; nothing elementwise."""
    decode_gmacs: float


@dataclass(frozen=True)
class Cost:
    """Parameters, and a pass per resolution (px, square)."""

    parameters: int
    passes: dict[int, Pass]


@dataclass(frozen=True)
class DenoiserCost:
    """A denoiser's size, and one conditional forward pass of one latent."""

    parameters: int
    """Trainable ones, as the papers count."""
    all_parameters: int
    tokens: int
    gmacs: float
    """1e9 multiply-accumulates of matrix products; nothing elementwise."""
    torchprofile_gmacs: float
    """The same as torchprofile counts, whose figures the authors print: with norms and elementwise products."""


@contextmanager
def without_content(spec: AutoencoderSpec) -> Iterator[Autoencoder]:
    """A model whose tensors have shapes and no values, in the mode that makes such tensors.

    A class of the user's may read weights when it is built, so it is built before.
    """
    if not isinstance(core(spec), CustomSpec):
        with FakeTensorMode():
            yield build(spec)
        return
    model = build(spec)
    # What the class holds beside its state keeps its values.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model.load_state_dict({key: mode.from_tensor(value) for key, value in model.state_dict().items()}, assign=True)
        yield model


def cost(spec: AutoencoderSpec, resolutions: Iterable[int]) -> Cost:
    """Count a spec's parameters and its work per image.

    Raises :class:`DataError` for a resolution that is not a multiple of f. Fake tensors are used because the meta
    device has no autocast, which attention switches off.
    """
    with without_content(spec) as model, torch.no_grad():
        model.eval()
        passes = {}
        for side in resolutions:
            with FlopCounterMode(display=False) as encoding:
                z = model.encode(torch.zeros(1, 3, side, side))
            with FlopCounterMode(display=False) as decoding:
                model.decode(z)
            shape = (z.shape[1], z.shape[2], z.shape[3])
            passes[side] = Pass(shape, encoding.get_total_flops() / 2e9, decoding.get_total_flops() / 2e9)
        return Cost(model.count_parameters(), passes)


def denoiser_cost(spec: DenoiserSpec) -> DenoiserCost:
    """Count a denoiser's parameters and its work for one latent."""
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
    """Products that torchprofile counts beside matrices.

    For UViT these are LayerNorm's and the scale of the attention's logits; for DiT the norms, which there have no
    weights of their own, their modulation and the gates.
    """
    numbers = spec.sequence * spec.width
    if isinstance(spec, UViTSpec):
        return (2 * (spec.depth + 1) + 1) * numbers + (spec.depth + 1) * spec.heads * spec.sequence**2
    return (5 * spec.depth + 1) * numbers
