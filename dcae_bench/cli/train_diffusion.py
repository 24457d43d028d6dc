"""``dcae-bench train-diffusion``: one denoiser on cached latents, resumed by running it again."""

from dcae_bench.cli.options import DenoiserAutoencoderOption, LatentsOption, ProfileOption, RowOption
from dcae_bench.cli.train import Output, RunDir
from dcae_bench.config import load_profile
from dcae_bench.launch import work_is_here


def train_diffusion(
    row: RowOption,
    latents: LatentsOption,
    output: Output,
    run_dir: RunDir,
    autoencoder: DenoiserAutoencoderOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Train one denoiser. Run the same command again after an interruption: it ends with the same weights."""
    plan = load_profile(profile)
    plan.trained_row(row)
    if not work_is_here(plan, exactly=True):
        return

    from dcae_bench.training.diffusion_run import train_diffusion

    train_diffusion(plan, row, latents=latents, output=output, run_dir=run_dir, autoencoder=autoencoder)
