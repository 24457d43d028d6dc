"""FID's Inception network, and the feature extractors by three definitions: pytorch-fid, torch-fidelity, clean-fid.

The definitions differ only in how they turn an image into the network's input. All share the network and its weights.
"""

import io
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from cleanfid.resize import build_resizer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors.extractor import require_uint8
from dcae_bench.extractors.inception_weights import InceptionState, inception_weights, load_inception_state

__all__ = ["DEFINITIONS", "Inception", "InceptionExtractor", "inception_weights"]

SIDE = 299
DIM = 2048
# torch-fidelity's names of the layers up to the pooled features, in order.
LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


class Inception(nn.Module):
    """FID's Inception-v3, frozen. pytorch-fid, torch-fidelity and clean-fid all use this network.

    The layers are torch-fidelity's, in channels-last memory. Each batch normalisation is folded into the convolution
    before it, which changes only rounding. Average pools leave the padding out, and the last block pools by maximum.
    The network runs in float32; the caller decides whether a GPU may use TF32 (``torch.backends.cudnn``).
    """

    _loaded: ClassVar["weakref.WeakValueDictionary[str, Inception]"] = weakref.WeakValueDictionary()

    def __init__(self, state: InceptionState):
        """Build the network from a file's tensors. Raises :class:`WeightsError` when they do not fit."""
        super().__init__()
        # torch-fidelity unpickles its input, which could run code; so its input is our own copy of the checked tensors.
        copy = io.BytesIO()
        torch.save(state.tensors, copy)
        copy.seek(0)
        try:
            theirs = FeatureExtractorInceptionV3("inception-v3-compat", [str(DIM)], copy)
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"Inception weights {state.sha256[:8]}: do not fit the network ({reason})") from error
        self.layers = nn.Sequential(*(getattr(theirs, name) for name in LAYERS))
        for module in self.layers.modules():
            if isinstance(module, BasicConv2d):
                module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        self.register_buffer("classifier", theirs.fc.weight.detach().clone())  # (1008, 2048); FID leaves it out
        self.weights_sha256, self.official = state.sha256, state.official
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: Path | None = None, *, any_hash: bool = False) -> "Inception":
        """Load the network from :func:`inception_weights`. All users at one time share one network per weights file.

        ``any_hash`` admits a file other than FID's; distances then have another name. Raises :class:`WeightsError`.
        """
        state = load_inception_state(path, any_hash=any_hash)
        model = cls._loaded.get(state.sha256)
        if model is None:
            model = cls._loaded[state.sha256] = cls(state)
        return model

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (n, 2048) of normalised images (n, 3, 299, 299)."""
        return self.layers(x.contiguous(memory_format=torch.channels_last)).flatten(1)


def _pytorch_fid(images: Tensor) -> Tensor:
    x = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return 2 * x - 1


def _torch_fidelity(images: Tensor) -> Tensor:
    x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
    return (x - 128) / 128


_resize_clean = build_resizer("clean")


def _clean_fid(images: Tensor) -> Tensor:
    pictures = images.permute(0, 2, 3, 1).cpu().numpy()
    # Pillow releases Python's global lock while it resizes, so threads help.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        resized = np.stack(list(pool.map(_resize_clean, pictures)))
    return (torch.from_numpy(resized).to(images.device).permute(0, 3, 1, 2) - 128) / 128


@dataclass(frozen=True)
class Definition:
    """How one tool turns an 8-bit image into the network's input."""

    tool: str
    preprocess: Callable[[Tensor], Tensor]


DEFINITIONS = {
    # The paper's definition: u / 255, bilinear without antialias, then to [-1, 1]. clean-fid calls it "legacy_pytorch".
    "pytorch-fid": Definition("pytorch-fid", _pytorch_fid),
    # Bilinear as in TensorFlow 1 (no half-pixel offset), (u - 128) / 128.
    "torch-fidelity": Definition("torch-fidelity", _torch_fidelity),
    # clean-fid's mode "clean": Pillow's bicubic with antialias on float channels, (u - 128) / 128. clean-fid itself
    # runs NVIDIA's TorchScript conversion of the same TensorFlow weights; this package reads pytorch-fid's file.
    "clean-fid": Definition("clean-fid clean", _clean_fid),
}


class InceptionExtractor:
    """Inception features (2048 numbers) by one of :data:`DEFINITIONS`."""

    dim = DIM

    def __init__(self, model: Inception, definition: str):
        self.model, self._preprocess = model, DEFINITIONS[definition].preprocess
        tool = DEFINITIONS[definition].tool
        self.weights_sha256 = model.weights_sha256
        slug = definition.replace("-", "_")
        if model.official:
            self.name, self.distance, self.key = f"Inception, {tool}", f"FID ({tool})", f"fid_{slug}"
        else:
            self.name = f"Inception, {tool}, other weights"
            self.distance, self.key = f"FD ({self.name})", f"fd_inception_{slug}"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, 2048) in float32 of uint8 images (n, 3, h, w), on the images' device."""
        require_uint8(images)
        self.model.to(images.device)
        # The first layers' maps of four images fit into a CPU's cache.
        at_once = 4 if images.device.type == "cpu" else 64
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self.model(self._preprocess(part)) for part in images.split(at_once)])
