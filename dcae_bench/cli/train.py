"""``dcae-bench train``: one phase of one autoencoder, resumed by running it again."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import AutoencoderOption, DataOption, ProfileOption, find_autoencoder
from dcae_bench.config import load_profile
from dcae_bench.errors import ConfigError
from dcae_bench.launch import work_is_here

Output = Annotated[
    Path, typer.Option(help="Finished weights; record.json and log.jsonl are written beside them.", metavar="FILE")
]
RunDir = Annotated[
    Path, typer.Option(help="Folder for the state of an unfinished run; kept when it is interrupted.", metavar="DIR")
]
Initial = Annotated[Path | None, typer.Option(help="Weights of the phase before (phases 2 and 3).", metavar="FILE")]


def train(
    autoencoder: AutoencoderOption,
    phase: Annotated[int, typer.Option(help="Phase 1, 2 or 3.", min=1, max=3)],
    data: DataOption,
    output: Output,
    run_dir: RunDir,
    initial: Initial = None,
    profile: ProfileOption = "demo",
) -> None:
    """Train one phase. Run the same command again after an interruption: it ends with the same weights."""
    plan = load_profile(profile)
    if (weights := find_autoencoder(plan, autoencoder).weights) != "retrained":
        raise ConfigError(
            f"--autoencoder {autoencoder}: profile {plan.name} takes its {weights} weights; it trains "
            f"{', '.join(plan.named('retrained')) or 'nothing'}"
        )
    if phase not in plan.phases:
        raise ConfigError(f"--phase {phase}: profile {plan.name} has phases {list(plan.phases)}")
    if phase == 1 and initial is not None:
        raise ConfigError(f"--initial {initial}: phase 1 starts from nothing; leave the option out")
    if phase > 1 and initial is None:
        raise ConfigError(f"--initial is missing: phase {phase} starts from the weights of phase {phase - 1}")

    if not work_is_here(plan, exactly=True):
        return

    from dcae_bench.training.run import train_phase

    train_phase(plan, autoencoder, phase, data=data, initial=initial, output=output, run_dir=run_dir)
