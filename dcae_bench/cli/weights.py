"""``dcae-bench weights``: lists, fetches and verifies released weights of both catalogues and the Inception network."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
from rich.table import Table

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.base.terminal import Console, Progress
from dcae_bench.catalogue.autoencoders import CATALOGUE as AUTOENCODERS
from dcae_bench.catalogue.denoisers import CATALOGUE as DENOISERS
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.cli.options import wide_console
from dcae_bench.extractors import inception_weights as inception
from dcae_bench.profile.profile import load_profile
from dcae_bench.subjects.own import fetch_own
from dcae_bench.weights import released as store

INCEPTION = "inception"

app = typer.Typer(help="Released weights and FID's Inception network: list, fetch, verify.", no_args_is_help=True)
Revision = Annotated[
    str | None,
    typer.Option(help="Commit, branch or tag of the hub's repository, instead of the catalogue's pin.", metavar="REV"),
]


@app.command("list")
def list_weights() -> None:
    """List the released weights, their pins and their files on this machine."""
    table = Table()
    for heading in ("name", "weights", "revision", "licence", "here"):
        table.add_column(heading, overflow="fold")
    denoisers = denoiser_catalogue().denoisers
    for name, source in store.released_weights().items():
        if name == next(iter(denoisers)):
            table.add_section()
        receipt = store.receipt(name)
        revision = source.revision or ("recorded by fetch" if source.repo else "")
        table.add_row(name, source.source, revision, source.licence, str(receipt.path) if receipt else "")
    table.add_section()
    here = inception.cached_file()
    table.add_row(
        INCEPTION, "FID's network", f"SHA-256 {inception.SHA256_PREFIX}…", inception.LICENCE, str(here) if here else ""
    )
    wide_console().print(table)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name in `weights list`, or own autoencoder of --profile.")],
    revision: Revision = None,
    path: Annotated[
        Path | None, typer.Option(help="File on this machine to use instead of a download.", metavar="FILE")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Profile, by name or path, that has the own autoencoder NAME.", metavar="NAME|FILE"),
    ] = None,
) -> None:
    """Fetch released weights, check their hash and that they fit their model, and record commit and hash.

    The hash must be the hub's and the recorded one.

    With --profile, fetch the files of an own autoencoder of the profile from the hub into the hub's cache.
    """
    console = Console(stderr=True)
    if profile is not None:
        if revision is not None or path is not None:
            raise ConfigError("--profile: the profile states revision and file; leave --revision and --path out")
        for file in fetch_own(load_profile(profile), name):
            console.print(f"{name}: {file} ({file.stat().st_size:,} bytes)", soft_wrap=True)
        return
    if name == INCEPTION:
        if revision is not None:
            raise WeightsError(f"--revision {revision}: {INCEPTION} is one file without revisions; leave it out")
        _show_inception(_fetch_inception(console, path), console)
        return

    from dcae_bench.subjects.released import check_released

    local = store.fetch(name, revision=revision, path=path, check=lambda file: check_released(name, file))
    console.print(f"{name}: {local.path} ({local.size:,} bytes)", soft_wrap=True)
    if local.recorded:
        console.print(f"{name}: SHA-256 {local.sha256} as recorded", soft_wrap=True)
    else:
        commit = f"revision: {local.commit}, " if local.commit else ""
        catalogue = (DENOISERS if name in denoiser_catalogue().denoisers else AUTOENCODERS).name
        console.print(
            f"{name}: first record on this machine; for baselines/{catalogue}: {commit}sha256: {local.sha256}",
            soft_wrap=True,
        )


@app.command()
def extract(
    file: Annotated[Path, typer.Argument(help="Weights file, or the index of several.", metavar="FILE")],
    part: Annotated[
        str, typer.Option(help="Where the tensors lie, as errors name it: ema, or state_dict/model.", metavar="PART")
    ],
    output: Annotated[Path, typer.Option(help="Safetensors file to write.", metavar="FILE")],
) -> None:
    """Write one part of a checkpoint as safetensors: one of several sets of weights, or tensors without their prefix.

    No code in the file is run. The names and values of the tensors stay as they are, but for the prefix.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: is no safetensors file; end its name with .safetensors")

    from dcae_bench.models.checkpoints import save_weights
    from dcae_bench.models.weight_files import read_part

    tensors = read_part(file, part)
    sha256 = save_weights(tensors, output)
    Console(stderr=True).print(f"{output}: {len(tensors):,} tensors, SHA-256 {sha256}", soft_wrap=True)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names in `weights list`; by default all fetched weights.")
    ] = None,
) -> None:
    """Hash fetched weights again, compare with the recorded hashes, and check that they fit their models."""
    chosen = names or [name for name in store.released_weights() if store.receipt(name)]
    if not names and inception.cached_file():
        chosen.append(INCEPTION)
    console = Console(stderr=True)
    if not chosen:
        console.print("nothing was fetched yet; `dcae-bench weights list` shows what there is")
    for name in chosen:
        if name == INCEPTION:
            _show_inception(inception.inception_weights(), console)
            continue

        from dcae_bench.subjects.released import check_released

        local = store.verify(name)
        check_released(name, local.path)
        console.print(f"{name}: {local.path} SHA-256 {local.sha256} as recorded", soft_wrap=True)


def _fetch_inception(console: Console, path: Path | None) -> Path:
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(INCEPTION, total=None)
        return inception.fetch_inception(
            path, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )


def _show_inception(path: Path, console: Console) -> None:
    console.print(f"{INCEPTION}: {path} SHA-256 {sha256_file(path)}, beginning as its publishers say", soft_wrap=True)
