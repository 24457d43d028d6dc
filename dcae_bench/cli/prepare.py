"""``dcae-bench prepare``: packs a data set's photographs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import ProfileOption
from dcae_bench.config import load_profile


def prepare(
    dataset: Annotated[str, typer.Argument(help="Data set, e.g. photos-indoor.")],
    output: Annotated[Path, typer.Option(help="Folder that gets train.npy and eval.npy with their indices.")],
    profile: ProfileOption = "demo",
) -> None:
    """Check a data set's photographs against their manifest and pack each split into one memory-mapped file."""
    from dcae_bench.data.external import external_datasets
    from dcae_bench.data.packed import pack
    from dcae_bench.data.photos import load_manifest

    plan = load_profile(profile)
    if dataset in external_datasets():
        raise external_datasets()[dataset].cannot_be_prepared(plan.data_roots)
    manifest = load_manifest(dataset)
    console = Console(stderr=True)
    for split in ("train", "eval"):
        index = pack(manifest, split, plan.pack_short_side, output / f"{split}.npy")
        console.print(f"{dataset} {split}: {len(index.photos)} photographs packed, sha256 {index.sha256[:12]}")
