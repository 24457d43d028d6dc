"""Files of DINOv2, its authors' code and weights: where they are in torch.hub's folder, found without torch."""

import os
from pathlib import Path

REPOSITORY = "facebookresearch/dinov2"
CHECKPOINT = "dinov2_vitl14_pretrain.pth"
ADDRESS = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{CHECKPOINT}"


def code() -> Path | None:
    """Folder of the authors' code, or None."""
    return next((path for path in _clones() if (path / "hubconf.py").exists()), None)


def checkpoint() -> Path:
    """File where torch.hub keeps the weights."""
    return _hub() / "checkpoints" / CHECKPOINT


def missing() -> str | None:
    """What is not on this machine, with the remedy; None if code and weights are here."""
    if code() is None:
        return f"dinov2: its code is not in {_clones()[0]}; clone {REPOSITORY} from GitHub to that folder"
    if not checkpoint().exists():
        return f"dinov2: its weights are not at {checkpoint()}; get {CHECKPOINT} from {ADDRESS}"
    return None


def _clones() -> list[Path]:
    """Folders in which torch.hub may keep the repository; a folder's name ends with the repository's branch."""
    return [_hub() / f"{REPOSITORY.replace('/', '_')}_{branch}" for branch in ("main", "master")]


def _hub() -> Path:
    """Folder of torch.hub, as ``torch.hub.get_dir`` finds it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", Path(cache) / "torch")).expanduser() / "hub"
