"""DINOv2 feature extractor: torch-fidelity's definition, with code and weights from this machine."""

import pickle
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.extractors import dinov2_files
from dcae_bench.extractors.extractor import require_uint8

VARIANT = "dinov2-vit-l-14"  # as in "Exposing flaws of generative model evaluation metrics" (Stein et al., 2023)


class _FromDisk(FeatureExtractorDinoV2):
    """torch-fidelity's extractor, input processing included, around a given network instead of a downloaded one."""

    def __init__(self, model: torch.nn.Module):
        FeatureExtractorBase.__init__(self, VARIANT, ["dinov2"])
        self.feature_extractor_internal_dtype = torch.float32
        self.model = model
        self.requires_grad_(False).eval()


class DINOv2Extractor:
    """Class token of DINOv2 ViT-L/14 (1024 numbers).

    Images are resized to 224 px as in TensorFlow 1 and normalised with ImageNet's statistics. The extractor runs the
    authors' code from torch.hub's folder. The weights are ``weights``, or else the checkpoint in torch.hub's folder.
    Nothing is downloaded. Raises :class:`WeightsError` when the code or the weights are missing or do not fit.
    """

    name = "DINOv2 ViT-L/14"
    distance = "FD (DINOv2 ViT-L/14)"
    key = "fd_dinov2"
    dim = 1024

    def __init__(self, weights: Path | None = None):
        path, code = Path(weights).expanduser() if weights else dinov2_files.checkpoint(), dinov2_files.code()
        if (lacking := dinov2_files.missing()) is not None and (code is None or weights is None):
            raise WeightsError(lacking)
        try:
            self.weights_sha256 = sha256_file(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise WeightsError(
                f"{path}: cannot be read ({reason}); get {dinov2_files.CHECKPOINT} from {dinov2_files.ADDRESS}"
            ) from error
        try:
            network = torch.hub.load(str(code), MODEL_METADATA[VARIANT], source="local", pretrained=False)
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{path}: does not fit the network of {code} ({reason}); get both anew") from error
        self.model = _FromDisk(network)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, 1024) in float32 of uint8 images (n, 3, h, w)."""
        require_uint8(images)
        self.model.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self.model(part)[0] for part in images.split(16)])
