"""``dcae-bench figure``: draws reconstructions, galleries, samples, loss curves and guidance curves."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.options import writable_file

app = typer.Typer(help="Draw a figure from records.", no_args_is_help=True)


@app.command()
def reconstructions(
    records: Annotated[list[Path], typer.Argument(help="Reconstruction records with .samples.npy beside them.")],
    output: Annotated[Path, typer.Option(help="PNG file.", metavar="FILE", callback=writable_file)],
    images: Annotated[int, typer.Option(help="Images per data set and resolution.", min=1)] = 1,
) -> None:
    """Draw originals beside their reconstructions by each autoencoder."""
    from dcae_bench.tables.figures.reconstructions import load_samples, reconstructions_figure

    reconstructions_figure([load_samples(path) for path in records], output, images_per_row_group=images)


@app.command()
def losses(
    records: Annotated[list[Path], typer.Argument(help="Training records with log.jsonl beside them.")],
    output: Annotated[Path, typer.Option(help="PNG file.", metavar="FILE", callback=writable_file)],
) -> None:
    """Draw the loss curves of every autoencoder, one panel per phase."""
    from dcae_bench.records.record import load
    from dcae_bench.tables.figures.losses import LossCurve, loss_curves_figure

    logs = [LossCurve(load(path).subject, path.parent / "log.jsonl") for path in records]
    loss_curves_figure(logs, output)


@app.command()
def gallery(
    record: Annotated[Path, typer.Argument(help="Reconstruction record with .gallery.npz beside it.")],
    output: Annotated[Path, typer.Option(help="PNG file.", metavar="FILE", callback=writable_file)],
) -> None:
    """Draw the worst and the median reconstructions of an autoencoder."""
    from dcae_bench.tables.figures.gallery import gallery_figure, load_gallery

    gallery_figure(load_gallery(record), output)


@app.command()
def samples(
    records: Annotated[list[Path], typer.Argument(help="Generation records.")],
    images: Annotated[
        list[Path],
        typer.Option("--images", help="samples.npy of each record, in the order of the records.", metavar="FILE"),
    ],
    output: Annotated[Path, typer.Option(help="PNG file.", metavar="FILE", callback=writable_file)],
    count: Annotated[int, typer.Option(help="Samples per row.", min=1)] = 8,
) -> None:
    """Draw generated samples, one row per denoiser and latent space."""
    from dcae_bench.records.record import load
    from dcae_bench.tables.figures.denoisers import samples_figure

    if len(images) != len(records):
        raise ConfigError(f"--images: {len(images)} files for {len(records)} records; pass one for each")
    samples_figure([(load(path), file) for path, file in zip(records, images, strict=True)], output, count=count)


@app.command()
def diffusion_loss(
    records: Annotated[list[Path], typer.Argument(help="Records of denoisers' training with log.jsonl beside them.")],
    output: Annotated[Path, typer.Option(help="PNG file.", metavar="FILE", callback=writable_file)],
) -> None:
    """Draw the loss of denoisers against training FLOPs, one line per row."""
    from dcae_bench.records.record import load
    from dcae_bench.tables.figures.denoisers import loss_figure

    loss_figure({path.parent / "log.jsonl": load(path) for path in records}, output)


@app.command()
def guidance(
    records: Annotated[list[Path], typer.Argument(help="Generation records at several guidance scales.")],
    output: Annotated[Path, typer.Option(help="PNG file.", metavar="FILE", callback=writable_file)],
) -> None:
    """Draw the Fréchet distance against the guidance scale, one line per row."""
    from dcae_bench.records.record import load
    from dcae_bench.tables.figures.denoisers import guidance_figure

    guidance_figure([load(path) for path in records], output)
