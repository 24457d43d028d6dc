"""``dcae-bench score``: measures images that exist already, without an autoencoder."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.options import InceptionOption, ProfileOption, choice, writable_file
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.launch import start_processes
from dcae_bench.specs.protocols import EXTRACTORS


def score(
    images: Annotated[
        Path,
        typer.Argument(help="Images to score: a folder, a .zip, .tar, .parquet, .npz or .npy file.", metavar="IMAGES"),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Record (JSON) to write; with --originals, <name>.images.parquet is written beside it.",
            metavar="FILE",
            callback=writable_file,
        ),
    ],
    originals: Annotated[
        Path | None,
        typer.Option(
            help="The original of each image, by equal names: rFID or rFD, PSNR, SSIM, LPIPS.", metavar="IMAGES"
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Images or statistics (.npz) to compare with as a whole: gFID or gFD, KID, IS, precision, recall.",
            metavar="IMAGES|NPZ",
        ),
    ] = None,
    pair_by: Annotated[
        str | None,
        typer.Option(
            help="What an image and its original share: the path without its suffix (the default), the file's name "
            "alone, or the place in the order of names.",
            metavar="path|name|order",
        ),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Score the images that have an original, and leave out the others.")
    ] = False,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side in px of the square that is cut out of the middle of each image, as ADM does; by default the "
            "images must be squares of one size.",
            min=1,
        ),
    ] = None,
    upscale: Annotated[
        bool, typer.Option("--upscale", help="Enlarge images that are smaller than --resolution.")
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of the folders: you vouch for them.")
    ] = False,
    statistics_of: Annotated[
        str | None,
        typer.Option(
            help="Network of the statistics in --reference; by default that of ADM, if ADM's file.", metavar="NAME"
        ),
    ] = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Score images that exist: each against its original, or all against a reference, by the profile's protocol.

    Run the same command again after an interruption.
    """
    loaded = load_profile(profile)
    from dcae_bench.data.pairs import PairBy

    if (originals is None) == (reference is None):
        state = "are both given" if originals else "are both missing"
        raise ConfigError(
            f"--originals and --reference {state}; name the originals of the images, or a reference for all of them"
        )
    by: PairBy | None = choice("--pair-by", "way", pair_by, get_args(PairBy))
    for option, given in (("--pair-by", by is not None), ("--common", common)):
        if given and originals is None:
            raise ConfigError(f"{option}: images have partners only among --originals; leave the option out")
    if upscale and resolution is None:
        raise ConfigError("--upscale: nothing is enlarged without --resolution; add it or leave the option out")
    if statistics_of is not None and reference is None:
        raise ConfigError(f"--statistics-of {statistics_of}: belongs to --reference; leave the option out")
    if statistics_of is not None and statistics_of not in EXTRACTORS:
        raise ConfigError(
            f"--statistics-of {statistics_of}: there is no such network; choose one of {', '.join(EXTRACTORS)}"
        )
    if start_processes(loaded):
        return

    from dcae_bench.data.set_crops import Size
    from dcae_bench.evaluation.score_run import score_pairs, score_samples

    size = Size(resolution, upscale)
    if originals is not None:
        score_pairs(
            loaded,
            images,
            originals,
            output=output,
            by=by or "path",
            common=common,
            size=size,
            follow_links=follow_links,
            inception=inception,
        )
    elif reference is not None:
        score_samples(
            loaded,
            images,
            reference,
            output=output,
            statistics_of=statistics_of,
            size=size,
            follow_links=follow_links,
            inception=inception,
        )
