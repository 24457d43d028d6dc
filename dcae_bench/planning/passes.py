"""Arithmetic and memory of passes without gradients, counted on tensors without content."""

import weakref
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.denoiser_specs import DenoiserSpec
from dcae_bench.metrics.image import ssim_both
from dcae_bench.metrics.lpips import LPIPS, Net
from dcae_bench.models.cost import without_content
from dcae_bench.planning.costs import EmptyDenoiser, identity, remembered
from dcae_bench.specs import AutoencoderSpec


class PassCost(BaseModel):
    """One image or latent through a network, in fp32."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mac: float
    """Multiply-accumulates of convolutions and matrix products."""
    peak_bytes: float
    """Most that is there at once beside the weights."""


class AutoencoderPasses(BaseModel):
    """Encoding and decoding one image in fp32."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encode: PassCost
    decode: PassCost
    parameters: int


class DenoiserPass(PassCost):
    """One conditional pass of one latent in fp32."""

    parameters: int
    """All, those that are not trained too."""


class ComparisonPass(BaseModel):
    """Comparing one pair of images: LPIPS in fp32, SSIM in double precision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lpips_bytes: float
    """Most that the larger of the networks holds at once."""
    ssim_bytes: float
    """Most at once where whole images are compared, as on a GPU."""
    parameters: int


def autoencoder_passes(spec: AutoencoderSpec, resolution: int) -> AutoencoderPasses:
    """Cost of one square image. Remembered between runs."""

    def count() -> dict:
        with without_content(spec) as model, torch.no_grad():
            model.eval()
            encode, z = _measure(model, model.encode, torch.empty(1, 3, resolution, resolution))
            decode, _ = _measure(model, model.decode, z)
            return AutoencoderPasses(encode=encode, decode=decode, parameters=model.count_parameters()).model_dump()

    return AutoencoderPasses(**remembered(["passes", identity(spec), resolution], count))


def forward_mac(spec: AutoencoderSpec, resolution: int) -> float:
    """Multiply-accumulates to encode and decode one square image."""
    found = autoencoder_passes(spec, resolution)
    return found.encode.mac + found.decode.mac


def comparison_pass(nets: Sequence[Net], resolution: int) -> ComparisonPass:
    """Memory of one pair of square images, LPIPS with each of ``nets``. Remembered between runs."""

    def count() -> dict:
        pair = [torch.empty(1, 3, resolution, resolution, dtype=torch.uint8, device="meta") for _ in range(2)]
        with torch.no_grad():
            models = [LPIPS(net).to("meta") for net in nets]
            floats = [images.float() for images in pair]
            lpips = [_measure(model, model, *floats)[0].peak_bytes for model in models]
            ssim, _ = _measure(nn.Identity(), ssim_both, *pair)
        parameters = sum(parameter.numel() for model in models for parameter in model.parameters())
        return ComparisonPass(
            lpips_bytes=max(lpips, default=0.0), ssim_bytes=ssim.peak_bytes, parameters=parameters
        ).model_dump()

    return ComparisonPass(**remembered(["comparison", list(nets), resolution], count))


def denoiser_pass(spec: DenoiserSpec) -> DenoiserPass:
    """Cost of one latent. Remembered between runs."""

    def count() -> dict:
        latent, empty = spec.latent, EmptyDenoiser(spec)
        with FakeTensorMode(), torch.no_grad():
            model = empty.build().eval()
            y = None if spec.classes is None else torch.zeros(1, dtype=torch.int64)
            x = torch.empty(1, latent.channels, latent.side, latent.side)
            found, _ = _measure(model, model, x, torch.zeros(1), y)
            parameters = model.count_parameters(trainable=False)
            return DenoiserPass(**found.model_dump(), parameters=parameters).model_dump()

    return DenoiserPass(**remembered(["denoiser pass", spec.model_dump(mode="json")], count))


def _measure(model: nn.Module, function, *inputs: Tensor | None) -> tuple[PassCost, Tensor]:
    with FlopCounterMode(display=False) as counter, _Live(model) as live:
        output = function(*inputs)
    return PassCost(mac=counter.get_total_flops() / 2, peak_bytes=live.peak), output


class _Live(TorchDispatchMode):
    """Bytes of the tensors that are alive at once, each storage once, without a model's weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
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
