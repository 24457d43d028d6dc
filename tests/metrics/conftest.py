import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """Convert the embedded weights once for this session, and leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCAE_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("DCAE_BENCH_INCEPTION", raising=False)
        yield


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def photo_pairs():
    """Four crops of photographs and the same as poor JPEGs, each uint8 (4, 3, 96, 96)."""
    photos = (skimage.data.astronaut(), skimage.data.coffee())
    corners = [(photo, top) for photo in photos for top in (20, 140)]
    crops = [np.ascontiguousarray(photo[top : top + 96, 130:226, :3]) for photo, top in corners]
    poor = []
    for crop in crops:
        buffer = io.BytesIO()
        Image.fromarray(crop).save(buffer, "jpeg", quality=15)
        poor.append(np.asarray(Image.open(buffer)))
    return tuple(torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).contiguous() for side in (crops, poor))
