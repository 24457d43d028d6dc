"""The options that change how training computes, each against plain training."""

import copy
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import sha256_json
from dcae_bench.data.packed import Photos
from dcae_bench.execution.blocks import blocks, checkpoint_blocks, compile_blocks
from dcae_bench.models.residual import ResBlock
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import parse_profile
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.training.autoencoder import PhaseRun, PhaseTrainer
from dcae_bench.training.phases import Freezer

OPTIMIZER = {"lr": 1e-3, "weight_decay": 0.1}
CODER = {"widths": [8, 16, 32], "depths": [0, 1, 2], "blocks": ["res", "res", "evit_glu"]}
BATCH_NORM = {"norms": ["bn2d", "bn2d", "trms2d"], "activations": ["relu", "relu", "silu"]}
AUTOENCODERS = {
    "dc-ae": {"family": "dc-ae", "latent_channels": 8, "encoder": CODER, "decoder": CODER},
    "dc-ae-bn": {"family": "dc-ae", "latent_channels": 8, "encoder": CODER, "decoder": {**CODER, **BATCH_NORM}},
    "sd-vae": {
        "family": "sd-vae",
        "latent_channels": 8,
        "widths": [8, 8, 16],
        "layers_per_block": 1,
        "norm_groups": 4,
    },
}
GAN = {"weight": 0.1, "adaptive": True, "discriminator": {"channels": 4, "layers": 1}, "optimizer": OPTIMIZER}
PROFILE = {
    "name": "tiny",
    "description": "Seconds on one core.",
    "seed": 3,
    "device": "cpu",
    "threads": 1,
    "pack_short_side": 64,
    "training": {
        "datasets": ["tiny"],
        "loss": {"l1": 1.0, "lpips": 0.0, "lpips_net": "alex"},
        "ema": {"decay": 0.9, "warmup_steps": 4},
        "checkpoint_images": 8,
        "log_images": 8,
        "phases": {
            1: {"resolution": 32, "images": 24, "batch_size": 8, "trainable": ["all"], "optimizer": OPTIMIZER},
            2: {
                "resolution": 64,
                "images": 24,
                "batch_size": 8,
                "trainable": ["encoder_head", "decoder_input"],
                "optimizer": OPTIMIZER,
            },
            3: {
                "resolution": 32,
                "images": 24,
                "batch_size": 8,
                "trainable": ["decoder_head"],
                "optimizer": OPTIMIZER,
                "gan": GAN,
            },
        },
    },
    "evaluation": {
        "protocol": "reconstruction/photos-v1",
        "sets": [{"dataset": "tiny", "resolution": 32}],
        "crops_per_photo": 1,
        "batch_size": 4,
        "samples": 1,
    },
    "autoencoders": {name: {"model": model} for name, model in AUTOENCODERS.items()},
    "paper_rows_not_run": "too large",
}
CHECKPOINT = {"execution": {"checkpoint_activations": True}}
OPTIONS = {
    "plain": {},
    "checkpoint_activations": CHECKPOINT,
    "channels_last": {"execution": {"channels_last": True}},
    "accumulate": {"accumulate": 4},
    "bf16": {"precision": "bf16"},
    "all": {
        "execution": {"checkpoint_activations": True, "channels_last": True},
        "accumulate": 2,
        "precision": "bf16",
    },
}


def profile(options: dict):
    content = copy.deepcopy(PROFILE)
    content["precision"] = options.get("precision", "fp32")
    content["training"]["execution"] = options.get("execution", {})
    for phase in content["training"]["phases"].values():
        phase["accumulate"] = options.get("accumulate", 1)
    return parse_profile(content, "tiny")


@pytest.fixture(scope="module")
def photos():
    generator = np.random.default_rng(0)
    arrays = [np.kron(generator.integers(0, 256, (8, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(12)]
    return Photos(arrays, [str(number) for number in range(12)])


@pytest.fixture(autouse=True)
def one_precision_per_process():
    """Accelerate remembers the first; these tests compare several, and leave none behind."""
    yield
    AcceleratorState._reset_state()


@pytest.fixture
def start(photos, tmp_path_factory):
    def make(autoencoder: str, phase: int, options: dict, directory=None) -> PhaseTrainer:
        plan = profile(options)
        AcceleratorState._reset_state()
        return PhaseTrainer(
            PhaseRun(
                profile=plan,
                autoencoder=autoencoder,
                phase=phase,
                photos=photos,
                initial=None,
                directory=directory or tmp_path_factory.mktemp("run"),
                recipe_sha256=sha256_json(training_recipe(plan, autoencoder, phase)),
            )
        )

    return make


def gradients(trainer: PhaseTrainer) -> torch.Tensor:
    """Gradient of one step, flat, before the optimiser uses it."""
    kept = []

    def keep(optimizer, *_):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        kept.append(torch.cat([grad.contiguous().reshape(-1) for grad in grads]))

    trainer.optimizer.optimizer.register_step_pre_hook(keep)
    trainer.step()
    return kept[0]


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative error of a vector."""
    return ((found - wanted).norm() / wanted.norm()).item()


def flat(value) -> list:
    if isinstance(value, dict):
        return [item for inner in value.values() for item in flat(inner)]
    if isinstance(value, list | tuple):
        return [item for inner in value for item in flat(inner)]
    return [value]


def assert_same_state(found: PhaseTrainer, wanted: PhaseTrainer) -> None:
    for a, b in zip(flat(found.state(0.0)), flat(wanted.state(0.0)), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else (a == b or isinstance(a, str))


@pytest.mark.parametrize("phase", [1, 2, 3])
@pytest.mark.parametrize("autoencoder", ["dc-ae-bn", "sd-vae"])
def test_checkpointed_activations_give_the_same_bits_and_batch_norm_moves_once(start, autoencoder, phase):
    trainers = [start(autoencoder, phase, options) for options in ({}, CHECKPOINT)]
    for _ in range(2):
        parts = [trainer.step() for trainer in trainers]
        assert parts[0] == parts[1]
    assert_same_state(*trainers)
    counts = [value for key, value in trainers[1].state(0.0)["model"].items() if key.endswith("num_batches_tracked")]
    assert (autoencoder == "dc-ae-bn") == bool(counts)
    assert set(map(int, counts)) <= {2 if phase == 1 else 0}


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_checkpointed_blocks_keep_less_and_compute_again(name):
    kept, calls = {}, {}
    for checkpointed in (False, True):
        model = build(profile({}).autoencoders[name].model, seed=0)
        Freezer(model, ["all"]).train_mode()
        found = blocks(model)
        count = [0]
        for block in found:
            block.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        inner = [module for block in found for module in block.modules() if isinstance(module, nn.Conv2d)]
        for module in inner:
            module.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        if checkpointed:
            checkpoint_blocks(model)
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(torch.rand(2, 3, 32, 32))
        output.mean().backward()
        kept[checkpointed], calls[checkpointed] = sum(sizes.values()), count[0]
    assert kept[True] < 0.5 * kept[False]
    assert calls[True] > calls[False]


@pytest.mark.parametrize("autoencoder", ["dc-ae", "sd-vae"])
def test_accumulated_gradients_equal_the_whole_batch_without_batch_norm(start, autoencoder):
    wanted = gradients(start(autoencoder, 1, {}))
    assert error(gradients(start(autoencoder, 1, {"accumulate": 4})), wanted) < 1e-5


def test_with_batch_norm_each_part_has_statistics_of_its_own(start):
    whole, parts = start("dc-ae-bn", 1, {}), start("dc-ae-bn", 1, {"accumulate": 4})
    wanted = gradients(whole)
    found = gradients(parts)
    assert 1e-3 < error(found, wanted) < 1
    for key, value in parts.autoencoder.state_dict().items():
        if key.endswith("num_batches_tracked"):
            assert value == 4 and whole.autoencoder.state_dict()[key] == 1
    # The frozen BatchNorm of phase 2 is in evaluation mode, and there the parts are exact again.
    assert error(gradients(start("dc-ae-bn", 2, {"accumulate": 4})), gradients(start("dc-ae-bn", 2, {}))) < 1e-5


def test_accumulation_logs_the_mean_and_counts_the_batch_once(start):
    whole, parts = start("dc-ae", 1, {}), start("dc-ae", 1, {"accumulate": 4})
    wanted, found = whole.step(), parts.step()
    assert found == pytest.approx(wanted, rel=1e-5)
    assert parts.images == whole.images == 8


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("autoencoder", ["dc-ae-bn", "sd-vae"])
def test_channels_last_changes_rounding_only(start, autoencoder, phase):
    wanted = gradients(start(autoencoder, phase, {}))
    trainer = start(autoencoder, phase, {"execution": {"channels_last": True}})
    convolutions = [p for p in trainer.autoencoder.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    assert trainer.batch().is_contiguous(memory_format=torch.channels_last)
    assert error(gradients(trainer), wanted) < 1e-4


@pytest.mark.parametrize("autoencoder", ["dc-ae-bn", "sd-vae"])
def test_bf16_is_within_its_stated_error_of_fp32(start, autoencoder):
    kept, grads = [], []
    for options in ({}, {"precision": "bf16"}):
        trainer = start(autoencoder, 1, options)
        trainer.model.register_forward_hook(lambda module, inputs, output: kept.append(output.detach().float()))
        grads.append(gradients(trainer))
    assert error(kept[1], kept[0]) < 0.1
    assert error(grads[1], grads[0]) < 0.2
    assert all(p.dtype == torch.float32 for p in trainer.autoencoder.parameters())
    assert all(value.dtype != torch.bfloat16 for value in trainer.ema.state.values())


def has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


@pytest.mark.long
@pytest.mark.skipif(not has_compiler(), reason="torch.compile on the CPU needs a C++ compiler")
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch.compile emits vector code, which needs AVX2"
)
def test_a_compiled_block_changes_rounding_only(tmp_path, monkeypatch):
    # The compiler's own cache may hold kernels for other vector instructions, whose gradients are garbage here.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, compiled = (nn.Sequential(ResBlock(8, norm="bn2d", activation="relu")) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compile_blocks(compiled)
    image = torch.rand(2, 8, 8, 8)
    for model in (plain, compiled):
        model(image).square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        # The second convolution has no bias and BatchNorm takes out the mean: compare on the gradients' common scale.
        assert (p.grad - q.grad).abs().max() < 1e-4 * plain[0].conv2.weight.grad.abs().max(), name
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    torch.testing.assert_close(compiled[0].norm.running_var, plain[0].norm.running_var)


@pytest.mark.long
def test_compiled_blocks_can_be_checkpointed(start, monkeypatch):
    """The graphs are traced and differentiated as in earnest, but not made into machine code, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    both = {"execution": {"compile": True, "checkpoint_activations": True}}
    trainer = start("dc-ae-bn", 1, both)
    assert error(gradients(trainer), gradients(start("dc-ae-bn", 1, {}))) < 1e-4
    counts = [value for key, value in trainer.state(0.0)["model"].items() if key.endswith("num_batches_tracked")]
    assert counts and set(map(int, counts)) == {1}


@pytest.mark.parametrize("phase", [1, 3])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_resumed_run_equals_an_unbroken_one_with_every_option(start, tmp_path, option, phase):
    options, name = OPTIONS[option], "dc-ae-bn"
    unbroken = start(name, phase, options)
    unbroken.train(lambda: 1.0, lambda *_: None)

    def stop(images, parts):
        if images == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(name, phase, options, tmp_path).train(lambda: 1.0, stop)
    resumed = start(name, phase, options, tmp_path)
    assert resumed.images == 8
    resumed.train(lambda: 1.0, lambda *_: None)
    assert_same_state(resumed, unbroken)


def test_every_option_is_part_of_the_recipe():
    recipes = [sha256_json(training_recipe(profile(options), "dc-ae", 1)) for options in OPTIONS.values()]
    assert len(set(recipes)) == len(recipes)
    compiled = training_recipe(profile({"execution": {"compile": True}}), "dc-ae", 1)
    assert sha256_json(compiled) not in recipes


def test_parts_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ConfigError, match="batch_size 8 is not a multiple of accumulate 3"):
        profile({"accumulate": 3})


def test_a_model_without_known_blocks_is_refused():
    with pytest.raises(ConfigError, match="none of the blocks"):
        checkpoint_blocks(nn.Linear(2, 2))
