"""DINOv2 feature extractor: torch-fidelity's definition, with code and weights from this machine."""

import pickle
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.extractors.extractor import require_uint8

VARIANT = "dinov2-vit-l-14"  # as in "Exposing flaws of generative model evaluation metrics" (Stein et al., 2023)
REPOSITORY = "facebookresearch/dinov2"
CHECKPOINT = "dinov2_vitl14_pretrain.pth"
ADDRESS = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{CHECKPOINT}"


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
        code = next((path for path in _clones() if (path / "hubconf.py").exists()), None)
        if code is None:
            raise WeightsError(
                f"dinov2: its code is not in {_clones()[0]}; clone {REPOSITORY} from GitHub to that folder"
            )
        path = Path(weights).expanduser() if weights else Path(torch.hub.get_dir()) / "checkpoints" / CHECKPOINT
        try:
            self.weights_sha256 = sha256_file(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise WeightsError(f"{path}: cannot be read ({reason}); get {CHECKPOINT} from {ADDRESS}") from error
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


def _clones() -> list[Path]:
    """Folders in which torch.hub may keep the repository; a folder's name ends with the repository's branch."""
    return [Path(torch.hub.get_dir()) / f"{REPOSITORY.replace('/', '_')}_{branch}" for branch in ("main", "master")]
