"""``dcae-bench train-diffusion``: trains a denoiser on cached latents; the same command resumes the training."""

from dcae_bench.cli.options import (
    DenoiserAutoencoderOption,
    LatentsOption,
    ProfileOption,
    RowOption,
    RunDirOption,
    TrainedOption,
)
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.launch import start_processes


def train_diffusion(
    row: RowOption,
    latents: LatentsOption,
    output: TrainedOption,
    run_dir: RunDirOption,
    autoencoder: DenoiserAutoencoderOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Train one denoiser. Run the same command again after an interruption: the weights will be the same."""
    loaded = load_profile(profile)
    loaded.trained_row(row)
    if start_processes(loaded, exactly=True):
        return

    from dcae_bench.training.diffusion_run import train_diffusion

    train_diffusion(loaded, row, latents=latents, output=output, run_dir=run_dir, autoencoder=autoencoder)
