"""``dcae-bench prepare``: packs an embedded data set, or lists and checks the files of another."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import ProfileOption
from dcae_bench.config import Profile, load_profile
from dcae_bench.errors import ConfigError


def prepare(
    dataset: Annotated[str, typer.Argument(help="Data set: photos-indoor, imagenet, or a name of data_roots.")],
    output: Annotated[Path, typer.Option(help="Folder that gets the packs or the manifests, with their summaries.")],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a data set of files; by default the profile's data_roots, then $DCAE_BENCH_DATA/NAME. A "
            "name that is not known stands for all images in the folder.",
            metavar="DIR",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split of a data set of files (train, eval, test), repeatable; by default every split it has.",
            metavar="SPLIT",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images; by default one per CPU.", min=1)
    ] = None,
    min_side: Annotated[
        int | None,
        typer.Option(
            help="List images with a shorter side below this (px) as small; by default the profile's resolution.",
            min=1,
        ),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept another number of images than expected.")] = False,
    profile: ProfileOption = "demo",
) -> None:
    """Check a data set and make it ready: packs of the embedded photographs, or manifests of files that stay in place.

    Run the same command again after an interruption: images that were read are not read again.
    """
    from dcae_bench.data.photos import DATASETS

    plan = load_profile(profile)
    console = Console(stderr=True)
    if dataset in DATASETS:
        given = {"--root": root, "--split": split, "--workers": workers, "--min-side": min_side, "--partial": partial}
        for option, value in given.items():
            if value:
                raise ConfigError(f"{option}: data set '{dataset}' comes with the packages; leave the option out")
        _pack(dataset, output, plan, console)
    else:
        _list(dataset, output, plan, console, root, split, workers, min_side, partial)


def _pack(dataset: str, output: Path, plan: Profile, console: Console) -> None:
    from dcae_bench.data.packed import pack
    from dcae_bench.data.photos import load_manifest

    manifest = load_manifest(dataset)
    for split in ("train", "eval"):
        index = pack(manifest, split, plan.pack_short_side, output / f"{split}.npy")
        console.print(f"{dataset} {split}: {len(index.photos)} photographs packed, sha256 {index.sha256[:12]}")


def _list(
    name: str,
    output: Path,
    plan: Profile,
    console: Console,
    root: Path | None,
    splits: list[str] | None,
    workers: int | None,
    min_side: int | None,
    partial: bool,
) -> None:
    from dcae_bench.data.external import external_datasets, find_dataset
    from dcae_bench.data.prepare import prepare_files

    roots = plan.data_roots if root is None else {**plan.data_roots, name: str(root)}
    dataset = find_dataset(name, roots)
    folder = dataset.require_root(roots)
    if name not in plan.data_roots and name not in external_datasets():
        # A misspelt name of a known set would otherwise pass for a folder without an expected count.
        known = ", ".join(external_datasets())
        console.print(f"{name}: none of {known}; taken for a folder, of which every image counts", soft_wrap=True)
    for split in dict.fromkeys(splits or dataset.splits):
        info = prepare_files(
            dataset,
            split,
            folder,
            output,
            min_side=min_side or plan.largest_use(name, split),
            partial=partial,
            workers=workers or _cpus(),
            console=console,
        )
        found = [f"{count:,} {status}" for status, count in info.problems.items()]
        found += [f"{info.left_out:,} other files left out"] if info.left_out else []
        found += [f"expected {info.expected:,}"] if info.partial else []
        console.print(
            f"{name} {split}: {info.count:,} images{''.join(f', {part}' for part in found)}, tree sha256 "
            f"{info.tree_sha256[:12]}",
            soft_wrap=True,
        )


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
