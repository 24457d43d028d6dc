"""``dcae-bench evaluate``: measures an autoencoder's reconstructions on evaluation sets of the profile."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.options import (
    ChannelsOption,
    CompressionOption,
    DataOption,
    InceptionOption,
    PathOption,
    ProfileOption,
    SubjectOption,
    SubjectWeightsOption,
    find_sets,
    parse_path,
    writable_folder,
)
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.evaluation import TilesSpec
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.running.launch import start_processes
from dcae_bench.specs.protocols import Precision


def evaluate(
    autoencoder: SubjectOption,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for <set>.json, .images.parquet, .samples.npy and .gallery.npz of each set.",
            metavar="DIR",
            callback=writable_folder,
        ),
    ],
    weights: SubjectWeightsOption = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Evaluation set, e.g. imagenet-512; repeatable; by default all sets.", metavar="SET"
        ),
    ] = None,
    phase: Annotated[int | None, typer.Option(help="Last training phase of the weights.", min=1, max=3)] = None,
    f: CompressionOption = None,
    c: ChannelsOption = None,
    inception: InceptionOption = None,
    path: PathOption = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            help="Folder to which every original and reconstruction is also written as a file, e.g. for `score`.",
            metavar="DIR",
            callback=writable_folder,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Weights and activations of the autoencoder; metrics stay in fp32. By default the profile's.",
            metavar="fp32|bf16|fp16",
        ),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(help="Reconstruct in tiles of this side, in px; by default the profile's, or whole.", min=1),
    ] = None,
    tile_overlap: Annotated[
        int | None, typer.Option(help="Overlap of the tiles in px, where they are blended.", min=0)
    ] = None,
    profile: ProfileOption = "demo",
) -> None:
    """Reconstruct each evaluation set once and record Fréchet distances, PSNR, SSIM and LPIPS.

    Run the same command again after an interruption.
    """
    loaded, asked = of_autoencoder(load_profile(profile), autoencoder), parse_path(path)
    loaded = _computed(loaded, precision, tile_size, tile_overlap)
    sets = find_sets(loaded, labels) if labels else None

    if start_processes(loaded):
        return

    from dcae_bench.subjects.choose import choose_autoencoder

    chosen = choose_autoencoder(loaded, autoencoder, weights, f=f, c=c, sets=sets, phase=phase)

    from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction

    evaluate_reconstruction(
        loaded, chosen, data=data, output=output, sets=sets, inception=inception, path=asked, png=png
    )


def _computed(profile: Profile, precision: str | None, size: int | None, overlap: int | None) -> Profile:
    """The profile with the options' precision and tiles in place of its own. Raises :class:`ConfigError`."""
    changes: dict[str, Any] = {}
    if precision is not None:
        if precision not in get_args(Precision):
            raise ConfigError(f"--precision {precision}: is none of {', '.join(get_args(Precision))}; choose one")
        changes["precision"] = precision
    tiles = profile.evaluation.tiles
    if size is None and overlap is not None and tiles is None:
        raise ConfigError(f"--tile-overlap {overlap}: there are no tiles; give their --tile-size too")
    if size is not None or overlap is not None:
        wanted = {"size": size, "overlap": overlap}
        given = {name: value for name, value in wanted.items() if value is not None}
        try:
            changes["tiles"] = TilesSpec.model_validate((tiles.model_dump() if tiles is not None else {}) | given)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"--tile-size, --tile-overlap: {reason}") from error
    if not changes:
        return profile
    return profile.model_copy(update={"evaluation": profile.evaluation.model_copy(update=changes)})
