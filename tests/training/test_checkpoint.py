import os
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base.errors import TrainingError
from dcae_bench.training.checkpoint import load_checkpoint, save_checkpoint

RECIPE = "a" * 64


def state() -> dict:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    weights = {key: value.detach() for key, value in layer.state_dict().items()}
    return {"recipe_sha256": RECIPE, "images": 8, "model": weights, "optimizer": optimizer.state_dict(), "seconds": 1.5}


def test_round_trip(tmp_path):
    saved = state()
    save_checkpoint(saved, tmp_path / "run" / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "run" / "checkpoint.pt", RECIPE)
    assert loaded["images"] == 8 and loaded["seconds"] == 1.5
    torch.testing.assert_close(loaded["model"], saved["model"], rtol=0, atol=0)
    assert loaded["optimizer"]["param_groups"] == saved["optimizer"]["param_groups"]


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "checkpoint.pt", RECIPE) is None


def refused(path, reason: str, recipe: str = RECIPE) -> None:
    with pytest.raises(TrainingError, match=reason) as caught:
        load_checkpoint(path, recipe)
    assert str(path) in str(caught.value) and "delete it" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_recipes_checkpoint_is_refused(tmp_path):
    save_checkpoint(state(), tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "belongs to recipe aaaaaaaaaaaa, this run is bbbbbbbbbbbb", "b" * 64)


@given(keep=st.floats(0, 0.999))
def test_a_truncated_checkpoint_is_refused(tmp_path_factory, keep):
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    save_checkpoint(state(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, "cannot be read")


@pytest.mark.parametrize("damage", [bytes(8), b"\xff" * 8])
def test_a_tensor_whose_bytes_changed_is_refused(tmp_path, damage):
    """torch reads such a file without a word."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({**state(), "noise": torch.arange(1.0, 100.0)}, path)
    content = path.read_bytes()
    at = content.index(torch.arange(1.0, 100.0).numpy().tobytes())
    path.write_bytes(content[: at + 80] + damage + content[at + 88 :])
    assert torch.load(path, weights_only=True)["images"] == 8
    refused(path, "cannot be read .the checksum of .* does not fit")


@given(content=st.binary(max_size=200) | st.binary(max_size=50).map(lambda tail: b"\x80\x02" + tail))
def test_other_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    path.write_bytes(content)
    refused(path, "cannot be read")


@pytest.mark.parametrize("content", [{}, {"images": 8}, [1], None])
def test_a_file_of_torch_that_is_no_checkpoint_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "cannot be read")


class Code:
    """A pickle of this runs a command."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(save, tmp_path):
    save({"recipe_sha256": RECIPE, "model": Code(tmp_path / "run by the pickle")}, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "cannot be read")
    assert not (tmp_path / "run by the pickle").exists()
