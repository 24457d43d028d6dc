import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from dcae_bench.base.errors import ConfigError, TrainingError, WeightsError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import main
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.records.record import load
from dcae_bench.training.checkpoint import CHECKPOINT, DIVERGED
from dcae_bench.training.log import read_log
from dcae_bench.weights.trained import TrainedWeights

FAMILIES = ["dc-ae", "sd-vae"]


class Stopped(Exception):
    """Stands for a kill between a batch and its checkpoint."""


def train(trainer, *, stop_at: int | None = None) -> None:
    def progress(images: int, parts: dict[str, float]) -> None:
        if images == stop_at:
            raise Stopped

    trainer.train(lambda: 1.0, progress)


def everything(trainer) -> dict[str, torch.Tensor]:
    """All tensors of a trainer's state, flat."""
    flat: dict[str, torch.Tensor] = {}

    def visit(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{name}.{key}", inner)
        elif isinstance(value, list | tuple):
            for number, inner in enumerate(value):
                visit(f"{name}.{number}", inner)
        else:
            flat[name] = value.clone() if isinstance(value, torch.Tensor) else torch.tensor(value or 0)

    state = trainer.state(0.0)
    visit("state", {key: value for key, value in state.items() if key != "recipe_sha256"})
    return flat


def assert_identical(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert not [key for key in wanted if not found[key].equal(wanted[key])]


@pytest.mark.parametrize("autoencoder", FAMILIES)
def test_three_phases_run_and_each_starts_from_the_weights_before(start, tmp_path, autoencoder):
    weights = None
    for phase in (1, 2, 3):
        trainer = start(tmp_path / str(phase), autoencoder, phase, first=weights)
        if weights is not None:
            before = load_file(weights)
            assert_identical(dict(trainer.autoencoder.state_dict()), before)
            assert_identical(trainer.ema.state, before)
        train(trainer)
        log = read_log(tmp_path / str(phase) / "log.jsonl")
        assert [line["images"] for line in log] == list(range(4, trainer.phase_spec.images + 1, 4))
        adversarial = {"gan", "disc", "disc_grad_norm"} if phase == 3 else set()
        assert set(log[0]) == {"images", "loss", "l1", "lr", "grad_norm"} | adversarial
        if phase == 1:
            assert log[-1]["l1"] < 0.9 * log[0]["l1"]
        weights = tmp_path / f"{phase}.safetensors"
        save_weights(trainer.ema.state, weights)
        assert not any(value.equal(trainer.ema.state[key]) for key, value in trained(trainer).items())


def trained(trainer) -> dict[str, torch.Tensor]:
    """The convolution weights that the phase moves."""
    names = {key for key, p in trainer.autoencoder.named_parameters() if p.requires_grad and p.ndim == 4}
    return {key: value for key, value in trainer.autoencoder.state_dict().items() if key in names}


def test_weights_of_another_model_are_refused(start, tmp_path, initial):
    with pytest.raises(WeightsError, match="no key is this autoencoder"):
        start(tmp_path, "dc-ae", 2, first=initial("sd-vae"))


def test_each_batch_warms_up_and_every_family_sees_the_same_crops(start, tmp_path):
    trainers = [start(tmp_path / name, name, 1) for name in FAMILIES]
    for _ in range(3):
        first, second = (trainer.batch() for trainer in trainers)
        assert first.equal(second) and first.shape == (4, 3, 16, 16)
        rates = [trainer.step()["lr"] for trainer in trainers]
        assert rates == [0.01 * min(1, trainers[0].images / 8)] * 2
    assert not first.equal(start(tmp_path / "3", "dc-ae", 3).batch())


def test_loss_parts_add_up(start, tmp_path):
    changes = {("training", "phases", 3, "gan", "adaptive"): False, ("training", "loss", "l1"): 2.0}
    parts = start(tmp_path, "dc-ae", 3, changes).step()
    assert parts["loss"] == pytest.approx(2 * parts["l1"] + 0.1 * parts["gan"], rel=1e-5)


LATE_GAN = {("training", "phases", 3, "gan", "start_images"): 12, ("training", "phases", 3, "images"): 24}


def test_the_discriminator_starts_after_its_images_and_a_resumed_run_is_bit_equal(start, tmp_path):
    late = start(tmp_path / "late", "dc-ae", 3, LATE_GAN)
    never = start(tmp_path / "never", "dc-ae", 3, {("training", "phases", 3, "gan"): None})
    first = {key: value.clone() for key, value in late.discriminator.state_dict().items()}
    adversarial = {"gan", "disc", "disc_grad_norm"}
    for _ in range(3):
        found, wanted = late.step(), never.step()
        assert found == wanted and not adversarial & found.keys()
    assert_identical(dict(late.autoencoder.state_dict()), dict(never.autoencoder.state_dict()))
    assert_identical(dict(late.discriminator.state_dict()), first)
    assert adversarial <= late.step().keys()
    assert not late.discriminator.layers[0].weight.equal(first["layers.0.weight"])
    unbroken = start(tmp_path / "unbroken", "dc-ae", 3, LATE_GAN)
    train(unbroken)
    for stop_at in (12, 20):  # before the start, from a checkpoint without the discriminator's moments, and after it
        with pytest.raises(Stopped):
            train(start(tmp_path / "broken", "dc-ae", 3, LATE_GAN), stop_at=stop_at)
    resumed = start(tmp_path / "broken", "dc-ae", 3, LATE_GAN)
    assert resumed.images == 16
    train(resumed)
    assert_identical(everything(resumed), everything(unbroken))
    lines = read_log(tmp_path / "broken" / "log.jsonl")
    assert [adversarial <= line.keys() for line in lines] == [False] * 3 + [True] * 3


def test_the_discriminators_warm_up_counts_from_its_start(start, tmp_path):
    optimizer = {"lr": 0.01, "weight_decay": 0.0, "warmup_images": 8, "schedule": "cosine"}
    trainer = start(tmp_path, "dc-ae", 3, {**LATE_GAN, ("training", "phases", 3, "gan", "optimizer"): optimizer})
    rates = []
    for _ in range(6):
        trainer.step()
        rates.append(trainer.d_optimizer.param_groups[0]["lr"])
    assert rates[3:] == pytest.approx([0.005, 0.01, 0.0])


@pytest.mark.parametrize(
    ("start_images", "says"),
    [
        (40, "start_images 40 of the gan of phase 3 leaves none of its 40 images for the discriminator"),
        (6, "the gan's start_images 6 is not a multiple of 4, as phase 3 needs"),
        (-4, "start_images"),
    ],
)
def test_a_start_of_the_discriminator_that_cannot_be_is_refused(tiny, start_images, says):
    with pytest.raises(ConfigError, match=says):
        parse_profile(tiny({("training", "phases", 3, "gan", "start_images"): start_images}), "x")


ELSEWHERE = {
    "family": "diffusers",
    "source": "some/where",
    "class_name": "AutoencoderTiny",
    "compression": 4,
    "latent_channels": 4,
    "config": {
        **{f"{side}_block_out_channels": [8, 8, 8] for side in ("encoder", "decoder")},
        **{f"num_{side}_blocks": [1, 1, 1] for side in ("encoder", "decoder")},
    },
}


@pytest.mark.parametrize("phase", [1, 3])
def test_an_autoencoder_made_elsewhere_is_trained_as_a_whole(start, tiny, tmp_path, phase):
    """Its last layer is not known, and nothing but an adaptive GAN weight asks for it."""
    changes = {
        ("autoencoders", "elsewhere"): {"model": ELSEWHERE},
        **{("training", "phases", number, "trainable"): ["all"] for number in (1, 2, 3)},
        ("training", "phases", 3, "gan", "adaptive"): False,
    }
    first = build(parse_profile(tiny(changes), "tiny").autoencoders["elsewhere"].model, seed=1).state_dict()
    save_weights(first, tmp_path / "first.safetensors")
    initial = tmp_path / "first.safetensors" if phase == 3 else None
    trainer = start(tmp_path / "run", "elsewhere", phase, changes, initial)
    before = {key: value.clone() for key, value in trainer.autoencoder.state_dict().items()}
    trainer.step()
    assert any(not value.equal(before[key]) for key, value in trainer.autoencoder.state_dict().items())
    trainer.close()


@pytest.mark.parametrize("phase", [1, 2, 3])
@pytest.mark.parametrize("autoencoder", FAMILIES)
def test_a_resumed_run_equals_an_unbroken_one(start, tmp_path_factory, autoencoder, phase):
    unbroken = start(tmp_path_factory.mktemp("unbroken"), autoencoder, phase)
    train(unbroken)
    wanted, batches = everything(unbroken), unbroken.phase_spec.images // 4

    @settings(max_examples=4, deadline=None)
    @given(stops=st.lists(st.integers(1, batches), min_size=1, max_size=2))
    def stopped_anywhere(stops):
        folder = tmp_path_factory.mktemp("resumed")
        for stop in stops:
            trainer = start(folder, autoencoder, phase)
            if trainer.images >= 4 * stop:
                continue
            with pytest.raises(Stopped):
                train(trainer, stop_at=4 * stop)
        trainer = start(folder, autoencoder, phase)
        assert trainer.images == (max(stops) - 1) // 2 * 8  # the last checkpoint, one every two batches
        train(trainer)
        assert_identical(everything(trainer), wanted)
        assert (folder / "log.jsonl").read_bytes() == (unbroken.run.directory / "log.jsonl").read_bytes()

    stopped_anywhere()


def test_a_gpu_that_is_not_there_is_no_reason_to_train_on_the_processor(start, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device 'cuda' is not there"):
        start(tmp_path, "sd-vae", 1, {("device",): "cuda"})


def test_a_finished_run_has_nothing_left_to_do(start, tmp_path):
    train(start(tmp_path, "dc-ae", 2))
    again = start(tmp_path, "dc-ae", 2)
    before = everything(again)
    train(again)
    assert again.images == again.phase_spec.images
    assert_identical(everything(again), before)


def test_a_run_of_another_recipe_is_not_continued(start, tmp_path):
    with pytest.raises(Stopped):
        train(start(tmp_path, "dc-ae", 1), stop_at=12)
    with pytest.raises(TrainingError, match="belongs to recipe"):
        start(tmp_path, "dc-ae", 1, {("seed",): 4})


def diverge(trainer) -> dict[str, torch.Tensor]:
    """Train until the loss is not finite; the state as it was before that batch."""
    last = everything(trainer)

    def progress(images: int, parts: dict[str, float]) -> None:
        nonlocal last
        last = everything(trainer)

    with pytest.raises(TrainingError, match="the loss or its gradient is not finite at image") as caught:
        trainer.train(lambda: 1.0, progress)
    message = str(caught.value)
    assert f"at image {trainer.images} " in message and "lower the learning rate" in message
    assert str(trainer.run.directory / DIVERGED) in message and "\n" not in message
    return last


def check_diverged(trainer, before: dict[str, torch.Tensor]) -> None:
    saved = torch.load(trainer.run.directory / DIVERGED, weights_only=True)
    for part in ("model", "ema", *(["discriminator"] if trainer.discriminator else [])):
        for key, value in saved[part].items():
            assert value.isfinite().all(), (part, key)
            assert value.equal(before[f"state.{part}.{key}"]), (part, key)
    assert saved["images"] == trainer.images


@pytest.mark.parametrize("phase", [1, 3])
def test_a_nan_loss_stops_with_the_weights_before_the_bad_batch(start, tmp_path, phase):
    trainer = start(tmp_path, "dc-ae", phase)
    loss, batches = trainer.objective.loss, iter(range(100))

    def broken(reconstruction, images, **options):
        value, parts = loss(reconstruction, images, **options)
        return (value * float("nan") if next(batches) == 2 else value), parts

    trainer.objective.loss = broken
    before = diverge(trainer)
    assert trainer.images == 8
    check_diverged(trainer, before)
    assert [line["images"] for line in read_log(tmp_path / "log.jsonl")] == [4, 8]
    assert start(tmp_path, "dc-ae", phase).images == 8, "the run can go on from its last good checkpoint"


def test_a_nan_gradient_of_a_finite_loss_stops_before_it_reaches_a_weight(start, tmp_path):
    trainer = start(tmp_path, "dc-ae", 1)
    loss, batches = trainer.objective.loss, iter(range(100))

    def broken(reconstruction, images, **options):
        value, parts = loss(reconstruction, images, **options)
        zero = (reconstruction - reconstruction.detach()).abs().sum().sqrt()  # the root's slope at 0 is infinite
        return (value + zero if next(batches) == 2 else value), parts

    trainer.objective.loss = broken
    before = diverge(trainer)
    assert trainer.images == 8
    check_diverged(trainer, before)


@pytest.mark.parametrize("phase", [1, 3])
def test_a_run_that_explodes_stops_with_finite_weights(start, tmp_path, phase):
    """Here the bad batch reaches the BatchNorm statistics before any loss is seen."""
    lr = ("training", "phases", phase, "optimizer", "lr")
    trainer = start(tmp_path, "dc-ae", phase, {lr: 1e25})
    check_diverged(trainer, diverge(trainer))


# --- killed from outside ---------------------------------------------------------------------------------------------

# Runs the command line and kills it at a checkpoint's write: the N-th time data are forced to disk, before or after.
KILLED_WRITING = """
import os, signal, sys
number, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
fsync, seen = os.fsync, 0
def deadly(descriptor):
    global seen
    seen += 1
    if seen == number and moment == "before":
        os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
    if seen == number:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = deadly
from dcae_bench.cli.main import main
main()
"""


class Command:
    """``dcae-bench train`` of one phase, with folders of its own."""

    def __init__(self, folder: Path, config: Path, data: Path, phase: int, initial: Path | None):
        self.output, self.run_dir = folder / "out" / "model.safetensors", folder / "run"
        options = ["train", "--profile", config, "--autoencoder", "dc-ae", "--phase", phase, "--data", data]
        options += ["--output", self.output, "--run-dir", self.run_dir]
        options += ["--initial", initial] if initial else []
        self.arguments = [str(option) for option in options]

    def popen(self, *before: str) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        arguments = [sys.executable, *(before or ("-m", "dcae_bench")), *self.arguments]
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)

    def kill_after(self, seconds: float) -> int:
        process = self.popen()
        time.sleep(seconds)
        return self._kill(process)

    def kill_in_the_middle(self, lines: int, seconds: float) -> int:
        """Kill ``seconds`` after the log has so many lines."""
        process = self.popen()
        while process.poll() is None and self.logged() < lines:
            time.sleep(0.001)
        time.sleep(seconds)
        return self._kill(process)

    def logged(self) -> int:
        return max((path.read_bytes().count(b"\n") for path in self.run_dir.glob("*/log.jsonl")), default=0)

    @staticmethod
    def _kill(process: subprocess.Popen) -> int:
        process.kill()
        process.communicate()
        return process.returncode


@pytest.mark.long
@pytest.mark.parametrize("phase", [1, 3])
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
    phase, tmp_path, tiny, write_packs, initial, monkeypatch, capfd
):
    images = ("training", "phases", phase, "images")
    config, data = write_packs(tmp_path, tiny({images: 160}))
    first = initial("dc-ae") if phase > 1 else None
    unbroken = Command(tmp_path / "unbroken", config, data, phase, first)
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *unbroken.arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code

    killed = Command(tmp_path / "killed", config, data, phase, first)
    moments = random.Random(phase)
    killed.kill_after(moments.uniform(0.1, 1.0))
    killed.kill_in_the_middle(moments.randint(2, 12), moments.uniform(0, 0.05))
    # The first write is the log's, at start-up; the others are checkpoints.
    process = killed.popen("-c", KILLED_WRITING, str(moments.randint(2, 5)), "before" if phase == 1 else "after")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not killed.output.exists()
    assert list(killed.run_dir.glob(f"*/{CHECKPOINT}")), "a whole checkpoint outlives every kill"
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *killed.arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "resumed at image" in capfd.readouterr().err

    assert killed.output.read_bytes() == unbroken.output.read_bytes()
    log = "log.jsonl"
    assert killed.output.with_name(log).read_bytes() == unbroken.output.with_name(log).read_bytes()
    assert {path.name for path in killed.output.parent.iterdir()} == {"model.safetensors", log, "record.json"}
    assert not list(killed.run_dir.iterdir()), "the state of a finished run is gone"


def test_a_kill_while_the_state_is_cleared_away_costs_no_result(tmp_path, tiny, write_packs, monkeypatch):
    """A checkpoint of a finished run without its log would be taken for one whose log is empty."""
    config, data = write_packs(tmp_path, tiny())
    command = Command(tmp_path, config, data, 2, first := tmp_path / "first.safetensors")
    state = build(load_profile(config).autoencoders["dc-ae"].model, seed=0).state_dict()
    save_weights(state, first, trained=TrainedWeights(kind="autoencoder", name="dc-ae", phase=1))
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *command.arguments])

    def killed(folder):
        (Path(folder) / "log.jsonl").unlink()
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(shutil, "rmtree", killed)
        main()
    before = {path.name: path.read_bytes() for path in command.output.parent.iterdir()}
    assert before.keys() == {"model.safetensors", "log.jsonl", "record.json"}
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    for name in ("model.safetensors", "log.jsonl"):
        assert command.output.with_name(name).read_bytes() == before[name]
    assert not list(command.run_dir.iterdir())


def test_a_control_is_fitted_once_and_measured_like_the_others(tmp_path, tiny, write_packs, monkeypatch, capsys):
    """The command fits, writes weights, log and record, and does nothing the second time."""
    content = tiny()
    content["autoencoders"]["pca"] = {"model": {"family": "pca", "compression": 4, "latent_channels": 8, "images": 30}}
    profile, data = write_packs(tmp_path, content)
    output = tmp_path / "pca" / "model.safetensors"

    def run(profile: Path, *options: str) -> int:
        places = ("--data", str(data), "--run-dir", str(tmp_path / "run"), "--output", str(output))
        command = ["train", "--profile", str(profile), "--autoencoder", "pca", *places, *options]
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0

    assert run(profile, "--phase", "1") == 0
    record = load(output.with_name("record.json"))
    assert (record.protocol, record.subject.family, record.data.images) == (
        "training/principal-components-v1",
        "pca",
        30,
    )
    assert 0.5 < record.metrics["explained"].value <= 1 and record.provenance.seed == content["seed"]
    assert [line["images"] for line in read_log(output.with_name("log.jsonl"))] == [30]
    weights = load_file(output)
    assert weights["components"].shape == (8, 48)
    torch.testing.assert_close(weights["components"] @ weights["components"].T, torch.eye(8), atol=1e-4, rtol=0)
    before = output.stat().st_mtime_ns
    assert run(profile, "--phase", "1") == 0
    assert output.stat().st_mtime_ns == before and "finished before" in capsys.readouterr().err
    assert run(profile, "--phase", "2", "--initial", str(output)) == 2
    assert "has phases [1] for pca" in capsys.readouterr().err
    content["autoencoders"]["pca"]["model"]["images"] = 1
    content["training"]["phases"][1]["resolution"] = 4
    few = tmp_path / "few.yaml"
    few.write_text(yaml.safe_dump(content))
    assert run(few, "--phase", "1") == 2
    assert "1 images hold 1 patches of 4 px, fewer than its 8 components" in capsys.readouterr().err
