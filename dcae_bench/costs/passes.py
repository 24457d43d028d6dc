"""The cost of a pass without gradients: operations and memory, counted on tensors that have shapes but no values."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.base.typed import Strict
from dcae_bench.costs.cache import autoencoder_key, cached
from dcae_bench.costs.step import EmptyDenoiser
from dcae_bench.extractors.lpips import LPIPS, Net
from dcae_bench.metrics.image import ssim_both
from dcae_bench.models.cost import without_values
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.specs.denoisers import DenoiserSpec

Output = TypeVar("Output")


class PassCost(Strict):
    """Cost of one image or one latent through a network, in fp32."""

    mac: float
    """Multiply-accumulates of convolutions and matrix products."""
    peak_bytes: float
    """Peak size of the tensors that are alive together, without the weights."""


class AutoencoderPasses(Strict):
    """Costs of encoding and decoding one image in fp32."""

    encode: PassCost
    decode: PassCost
    parameters: int


class DenoiserPass(PassCost):
    """Cost of one conditional pass of one latent in fp32."""

    parameters: int
    """All parameters, also those that are not trained."""


class ComparisonPass(Strict):
    """Memory of comparing one pair of images: LPIPS in fp32, SSIM in double precision."""

    lpips_bytes: float
    """Peak of the network that needs most."""
    ssim_bytes: float
    """Peak when SSIM takes whole images, as it does on a GPU."""
    parameters: int


def autoencoder_passes(spec: AutoencoderSpec, resolution: int) -> AutoencoderPasses:
    """Cost of one square image. The result is cached on disk."""

    def count() -> AutoencoderPasses:
        with without_values(spec) as model, torch.no_grad():
            model.eval()
            encode, z = _measure(model, model.encode, torch.empty(1, 3, resolution, resolution))
            decode, _ = _measure(model, model.decode, z)
            return AutoencoderPasses(encode=encode, decode=decode, parameters=model.count_parameters())

    return cached(AutoencoderPasses, ["passes", autoencoder_key(spec), resolution], count)


def forward_mac(spec: AutoencoderSpec, resolution: int) -> float:
    """Multiply-accumulates to encode and decode one square image."""
    found = autoencoder_passes(spec, resolution)
    return found.encode.mac + found.decode.mac


def comparison_pass(nets: Sequence[Net], resolution: int) -> ComparisonPass:
    """Memory of one pair of square images; LPIPS with each of ``nets``. The result is cached on disk."""

    def count() -> ComparisonPass:
        pair = [torch.empty(1, 3, resolution, resolution, dtype=torch.uint8, device="meta") for _ in range(2)]
        with torch.no_grad():
            models = [LPIPS(net).to("meta") for net in nets]
            floats = [images.float() for images in pair]
            lpips = [_measure(model, model, *floats)[0].peak_bytes for model in models]
            ssim, _ = _measure(nn.Identity(), ssim_both, *pair)
        parameters = sum(parameter.numel() for model in models for parameter in model.parameters())
        return ComparisonPass(lpips_bytes=max(lpips, default=0.0), ssim_bytes=ssim.peak_bytes, parameters=parameters)

    return cached(ComparisonPass, ["comparison", list(nets), resolution], count)


def denoiser_pass(spec: DenoiserSpec) -> DenoiserPass:
    """Cost of one latent. The result is cached on disk."""

    def count() -> DenoiserPass:
        latent, empty = spec.latent, EmptyDenoiser(spec)
        with FakeTensorMode(), torch.no_grad():
            model = empty.build().eval()
            y = None if spec.classes is None else torch.zeros(1, dtype=torch.int64)
            x = torch.empty(1, latent.channels, latent.side, latent.side)
            found, _ = _measure(model, model, x, torch.zeros(1), y)
            parameters = model.count_parameters(trainable=False)
            return DenoiserPass(**found.model_dump(), parameters=parameters)

    return cached(DenoiserPass, ["denoiser pass", spec.model_dump(mode="json")], count)


def _measure(model: nn.Module, function: Callable[..., Output], *inputs: Tensor | None) -> tuple[PassCost, Output]:
    """Cost of ``function``, which uses the weights of ``model``, and the function's output."""
    with FlopCounterMode(display=False) as counter, _Live(model) as live:
        output = function(*inputs)
    return PassCost(mac=counter.get_total_flops() / 2, peak_bytes=live.peak), output


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive: each storage once, and none of a model's weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._add, output)
        return output

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        return tensor

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
