"""EfficientNet-Lite0, an ImageNet classifier, and the feature extractor made of its layers."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors.embedded import embedded_sha256, load_embedded
from dcae_bench.extractors.extractor import FeatureExtractor, require_uint8


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: an odd row or column of padding goes below or to the right."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` (n, c, h, w) to (n, out, ceil(h / stride), ceil(w / stride))."""
        (height, top), (width, left) = (self._padding(x.shape[axis], axis - 2) for axis in (2, 3))
        # An odd total needs one more row or column behind the image. The rest is symmetric, as the convolution pads.
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        """Total padding of an axis of ``size`` pixels, and the padding of each side without an odd remainder."""
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total, total // 2


BatchNorm = partial(nn.BatchNorm2d, eps=1e-3)


class InvertedBottleneck(nn.Module):
    """EfficientNet's block without squeeze-and-excitation: widen, filter each channel, narrow, add the input."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = before * expansion
        self.adds = stride == 1 and before == after
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
            self._bn0 = BatchNorm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        self._bn1 = BatchNorm(wide)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = BatchNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, before, h, w) to (n, after, h / stride, w / stride)."""
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, the EfficientNet authors' ImageNet classifier for phones (75.1 % top-1).

    Parameters have the names in the packaged file, so that the file loads strictly. :meth:`load` gives the trained
    network.
    """

    resolution = 224
    # output channels, expansion, kernel, stride, repeats
    blocks = (
        (16, 1, 3, 1, 1),
        (24, 6, 3, 2, 2),
        (40, 6, 5, 2, 2),
        (80, 6, 3, 2, 3),
        (112, 6, 5, 1, 3),
        (192, 6, 5, 2, 4),
        (320, 6, 3, 1, 1),
    )

    def __init__(self):
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = BatchNorm(32)
        self._blocks = nn.Sequential()
        before = 32
        for after, expansion, kernel, stride, repeats in self.blocks:
            for repeat in range(repeats):
                self._blocks.append(InvertedBottleneck(before, after, expansion, kernel, 1 if repeat else stride))
                before = after
        self._conv_head = nn.Conv2d(before, 1280, 1, bias=False)
        self._bn1 = BatchNorm(1280)
        self._fc = nn.Linear(1280, 1000)

    @classmethod
    def load(cls) -> "EfficientNetLite0":
        """Build the network with its ImageNet weights, frozen. Raises :class:`WeightsError`."""
        model = cls()
        # BatchNorm's step counters do not matter at inference; the file's are not read, so the model's are kept.
        counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
        try:
            model.load_state_dict({**load_embedded("efficientnet-lite0"), **counters}, strict=True)
        except RuntimeError as error:
            raise WeightsError(f"EfficientNet-Lite0: the embedded weights do not fit ({error})") from error
        # Channels last runs faster on CPU, with the same result up to rounding.
        return model.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @classmethod
    def preprocess(cls, images: Tensor) -> Tensor:
        """Turn uint8 images (n, 3, h, w) into the network's input (n, 3, 224, 224): (u - 127) / 128.

        The whole image is resized (bilinear, antialiased), so that every part of a reconstruction counts. The
        classifier was trained on crops instead. Resizing distorts an image that is not square.
        """
        require_uint8(images)
        side = (cls.resolution, cls.resolution)
        x = F.interpolate(images.float(), side, mode="bilinear", align_corners=False, antialias=True)
        return (x - 127) / 128

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (n, 1280) of preprocessed images (n, 3, 224, 224)."""
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        x = F.relu6(self._bn1(self._conv_head(self._blocks(x))), inplace=True)
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (n, 1000) before softmax, in ImageNet's order, of preprocessed images (n, 3, 224, 224)."""
        return self._fc(self.features(x))


class EfficientNetLite0Extractor:
    """EfficientNet-Lite0's features before the classifier. The demo uses them in place of FID's Inception features."""

    name = "EfficientNet-Lite0"
    distance = "FD (EfficientNet-Lite0)"
    key = "fd_efficientnet_lite0"
    dim = 1280

    # On a CPU the first layers' maps of four images fit into the cache (with channels last): half the time.
    _images_at_once = 4

    def __init__(self, model: EfficientNetLite0):
        self.model = model.to(memory_format=torch.channels_last)
        self.weights_sha256 = embedded_sha256("efficientnet-lite0")

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, 1280) in float32 of uint8 images (n, 3, h, w)."""
        self.model.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._features(part) for part in images.split(self._images_at_once)])

    def _features(self, images: Tensor) -> Tensor:
        return self.model.features(self.model.preprocess(images).contiguous(memory_format=torch.channels_last))


def efficientnet_lite0_extractor() -> FeatureExtractor:
    """Build the extractor with the embedded ImageNet weights. Raises :class:`WeightsError` when they are missing."""
    return EfficientNetLite0Extractor(EfficientNetLite0.load())
