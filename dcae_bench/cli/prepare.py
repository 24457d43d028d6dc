"""``dcae-bench prepare``: packs an embedded data set, or checks and lists the images of a data set of files."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.terminal import Console
from dcae_bench.cli.options import ProfileOption, writable_folder
from dcae_bench.profile.profile import Profile, load_profile


def prepare(
    dataset: Annotated[str, typer.Argument(help="Data set, e.g. photos-indoor or imagenet, or a name in data_roots.")],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for the packs or manifests, with their summaries.", metavar="DIR", callback=writable_folder
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a data set of files, or its container (.zip, .tar, .parquet), or a pattern of containers "
            "('train-*.tar'); by default from the profile's data_roots, else $DCAE_BENCH_DATA/NAME. With an unknown "
            "name, all images there are the data set.",
            metavar="PATH",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split of a data set of files: train, eval or test; repeatable; by default all its splits.",
            metavar="SPLIT",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images; by default one per CPU.", min=1)
    ] = None,
    min_side: Annotated[
        int | None,
        typer.Option(
            help="Report images as small whose shorter side is below this, in px; by default the profile's resolution.",
            min=1,
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept an unexpected number of images, as partial of the profile does.")
    ] = False,
    follow_links: Annotated[
        bool,
        typer.Option(
            "--follow-links",
            help="Follow links that lead out of the folder, as follow_links of the profile does: you vouch for what is "
            "there.",
        ),
    ] = False,
    profile: ProfileOption = "demo",
) -> None:
    """Check a data set and prepare it: pack embedded photographs, or write manifests of files that stay in place.

    Run the same command again after an interruption: images are not read a second time.
    """
    from dcae_bench.data.photos import DATASETS

    loaded = load_profile(profile)
    console = Console(stderr=True)
    if dataset in DATASETS:
        given = {"--root": root, "--split": split, "--workers": workers, "--min-side": min_side, "--partial": partial}
        given["--follow-links"] = follow_links
        for option, value in given.items():
            if value:
                raise ConfigError(f"{option}: data set '{dataset}' comes with the packages; leave the option out")
        _write_packs(dataset, output, loaded, console)
    else:
        partial = partial or loaded.accepts_part(dataset)
        follow_links = follow_links or loaded.follows_links(dataset)
        _write_manifests(dataset, output, loaded, console, root, split, workers, min_side, partial, follow_links)


def _write_packs(dataset: str, output: Path, loaded: Profile, console: Console) -> None:
    from dcae_bench.data.packed import pack
    from dcae_bench.data.photos import load_manifest

    manifest = load_manifest(dataset)
    for split in ("train", "eval"):
        index = pack(manifest, split, loaded.pack_short_side, output / f"{split}.npy")
        console.print(f"{dataset} {split}: {len(index.photos)} photographs packed, sha256 {index.sha256[:12]}")


def _write_manifests(
    name: str,
    output: Path,
    loaded: Profile,
    console: Console,
    root: Path | None,
    splits: list[str] | None,
    workers: int | None,
    min_side: int | None,
    partial: bool,
    follow_links: bool,
) -> None:
    from dcae_bench.data.external import external_datasets, find_dataset
    from dcae_bench.data.layout import FileSplit
    from dcae_bench.data.prepare import prepare_files

    roots = loaded.data_roots if root is None else {**loaded.data_roots, name: str(root)}
    dataset = find_dataset(name, roots)
    folder = dataset.require_root(roots)
    if name not in loaded.data_roots and name not in external_datasets():
        # A misspelt name of a known data set would otherwise silently name a folder without an expected count.
        known = ", ".join(external_datasets())
        console.print(f"{name}: none of {known}; taken for a folder, of which every image counts", soft_wrap=True)
    split_of: dict[str, FileSplit] = {split: split for split in dataset.splits}
    for wanted in dict.fromkeys(splits or split_of):
        dataset.patterns(wanted)  # raises DataError for a split that the data set does not have
        split = split_of[wanted]
        info = prepare_files(
            dataset,
            split,
            folder,
            output,
            min_side=min_side or loaded.largest_resolution(name, split),
            partial=partial,
            follow_links=follow_links,
            workers=workers or _cpus(),
            console=console,
        )
        found = [f"{count:,} {status}" for status, count in info.problems.items()]
        found += [f"{info.left_out:,} other files left out"] if info.left_out else []
        if number := len(info.containers):
            found.append(f"in {number:,} container{'s' if number > 1 else ''}")
        found += [f"expected {info.expected:,}"] if info.partial else []
        console.print(
            f"{name} {split}: {info.count:,} images{''.join(f', {part}' for part in found)}, tree sha256 "
            f"{info.tree_sha256[:12]}",
            soft_wrap=True,
        )


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
