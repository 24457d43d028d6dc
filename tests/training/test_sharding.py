"""Training with sharded weights (``sharding: full``), against copies of the weights in each process."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dcae_bench.base.errors import ConfigError
from dcae_bench.execution.sharding import is_share, load_optimizer, share_of, whole
from dcae_bench.profile.profile import parse_profile
from dcae_bench.profile.recipes import diffusion_recipe, training_recipe
from dcae_bench.records.record import load
from dcae_bench.training.checkpoint import CHECKPOINT
from dcae_bench.training.log import read_log
from tests import tiny_diffusion
from tests.training import workers

FULL = {"SHARDING": "full"}


def first_state(output):
    (path,) = (output / "first").rglob(CHECKPOINT)
    return torch.load(path, map_location="cpu", weights_only=True)


def shapes(state):
    """A state with the shape and type of each tensor in its place."""
    if isinstance(state, dict):
        return {key: shapes(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [shapes(value) for value in state]
    return (tuple(state.shape), state.dtype) if isinstance(state, torch.Tensor) else type(state)


def assert_close(output, other):
    """The same training up to rounding, of which Adam makes more with every step."""
    found, wanted = (read_log(folder / "log.jsonl") for folder in (output, other))
    assert len(found) == len(wanted)
    for number, (line, of_other) in enumerate(zip(found, wanted, strict=True)):
        assert line == pytest.approx(of_other, rel=1e-5 if number == 0 else 1e-2, abs=1e-6), number
    found, wanted = (load_file(folder / "model.safetensors") for folder in (output, other))
    assert found.keys() == wanted.keys()
    moved = [(found[key] - value).double().norm() / (value.double().norm() + 1e-3) for key, value in wanted.items()]
    assert max(moved) < 1e-2


@pytest.fixture
def continued(in_two, tmp_path):
    """Go on, in a new folder, from the first checkpoint of another run."""

    def run(train, folder, begun, **variables):
        output = tmp_path / f"after-{begun.name}{variables}"
        shutil.copytree(begun / "first", output / "run")
        assert in_two(train, folder, output, **variables) == [0, 0]
        assert read_log(output / "log.jsonl")[0] == read_log(begun / "log.jsonl")[0]  # it did not begin again
        return output

    return run


@pytest.mark.long
def test_a_sharded_autoencoder_trains_as_a_plain_one_and_stops_and_goes_on(in_two, continued, folder, tmp_path):
    train, plain, sharded = workers.decoder_with_gan, tmp_path / "plain", tmp_path / "sharded"
    assert in_two(train, folder, plain) == [0, 0]
    assert in_two(train, folder, sharded, **FULL) == [0, 0]
    assert_close(sharded, plain)
    assert load(sharded / "record.json").settings["sharding"] == "full"
    assert "sharding" not in load(plain / "record.json").settings
    assert shapes(first_state(sharded)) == shapes(first_state(plain))
    again = continued(train, folder, sharded, **FULL)
    assert read_log(again / "log.jsonl") == read_log(sharded / "log.jsonl")
    found, wanted = (load_file(path / "model.safetensors") for path in (again, sharded))
    assert not [key for key in wanted if not found[key].equal(wanted[key])]
    assert_close(continued(train, folder, sharded), plain)


@pytest.mark.long
def test_a_sharded_denoiser_trains_as_a_plain_one_and_goes_on_from_it(in_two, continued, diffusion_folder, tmp_path):
    train, plain, sharded = workers.kept_denoiser, tmp_path / "plain", tmp_path / "sharded"
    assert in_two(train, diffusion_folder, plain) == [0, 0]
    assert in_two(train, diffusion_folder, sharded, **FULL) == [0, 0]
    assert_close(sharded, plain)
    previews = [np.load(output / "preview.npy").astype(int) for output in (sharded, plain)]
    assert abs(previews[0] - previews[1]).max() <= 2
    assert shapes(first_state(sharded)) == shapes(first_state(plain))
    assert_close(continued(train, diffusion_folder, plain, **FULL), plain)


def test_what_is_not_sharded_passes_through():
    net = torch.nn.Linear(2, 3)
    state = {"a": [net.weight, 1], "b": (2,)}
    assert whole(state, keep=True)["a"][0] is net.weight and not is_share(net.weight)
    assert share_of(net.weight, net.weight) is net.weight
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    other = torch.optim.AdamW(net.parameters())
    load_optimizer(other, optimizer.state_dict())
    for parameter in net.parameters():
        assert all(value.equal(optimizer.state[parameter][key]) for key, value in other.state[parameter].items())


def test_sharding_wants_several_processes_and_a_fixed_weight_of_the_gan(tiny):
    full = {("sharding",): "full"}
    with pytest.raises(ConfigError, match="sharding 'full' shares the weights among processes, and processes is 1"):
        parse_profile(tiny(full), "tiny")
    two = {**full, ("processes",): 2}
    with pytest.raises(ConfigError, match="cannot compute the adaptive weight of the GAN in phase 3; set 'adaptive"):
        parse_profile(tiny(two), "tiny")
    sharded = tiny_diffusion.profile(two)
    plain = tiny_diffusion.profile({("processes",): 2})
    assert diffusion_recipe(sharded, "uvit") == diffusion_recipe(plain, "uvit")
    assert training_recipe(sharded, "sd-vae", 1) == training_recipe(plain, "sd-vae", 1)
