import math

import pytest
import torch
from torch import nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import parse_profile
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.profile.training import EMASpec, OptimizerSpec
from dcae_bench.specs.autoencoders import CustomSpec
from dcae_bench.training.phases import EMA, Freezer, frozen_settings, head_norms, make_optimizer, set_learning_rate

FAMILIES = ["dc-ae", "sd-vae"]


def model(tiny, autoencoder: str):
    return build(parse_profile(tiny(), "tiny").autoencoders[autoencoder].model, seed=0)


@pytest.mark.parametrize(
    ("step", "decay", "tolerance"),
    [(1, 0.00049983, 5e-9), (1000, 0.393430, 5e-7), (2000, 0.632057, 5e-7), (20_000, 0.999855, 5e-7)],
)
def test_ema_decay_has_the_known_values(step, decay, tolerance):
    ema = EMA(nn.Linear(1, 1), EMASpec(decay=0.9999, warmup_steps=2000))
    assert ema.decay(step) == pytest.approx(decay, rel=0, abs=tolerance)


def test_ema_is_the_closed_form_over_steps():
    layer = nn.Linear(1, 1, bias=False).double()
    layer.weight.data.fill_(0.0)
    ema = EMA(layer, EMASpec(decay=0.5, warmup_steps=3))
    wanted = 0.0
    for step in range(1, 6):
        layer.weight.data.fill_(float(step))
        ema.update(layer, step)
        decay = 0.5 * (1 - math.exp(-step / 3))
        wanted = decay * wanted + (1 - decay) * step
    assert ema.state["weight"].item() == pytest.approx(wanted, rel=1e-12)


def test_ema_keeps_unchanged_state_bit_identical_and_follows_the_rest():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    ema = EMA(net, EMASpec(decay=0.999, warmup_steps=7))
    for step in range(1, 50):
        net[1](torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(step)))
        ema.update(net, step)
    for key in ("0.weight", "0.bias", "1.weight", "1.bias"):
        assert ema.state[key].equal(before[key])
    assert not ema.state["1.running_mean"].equal(before["1.running_mean"])
    assert not ema.state["1.running_mean"].equal(net[1].running_mean)
    assert ema.state["1.num_batches_tracked"].item() == 49


def test_ema_state_is_its_own():
    layer = nn.Linear(2, 2)
    ema = EMA(layer, EMASpec(decay=0.9))
    layer.weight.data.zero_()
    assert ema.state["weight"].any()


def test_warm_up_is_linear_in_images_and_then_constant():
    parameter = nn.Parameter(torch.zeros(2, 2))
    spec = OptimizerSpec(lr=0.5, weight_decay=0, warmup_images=100)
    optimizer = make_optimizer([parameter], spec)
    rates = [set_learning_rate(optimizer, spec, images, 10**6) for images in (1, 25, 100, 101, 10**6)]
    assert rates == [0.005, 0.125, 0.5, 0.5, 0.5]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
    assert set_learning_rate(optimizer, spec.model_copy(update={"warmup_images": 0}), 1, 2) == 0.5


def test_a_cosine_follows_the_warm_up_and_ends_at_nothing():
    spec = OptimizerSpec(lr=0.5, weight_decay=0, warmup_images=100, schedule="cosine")
    optimizer = make_optimizer([nn.Parameter(torch.zeros(2, 2))], spec)
    rates = [set_learning_rate(optimizer, spec, images, 1100) for images in (50, 100, 350, 600, 850, 1100)]
    half = 0.5**0.5
    assert rates == pytest.approx([0.25, 0.5, 0.25 * (1 + half), 0.25, 0.25 * (1 - half), 0], abs=1e-12)
    assert set_learning_rate(optimizer, spec.model_copy(update={"warmup_images": 2000}), 1000, 1000) == 0.25


def test_warm_up_may_start_at_a_share_of_the_rate():
    """As in the authors' trainer shell: warmup_lr + (lr - warmup_lr) * (k + 1) / steps at step k."""
    spec = OptimizerSpec(lr=6.4e-5, weight_decay=0, warmup_images=50 * 8, warmup_start=0.1)
    optimizer = make_optimizer([nn.Parameter(torch.zeros(2, 2))], spec)
    for step in (0, 1, 25, 49, 50, 1000):
        wanted = 6.4e-6 + (6.4e-5 - 6.4e-6) * min(step + 1, 50) / 50
        assert set_learning_rate(optimizer, spec, (step + 1) * 8, 10**6) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("autoencoder", "norm"), [("dc-ae", "decoder.project_out.norm"), ("sd-vae", "net.decoder.conv_norm_out")]
)
def test_the_norm_of_the_head_may_decay(tiny, autoencoder, norm):
    net = model(tiny, autoencoder)
    spec = OptimizerSpec(lr=0.1, weight_decay=0.25)
    for decay_too in ((), head_norms(net)):
        optimizer = make_optimizer(net.parameters(), spec, decay_too=decay_too)
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        vectors = {name for name, p in net.named_parameters() if p.ndim == 1 and decays[id(p)]}
        assert vectors == ({f"{norm}.weight"} if decay_too else set())
        assert all(decays[id(p)] for p in net.parameters() if p.ndim > 1)


def test_a_head_that_is_not_known_has_no_norm(tmp_path, monkeypatch):
    (tmp_path / "headless.py").write_text(
        "import torch\nclass AE(torch.nn.Conv2d):\n    def __init__(self): super().__init__(3, 3, 1)\n"
        "    def encode(self, x): return self(x)\n    def decode(self, z): return z\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = CustomSpec(family="custom", class_name="headless:AE", compression=1, latent_channels=3)
    with pytest.raises(ConfigError, match="decay_head_norm: an autoencoder of family custom has no norm"):
        head_norms(build(spec))


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_spares_vectors_unless_told_otherwise(decay_all):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    net[2].requires_grad_(False)
    spec = OptimizerSpec(lr=0.1, weight_decay=0.25, betas=(0.5, 0.75), decay_all=decay_all)
    optimizer = make_optimizer(net.parameters(), spec)
    decayed = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    vectors = 0.25 if decay_all else 0.0
    wanted = {net[0].weight: 0.25, net[0].bias: vectors, net[1].weight: vectors, net[1].bias: vectors}
    assert decayed == {id(p): decay for p, decay in wanted.items()}
    assert all(group["betas"] == (0.5, 0.75) for group in optimizer.param_groups)


def test_a_step_without_gradient_shows_adamws_decoupled_decay():
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([weight, bias], OptimizerSpec(lr=0.1, weight_decay=0.25))
    for parameter in (weight, bias):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.full((2, 2), 1 - 0.1 * 0.25))
    assert bias.data.equal(torch.ones(2))


@pytest.mark.parametrize("autoencoder", FAMILIES)
@pytest.mark.parametrize(
    "trainable", [["all"], ["encoder_head", "decoder_input"], ["decoder_head"], ["encoder_last_stage", "encoder_head"]]
)
def test_freezer_trains_the_named_layers_and_no_other(tiny, autoencoder, trainable):
    net = model(tiny, autoencoder)
    freezer = Freezer(net, trainable)
    freezer.train_mode()
    chosen = {m for name in trainable for layer in net.layer_sets()[name] for m in layer.modules()}
    parameters = {p for module in chosen for p in module.parameters()}
    assert chosen and parameters
    for p in net.parameters():
        assert p.requires_grad == (p in parameters)
    for module in net.modules():
        assert module.training == (module in chosen)


def test_patterns_freeze_layers_weights_and_statistics_within_what_a_phase_trains(tiny):
    net = model(tiny, "dc-ae")
    freezer = Freezer(net, ["all"], ["encoder.*", "*.bias"])
    freezer.train_mode()
    for name, p in net.named_parameters():
        assert p.requires_grad == (name.startswith("decoder.") and not name.endswith(".bias")), name
    for name, module in net.named_modules():
        if name and isinstance(module, nn.BatchNorm2d):
            assert module.training == (not name.startswith("encoder.")), name
    frozen = sum(p.numel() for p in net.parameters() if not p.requires_grad)
    assert frozen_settings(net, ["encoder.*", "*.bias"]) == {
        "freeze": "encoder.*, *.bias",
        "frozen": f"{frozen:,} of {net.count_parameters():,} parameters",
    }
    assert frozen_settings(net, []) == {}
    norm = next(m for name, m in net.named_modules() if name.startswith("decoder.") and isinstance(m, nn.BatchNorm2d))
    assert norm.training
    Freezer(net, ["all"], ["*.running_mean"]).train_mode()
    assert not norm.training and norm.weight.requires_grad


def test_a_layer_set_may_be_frozen_and_what_a_phase_freezes_stays_frozen(tiny):
    net = model(tiny, "sd-vae")
    Freezer(net, ["encoder_head", "decoder_head"], ["decoder_head"])
    sets = net.layer_sets()
    head = {id(p) for layer in sets["encoder_head"] for p in layer.parameters()}
    assert {id(p) for p in net.parameters() if p.requires_grad} == head


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (
            ["encoder.*", "encodr.*"],
            "freeze 'encodr.*': matches no layer and no weight .* family dc-ae; there are e",
        ),
        (["*.nothing"], "freeze '.*nothing': matches no layer"),
        (["all"], "freeze all: leaves nothing to train in all; freeze fewer layers"),
        (["encoder", "decoder.*"], "leaves nothing to train"),
    ],
)
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(tiny, patterns, says):
    with pytest.raises(ConfigError, match=says):
        Freezer(model(tiny, "dc-ae"), ["all"], patterns)


def test_frozen_patterns_are_part_of_the_recipe_of_their_phase_alone(tiny):
    plain = parse_profile(tiny(), "x")
    phase = parse_profile(tiny({("training", "phases", 3, "freeze"): ["*.norm"]}), "x")
    own = parse_profile(tiny({("autoencoders", "dc-ae", "freeze"): {3: ["*.bias"]}}), "x")
    assert "freeze" not in training_recipe(plain, "dc-ae", 3)["plan"]
    for name in ("dc-ae", "sd-vae"):
        assert training_recipe(phase, name, 3)["plan"]["freeze"] == ["*.norm"]
    assert training_recipe(own, "dc-ae", 3)["plan"]["freeze"] == ["*.bias"]
    assert training_recipe(own, "sd-vae", 3) == training_recipe(plain, "sd-vae", 3)
    assert training_recipe(phase, "dc-ae", 1) == training_recipe(own, "dc-ae", 1) == training_recipe(plain, "dc-ae", 1)
    with pytest.raises(ConfigError, match="weights are 'own', so 'freeze' has no effect"):
        entry = {**tiny()["autoencoders"]["dc-ae"], "weights": "own", "file": "x.pt", "freeze": {1: ["*"]}}
        parse_profile(tiny({("autoencoders", "dc-ae"): entry}), "x")


def test_layers_frozen_by_a_pattern_stay_bit_identical_with_their_statistics(start, tmp_path):
    changes = {("training", "phases", 1, "freeze"): ["encoder.*"]}
    trainer = start(tmp_path, "dc-ae", 1, changes)
    before = {key: value.clone() for key, value in trainer.autoencoder.state_dict().items()}
    average = {key: value.clone() for key, value in trainer.ema.state.items()}
    for _ in range(2):
        trainer.step()
    for key, value in trainer.autoencoder.state_dict().items():
        if key.startswith("encoder."):
            assert value.equal(before[key]) and trainer.ema.state[key].equal(average[key]), key
        elif key.endswith(("conv.weight", "running_mean")):
            assert not value.equal(before[key]) and not trainer.ema.state[key].equal(average[key]), key


def test_an_adaptive_gan_needs_the_last_layer(start, tmp_path):
    with pytest.raises(ConfigError, match="phase 3: 'adaptive' of the gan compares gradients at the last layer"):
        start(tmp_path, "dc-ae", 3, {("training", "phases", 3, "freeze"): ["decoder.project_out.conv.*"]})


@pytest.mark.parametrize("autoencoder", FAMILIES)
@pytest.mark.parametrize("phase", [1, 2, 3])
def test_frozen_layers_stay_bit_identical_and_the_trainable_ones_move(start, tmp_path, autoencoder, phase):
    trainer = start(tmp_path, autoencoder, phase)
    net = trainer.autoencoder
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for _ in range(3):
        trainer.step()
    names = dict(net.named_modules())
    chosen = {
        id(m) for name in trainer.phase_spec.trainable for layer in net.layer_sets()[name] for m in layer.modules()
    }
    moved = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    for key in before:
        owner = names[key.rpartition(".")[0]]
        if id(owner) in chosen:
            assert key in moved or unreachable(key), key
        else:
            assert key not in moved, key
            assert trainer.ema.state[key].equal(before[key]), key
    if phase == 1 and autoencoder == "dc-ae":
        assert any(key.endswith("running_mean") for key in moved)
    if phase > 1 and autoencoder == "dc-ae":
        assert any(key.endswith("running_mean") for key in before)
    assert moved and (phase == 1 or len(moved) < len(before) / 2)


def unreachable(key: str) -> bool:
    """The variance's half of SD-VAE's head: the latent is the mean, and the mid block attends over one norm's input."""
    return key.endswith("to_k.bias")  # softmax does not see a constant added to every key's score


def test_the_discriminator_moves_in_phase_3(start, tmp_path):
    trainer = start(tmp_path, "dc-ae", 3)
    before = {key: value.clone() for key, value in trainer.discriminator.state_dict().items()}
    trainer.step()
    still = [key for key, value in trainer.discriminator.state_dict().items() if value.equal(before[key])]
    # The last bias adds to real and to reconstructed logits alike: until the hinge lets go, their gradients cancel.
    assert still in ([], ["layers.8.bias"])


def test_each_net_of_phase_3_steps_on_its_own_loss_alone(start, tmp_path):
    """The discriminator's update is the one of its own loss, with nothing left by the autoencoder's."""
    from dcae_bench.training.losses import discriminator_loss

    trainer = start(tmp_path, "dc-ae", 3)
    gradients = {}
    step = trainer.d_optimizer.step

    def watched(*arguments, **keywords):
        gradients.update({key: p.grad.clone() for key, p in trainer.discriminator.named_parameters()})
        return step(*arguments, **keywords)

    trainer.d_optimizer.step = watched
    trainer.freezer.train_mode()
    images = trainer.batch()
    with torch.no_grad():
        reconstruction = trainer.model(images)
    loss = discriminator_loss(trainer.discriminator(images), trainer.discriminator(reconstruction))
    wanted = torch.autograd.grad(loss, list(trainer.discriminator.parameters()))
    trainer.step()
    torch.testing.assert_close(list(gradients.values()), list(wanted))
