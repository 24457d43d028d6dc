"""Initial weights that a profile names are found wherever they may lie."""

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.subjects.initial import find_initial, initial_files, other_initial
from dcae_bench.weights import released
from tests import tiny_released

COMMIT = "c" * 40


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file of weights below an empty current folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": torch.zeros(1)}, path)
        return path

    return write


def found(wanted, kind="autoencoder"):
    return find_initial(wanted, kind, "autoencoders.mine.initial")


def test_a_file_or_a_folder_or_a_pipeline(write, tmp_path):
    file = write(tmp_path / "here" / "weights" / "mine.safetensors")
    assert found("weights/mine.safetensors").opened.resolve() == file
    vae = write(tmp_path / "pipeline" / "vae" / "diffusion_pytorch_model.safetensors")
    net = write(tmp_path / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert found(str(tmp_path / "pipeline")).path == vae and found(str(tmp_path / "pipeline")).opened == vae.parent
    assert found(str(tmp_path / "pipeline"), "denoiser").path == net
    assert initial_files(str(vae.parent), "autoencoder") == (vae,)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"autoencoders.mine.initial '.*empty': the folder holds no weights"):
        found(str(tmp_path / "empty"))
    assert not initial_files(str(tmp_path / "empty"), "autoencoder")


def test_a_hub_id_takes_the_cached_file(write, tmp_path):
    repository = tmp_path / "hub" / "models--owner--vae"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    file = write(repository / "snapshots" / COMMIT / "vae" / "diffusion_pytorch_model.safetensors")
    assert found("owner/vae").path == file and initial_files("owner/vae", "autoencoder") == (file,)
    with pytest.raises(WeightsError, match=r"owner/other/diffusion_pytorch_model.safetensors"):
        found("owner/other")


def test_a_released_name_takes_the_fetched_weights(write, tmp_path, monkeypatch):
    tiny_released.install(monkeypatch)
    assert initial_files(tiny_released.AUTOENCODER, "autoencoder") == ()
    file = tiny_released.write_autoencoder(tmp_path / "vae.safetensors")
    released.fetch(tiny_released.AUTOENCODER, path=file)
    assert found(tiny_released.AUTOENCODER).path == file
    assert initial_files(tiny_released.AUTOENCODER, "autoencoder") == (file,)


def test_a_name_of_nothing_is_refused_in_one_line(write):
    for wanted in ("nowhere.safetensors", "a/b.safetensors", "dc-ae-f64c128", "a/b/c"):
        with pytest.raises(WeightsError, match=f"autoencoders.mine.initial '{wanted}': is no file or folder") as caught:
            found(wanted)
        assert "\n" not in str(caught.value)


def test_files_that_changed_since_are_told(write, tmp_path):
    file = write(tmp_path / "mine.safetensors")
    sha256 = sha256_file(file)
    assert not other_initial(str(file), sha256, "autoencoder") and not other_initial(None, None, "autoencoder")
    save_file({"a": torch.ones(1)}, file)
    assert other_initial(str(file), sha256, "autoencoder")
    file.unlink()
    assert not other_initial(str(file), sha256, "autoencoder"), "nobody can tell"
