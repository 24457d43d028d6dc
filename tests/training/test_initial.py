import copy
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.main import main
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.weight_files import weights_sha256
from dcae_bench.models.zoo import build
from dcae_bench.planning.meaning import Meaning
from dcae_bench.planning.workflow import Workflow
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.records.record import load
from dcae_bench.specs.autoencoders import CustomSpec
from dcae_bench.training.initial import initialise
from dcae_bench.weights.trained import read_statement


def model(tiny, autoencoder: str):
    return build(parse_profile(tiny(), "tiny").autoencoders[autoencoder].model, seed=0)


@pytest.mark.parametrize("autoencoder", ["dc-ae", "sd-vae"])
def test_blocks_start_as_the_identity(tiny, autoencoder):
    """With zeros at the ends of their branches, the model computes the same without the rest of the branches."""
    net = model(tiny, autoencoder).eval()
    plain = copy.deepcopy(net)
    initialise(net, "identity", seed=0)
    zeroed = {id(weights) for weights in net.residual_ends()}
    assert len(zeroed) > 3 and all(not weights.any() for weights in net.residual_ends())
    for (name, one), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        assert id(one) in zeroed or torch.equal(one, other), name
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        before = net(x)
        assert not torch.allclose(before, plain(x))
        for name, weights in net.named_parameters():
            if name.endswith(("conv1.weight", "qkv.weight", "expand.weight", "depthwise.weight")):
                weights.add_(1)  # inside the branches
        assert torch.equal(net(x), before)


@pytest.mark.parametrize("autoencoder", ["dc-ae", "sd-vae"])
def test_a_balanced_start_keeps_the_variance_and_has_no_biases(tiny, autoencoder):
    net, again = model(tiny, autoencoder), model(tiny, autoencoder)
    for one in (net, again):
        initialise(one, "balanced", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    wide = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 500]
    assert wide and not any(layer.bias.any() for layer in wide if layer.bias is not None)
    for layer in wide:
        assert layer.weight.var().item() * layer.weight[0].numel() == pytest.approx(1, rel=0.35)
    plain = model(tiny, autoencoder)
    before = [weights.clone() for weights in plain.parameters()]
    initialise(plain, "torch", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(before, plain.parameters(), strict=True))


def test_a_start_is_part_of_phase_1_alone(tiny):
    changed = parse_profile(tiny({("autoencoders", "dc-ae", "init"): "identity"}), "x")
    plain = parse_profile(tiny(), "x")
    assert training_recipe(changed, "dc-ae", 1) == {**training_recipe(plain, "dc-ae", 1), "init": "identity"}
    assert training_recipe(changed, "dc-ae", 2) == training_recipe(plain, "dc-ae", 2)
    control = {"family": "pca", "compression": 4, "latent_channels": 8}
    for wrong in ({"weights": "own", "file": "x.pt"}, {"model": control}):
        entry = {**tiny()["autoencoders"]["dc-ae"], "init": "identity", **wrong}
        with pytest.raises(ConfigError, match=r"'init' ha(s|ve) no effect"):
            parse_profile(tiny({("autoencoders", "dc-ae"): entry}), "x")


def test_an_autoencoder_without_known_branches_cannot_start_as_the_identity(tmp_path, monkeypatch):
    (tmp_path / "branchless.py").write_text(
        "import torch\nclass AE(torch.nn.Conv2d):\n    def __init__(self): super().__init__(3, 3, 1)\n"
        "    def encode(self, x): return self(x)\n    def decode(self, z): return z\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = CustomSpec(family="custom", class_name="branchless:AE", compression=1, latent_channels=3)
    with pytest.raises(ConfigError, match="init 'identity': an autoencoder of family custom has no known residual"):
        initialise(build(spec), "identity", seed=0)


def test_the_command_trains_from_named_weights_and_records_them(tmp_path, tiny, write_packs, monkeypatch, capsys):
    """The hash of the weights is part of the recipe, of the record, and of what the weights say of themselves."""
    mine = tmp_path / "mine.safetensors"
    first = build(parse_profile(tiny(), "tiny").autoencoders["dc-ae"].model, seed=8).state_dict()
    save_weights(first, mine)
    changes = {
        ("autoencoders", "dc-ae", "initial"): str(mine),
        ("training", "phases", 1, "freeze"): ["encoder.*"],
        ("training", "phases", 1, "images"): 8,
    }
    profile, data = write_packs(tmp_path, tiny(changes))
    output = tmp_path / "out" / "model.safetensors"

    def run(*further, wanted=0):
        words = ["train", "--profile", profile, "--autoencoder", "dc-ae", "--phase", 1, "--data", data, *further]
        words += ["--run-dir", tmp_path / "run", "--output", output]
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == wanted
        return capsys.readouterr().err

    assert "phase 1 starts from " in run("--initial", mine, wanted=2)
    run()
    record, state = load(output.with_name("record.json")), load_file(output)
    (phase,) = record.subject.trained
    assert (phase.initial, phase.initial_sha256, phase.frozen) == (str(mine), weights_sha256(mine), ("encoder.*",))
    assert read_statement(output).trained == record.subject.trained
    frozen = sum(
        value.numel()
        for key, value in build(load_profile(profile).autoencoders["dc-ae"].model).named_parameters()
        if key.startswith("encoder.")
    )
    assert record.settings["freeze"] == "encoder.*" and record.settings["frozen"].startswith(f"{frozen:,} of ")
    assert all(value.equal(first[key]) for key, value in state.items() if key.startswith("encoder."))
    assert not state["decoder.project_out.conv.weight"].equal(first["decoder.project_out.conv.weight"])
    assert "finished before" in run()
    meaning = Meaning(load_profile(profile), data)
    assert meaning.differences(record) == ()
    save_weights(build(load_profile(profile).autoencoders["dc-ae"].model, seed=9).state_dict(), mine)
    assert any("whose weights are others now" in reason for reason in meaning.differences(record))
    assert "finished before" not in run()
    assert load(output.with_name("record.json")).subject.trained[0].initial_sha256 == weights_sha256(mine)
    jobs = Workflow(str(profile))
    assert (jobs.initial_inputs("dc-ae", 1), jobs.initial_inputs("dc-ae", 2)) == ([str(mine)], [])
    assert jobs.initial_inputs("sd-vae", 1) == [] and not any("starts from" in line for line in jobs.complaints())
    wide = tiny()["autoencoders"]["dc-ae"]["model"] | {"latent_channels": 4}
    other = parse_profile(tiny({("autoencoders", "dc-ae", "model"): wide}), "x").autoencoders["dc-ae"].model
    save_weights(build(other, seed=0).state_dict(), mine)
    said = run(wanted=2)
    assert (
        "has another shape than the model's: (32, 4, 3, 3), not (32, 8, 3, 3) (and 2 more)" in said
        and said.count("\n") == 1
    )
    mine.unlink()
    assert f"autoencoders.dc-ae.initial '{mine}': is no file or folder here" in run(wanted=2)
    assert any(f"dc-ae starts from {mine}, which is not here" in line for line in jobs.complaints())


def test_named_weights_are_part_of_the_recipe_of_the_first_phase_alone(tiny):
    plain = parse_profile(tiny(), "x")
    changed = parse_profile(tiny({("autoencoders", "dc-ae", "initial"): "dc-ae-f64c128"}), "x")
    assert training_recipe(changed, "dc-ae", 1) == {
        **training_recipe(plain, "dc-ae", 1),
        "initial_weights": "dc-ae-f64c128",
    }
    assert training_recipe(changed, "dc-ae", 2) == training_recipe(plain, "dc-ae", 2)
    assert training_recipe(changed, "sd-vae", 1) == training_recipe(plain, "sd-vae", 1)
    control = {"family": "pca", "compression": 4, "latent_channels": 8}
    for wrong in ({"weights": "own", "file": "x.pt"}, {"model": control}, {"init": "identity"}):
        entry = {**tiny()["autoencoders"]["dc-ae"], "initial": "x.pt", **wrong}
        with pytest.raises(ConfigError, match=r"'init(ial)?' ha(s|ve) no effect|'initial' and 'init' have no effect"):
            parse_profile(tiny({("autoencoders", "dc-ae"): entry}), "x")
