"""Trainings that a signal stops: a checkpoint at the next step, from which they go on to the same bits."""

import os
import sys
from signal import SIGTERM, SIGUSR1

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dcae_bench.cli.main import main
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.running.stop import EXIT_CODE, Stopped, stoppable
from dcae_bench.training.checkpoint import CHECKPOINT
from dcae_bench.training.diffusion import DiffusionTrainer
from tests import tiny_diffusion as tiny
from tests.training.test_loop import assert_identical, everything, train

# Lines of the log and checkpoints every second batch, so that a stop falls between them.
RARE = {("training", "log_images"): 8, ("training", "checkpoint_images"): 8}


def stop_at(trainer, images, number=SIGTERM):
    """Train until a signal after ``images`` images; return what the command would say."""

    def progress(seen, _parts):
        if seen == images:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as stopped, stoppable():
        trainer.train(lambda: 1.0, progress)
    return stopped.value


@pytest.mark.parametrize("phase", [1, 3])
def test_a_stopped_phase_goes_on_from_its_last_step_to_the_same_bits(start, tmp_path, phase):
    whole = start(tmp_path / "whole", "dc-ae", phase, RARE)
    train(whole)
    for images in (4, 12):
        trainer = start(tmp_path / "parts", "dc-ae", phase, RARE)
        said = stop_at(trainer, images, SIGUSR1)
        assert said.code == EXIT_CODE and "stopped by SIGUSR1" in said.line and f"at image {images} of" in said.line
        resumed = start(tmp_path / "parts", "dc-ae", phase, RARE)
        assert resumed.images == images
        assert_identical(everything(resumed), everything(trainer))
    train(resumed)
    assert_identical(everything(resumed), everything(whole))
    assert (tmp_path / "parts" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
    assert "log_begun" not in torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)


def test_a_signal_with_the_last_step_lets_the_training_finish(start, tmp_path):
    trainer = start(tmp_path, "dc-ae", 1, RARE)
    last = trainer.spec.images

    def progress(seen, _parts):
        if seen == last:
            os.kill(os.getpid(), SIGTERM)

    with stoppable():
        trainer.train(lambda: 1.0, progress)
    assert trainer.average


def test_the_command_stops_a_denoiser_and_makes_up_for_its_previews(tmp_path, monkeypatch, capsys):
    """A stop at a checkpoint of the interval has no time to sample the previews of that checkpoint."""
    data, weights = tiny.write_data(tmp_path / "data"), tiny.write_weights(tmp_path / "sd-vae.safetensors")
    encode_dataset(tiny.profile(), "sd-vae@retrained", "two", data=data, output=tmp_path / "two", weights=weights)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))

    def command(name):
        options = {
            "profile": tmp_path / "tiny.yaml",
            "row": "uvit",
            "latents": tmp_path / "two",
            "autoencoder": weights,
        }
        options |= {"run-dir": tmp_path / name / "run", "output": tmp_path / name / "out" / "model.safetensors"}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "train-diffusion", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert command("whole") == 0
    step, drawn = DiffusionTrainer.step, []
    preview = DiffusionTrainer.preview

    def stopped(self):
        values = step(self)
        if self.images in (8, 12):
            os.kill(os.getpid(), SIGTERM)
        return values

    def counted(self, average):
        drawn.append(self.images)
        preview(self, average)

    monkeypatch.setattr(DiffusionTrainer, "preview", counted)
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTrainer, "step", stopped)
        capsys.readouterr()
        assert command("parts") == EXIT_CODE and drawn == []
        said = "row uvit: stopped by SIGTERM at image 8 of 24, with a checkpoint; run the same command again to go on\n"
        assert capsys.readouterr().err.endswith(said)
        assert command("parts") == EXIT_CODE and drawn == [8]
    assert command("parts") == 0 and drawn == [8, 16, 24]
    whole, parts = (tmp_path / name / "out" for name in ("whole", "parts"))
    for name in ("log.jsonl", "preview.npy"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    found, wanted = (load_file(folder / "model.safetensors") for folder in (parts, whole))
    assert not [key for key in wanted if not found[key].equal(wanted[key])]
