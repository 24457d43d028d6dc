"""``dcae-bench train``: trains one phase of an autoencoder; the same command resumes the training."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.options import (
    AutoencoderOption,
    DataOption,
    ProfileOption,
    RunDirOption,
    TrainedOption,
    find_autoencoder,
)
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.gpus import take_gpus
from dcae_bench.running.launch import start_processes

Initial = Annotated[Path | None, typer.Option(help="Weights of the phase before (phases 2 and 3).", metavar="FILE")]


def train(
    autoencoder: AutoencoderOption,
    phase: Annotated[int, typer.Option(help="Phase 1, 2 or 3.", min=1, max=3)],
    data: DataOption,
    output: TrainedOption,
    run_dir: RunDirOption,
    initial: Initial = None,
    profile: ProfileOption = "demo",
) -> None:
    """Train one phase. Run the same command again after an interruption: the weights will be the same."""
    loaded = of_autoencoder(load_profile(profile), autoencoder)
    if (weights := find_autoencoder(loaded, autoencoder).weights) != "retrained":
        raise ConfigError(
            f"--autoencoder {autoencoder}: profile {loaded.name} takes its {weights} weights; it trains "
            f"{', '.join(loaded.with_weights('retrained')) or 'nothing'}"
        )
    if phase not in loaded.phases_of(autoencoder):
        raise ConfigError(
            f"--phase {phase}: profile {loaded.name} has phases {list(loaded.phases_of(autoencoder))} for {autoencoder}"
        )
    if (trained := loaded.trained_name(autoencoder, phase)) != autoencoder:
        raise ConfigError(f"--phase {phase}: {autoencoder} has this phase in common with {trained}; train that")
    if phase == 1 and initial is not None:
        start = loaded.initial_of(autoencoder, phase)
        named = "starts from nothing" if start is None else f"starts from {start}, which the profile names"
        raise ConfigError(f"--initial {initial}: phase 1 {named}; leave the option out")
    before = loaded.before(autoencoder, phase)
    if before is not None and initial is None:
        raise ConfigError(
            f"--initial is missing: phase {phase} starts from the weights of {before[0]}, phase {before[1]}"
        )

    if loaded.is_fitted(autoencoder):  # in seconds, in one process
        take_gpus(loaded, 1)
    elif start_processes(loaded, exactly=True):
        return

    from dcae_bench.training.run import train_phase

    train_phase(loaded, autoencoder, phase, data=data, initial=initial, output=output, run_dir=run_dir)
