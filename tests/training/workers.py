"""Trainings that tests run in processes of their own; the processes find this file by its path."""

import os
import shutil
import sys
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM

import torch.distributed.launcher.api as api

from dcae_bench.base.errors import TrainingError
from dcae_bench.cli.main import main
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.running import nodes
from dcae_bench.running.stop import stoppable
from dcae_bench.training.autoencoder import PhaseTrainer
from dcae_bench.training.diffusion_run import train_diffusion
from dcae_bench.training.loop import Loop
from dcae_bench.training.run import train_phase


def profile(folder: Path) -> Profile:
    """The folder's profile, with the number of processes that were started, and the sharding that a test asks for."""
    count, sharding = int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("SHARDING", "none")
    return load_profile(folder / "tiny.yaml").model_copy(update={"processes": count, "sharding": sharding})


def first_phase(folder: Path, output: Path) -> None:
    train_autoencoder(folder, output, 1)


def third_phase(folder: Path, output: Path) -> None:
    train_autoencoder(folder, output, 3)


def third_phase_in_parts(folder: Path, output: Path) -> None:
    whole = profile(folder)
    phases = whole.training.phases
    in_parts = {**phases, 3: phases[3].model_copy(update={"accumulate": 2})}
    training = whole.training.model_copy(update={"phases": in_parts})
    train_autoencoder(folder, output, 3, whole.model_copy(update={"training": training}))


def third_phase_with_a_late_start(folder: Path, output: Path) -> None:
    """The discriminator starts after two batches, and the encoder and all norms are frozen."""
    whole = profile(folder)
    phases = whole.training.phases
    gan = phases[3].gan.model_copy(update={"start_images": 2 * phases[3].batch_size})
    late = phases[3].model_copy(update={"gan": gan, "trainable": ("all",), "freeze": ("encoder.*", "*.norm")})
    training = whole.training.model_copy(update={"phases": {**phases, 3: late}})
    train_autoencoder(folder, output, 3, whole.model_copy(update={"training": training}))


def train_autoencoder(folder: Path, output: Path, phase: int, changed: Profile | None = None) -> None:
    train_phase(
        changed or profile(folder),
        "dc-ae",
        phase,
        data=folder / "data",
        initial=folder / "initial.safetensors" if phase > 1 else None,
        output=output / "model.safetensors",
        run_dir=output / "run",
    )


def denoiser(folder: Path, output: Path) -> None:
    train_diffusion(
        profile(folder),
        "uvit",
        latents=folder / "latents",
        output=output / "model.safetensors",
        run_dir=output / "run",
        autoencoder=folder / "sd-vae.safetensors",
    )


def keep_first_checkpoint(output: Path) -> None:
    """Let the run leave its first checkpoint in ``output`` / ``first``, where another run can take it from."""
    checkpoint = Loop.checkpoint

    def keep(self: Loop, name: str, seconds: float) -> None:
        checkpoint(self, name, seconds)
        kept = output / "first" / self.spec.directory.name
        if self.accelerator.is_main_process and not kept.exists():
            shutil.copytree(self.spec.directory, kept)

    Loop.checkpoint = keep


def decoder_with_gan(folder: Path, output: Path) -> None:
    """The third phase of an autoencoder in parts, with recomputed activations and a fixed weight of its GAN."""
    keep_first_checkpoint(output)
    whole = profile(folder)
    third = whole.training.phases[3]
    third = third.model_copy(
        update={"images": 16, "accumulate": 2, "gan": third.gan.model_copy(update={"adaptive": False})}
    )
    changes = {"phases": {**whole.training.phases, 3: third}}
    changes["execution"] = whole.training.execution.model_copy(update={"checkpoint_activations": True})
    train_autoencoder(
        folder, output, 3, whole.model_copy(update={"training": whole.training.model_copy(update=changes)})
    )


def kept_denoiser(folder: Path, output: Path) -> None:
    keep_first_checkpoint(output)
    denoiser(folder, output)


def stopped_at_a_checkpoint(folder: Path, output: Path) -> None:
    checkpoint = Loop.checkpoint

    def stop(self: Loop, name: str, seconds: float) -> None:
        checkpoint(self, name, seconds)
        os._exit(9)

    Loop.checkpoint = stop
    third_phase(folder, output)


def stopped_by_a_signal_to_the_second_process(folder: Path, output: Path) -> None:
    step = PhaseTrainer.step

    def signalled(self: PhaseTrainer) -> dict[str, float]:
        values = step(self)
        if self.images == 4 and self.accelerator.process_index == 1:
            os.kill(os.getpid(), SIGTERM)
        return values

    PhaseTrainer.step = signalled
    with stoppable():
        third_phase(folder, output)


def bad_image_of_the_second_process(folder: Path, output: Path) -> None:
    batch = PhaseTrainer.batch

    def bad(self: PhaseTrainer, part: int = 0):
        images = batch(self, part)
        return images * float("nan") if self.images == 8 and self.accelerator.process_index == 1 else images

    PhaseTrainer.batch = bad
    try:
        first_phase(folder, output)
    except TrainingError:
        sys.exit(2)


def node(
    arguments: list[str], variables: dict[str, str], errors: Path, ended: int | None = None, by: int = SIGKILL
) -> None:
    """Run the command line as one node of a training. Its processes are forks of this one, which has imported all.

    After the first checkpoint, the command of the node with the number ``ended`` gets the signal ``by``.
    """
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.update(variables)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    elastic_launch, launcher = api.elastic_launch, os.getpid()

    def in_forks(config: api.LaunchConfig, entrypoint: object) -> api.elastic_launch:
        config.start_method = "fork"
        return elastic_launch(config, worker)

    def worker(*words: str) -> None:
        sys.argv = ["dcae-bench", *words[2:]]
        if os.environ["GROUP_RANK"] == str(ended):
            checkpoint = Loop.checkpoint

            sent: list[int] = []

            def kill(self: Loop, name: str, seconds: float) -> None:
                checkpoint(self, name, seconds)
                if not sent:
                    os.kill(launcher, by)
                    time.sleep(1)  # until the signal has come
                sent.append(by)

            Loop.checkpoint = kill
        try:
            main()
        except SystemExit as exited:
            if exited.code:  # the library calls a function that ends by this exception a failure whatever the code
                os._exit(exited.code)

    api.elastic_launch = in_forks
    nodes.CUT_OFF_S = 1.0
    sys.argv = ["dcae-bench", *arguments]
    main()
