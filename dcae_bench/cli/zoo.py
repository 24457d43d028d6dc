"""``dcae-bench zoo``: lists the autoencoders or denoisers of the catalogue with their size, cost and origin."""

import json
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from dcae_bench.base.terminal import Console
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.catalogue.entries import Elsewhere
from dcae_bench.cli.options import wide_console
from dcae_bench.specs.denoisers import LatentSpace

RESOLUTIONS = (256, 512, 1024)
# Latent spaces for which denoisers are listed: architecture of the autoencoder, patch size.
SPACES = {
    "f8p2": ("sd-vae-f8c4", 2),
    "f32p1": ("dc-ae-f32c32", 1),
    "f64p1": ("dc-ae-f64c128", 1),
    "f128p1": ("dc-ae-f128c512", 1),
}
LATENT_RESOLUTION = 512
CLASSES = 1000


def zoo(
    denoisers: Annotated[bool, typer.Option("--denoisers", help="List denoisers instead of autoencoders.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every digit instead of a table.")] = False,
) -> None:
    """List every autoencoder: family, f, c, parameters, GMACs to encode and decode, latent, weights and licence.

    GMACs are 1e9 multiply-accumulates of convolutions and matrix products for one image. With --denoisers: trainable
    parameters, GMACs of one conditional pass, and tokens, on four latent spaces of 512 px images. What the authors'
    registries have beyond that is listed with the reason that it is not expressible here.
    """
    if denoisers:
        list_, render_ = list_denoisers, render_denoisers
    else:
        list_, render_ = list_autoencoders, render
    rows = list_()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        console = wide_console()
        for table in render_(rows):
            console.print(table)


def list_autoencoders() -> list[dict[str, Any]]:
    """List one row per autoencoder. The cost of each architecture is counted once."""
    from dcae_bench.models.cost import autoencoder_cost

    known = catalogue()
    used = dict.fromkeys(preset.architecture for preset in known.autoencoders.values())
    console = Console(stderr=True)
    costs = {
        name: autoencoder_cost(known.architectures[name], RESOLUTIONS)
        for name in track(used, "Counting", console=console, transient=True, disable=not console.is_terminal)
    }
    rows = []
    for name, preset in known.autoencoders.items():
        spec, counted = known.architectures[preset.architecture], costs[preset.architecture]
        weights, scaling = preset.weights, preset.scaling
        rows.append(
            {
                "name": name,
                "family": spec.family,
                "f": spec.compression,
                "c": spec.latent_channels,
                "parameters": counted.parameters,
                "passes": {
                    side: {
                        "latent": list(once.latent),
                        "encode_gmacs": once.encode_gmacs,
                        "decode_gmacs": once.decode_gmacs,
                    }
                    for side, once in counted.passes.items()
                },
                "scaling_factor": scaling.factor if scaling else None,
                "shift": scaling.shift if scaling else None,
                "weights": weights.source if weights else None,
                "revision": weights.revision if weights else None,
                "licence": weights.licence if weights else None,
                "notes": preset.notes,
                "elsewhere": None,
            }
        )
    return rows + _list_elsewhere(known.elsewhere)


def render(rows: list[dict[str, Any]]) -> tuple[Table, Table, Table]:
    """Lay out the rows of autoencoders as three tables: size and cost; latent and origin; what is elsewhere."""
    rows, elsewhere = _apart(rows)
    costs = Table(title="Size, and GMACs per image to encode / decode")
    costs.add_column("autoencoder")
    for heading in ("f", "c", "parameters", *(f"{side} px" for side in RESOLUTIONS)):
        costs.add_column(heading, justify="right")
    origins = Table(title="Latent at 512 px, weights and licence")
    for heading in ("autoencoder", "family", "latent", "weights", "licence"):
        origins.add_column(heading, overflow="fold")
    for row in rows:
        passes = row["passes"]
        costs.add_row(
            row["name"],
            str(row["f"]),
            str(row["c"]),
            f"{row['parameters']:,}",
            *(f"{passes[side]['encode_gmacs']:.3f} / {passes[side]['decode_gmacs']:.3f}" for side in RESOLUTIONS),
        )
        latent = "x".join(map(str, passes[512]["latent"]))
        origins.add_row(row["name"], row["family"], latent, row["weights"] or "retrained", row["licence"] or "")
    return costs, origins, elsewhere


def list_denoisers() -> list[dict[str, Any]]:
    """List one row per size of denoiser, with its cost on each latent space and its released weights."""
    from dcae_bench.models.cost import denoiser_cost

    known = denoiser_catalogue()
    console = Console(stderr=True)
    rows = []
    for name, size in track(
        known.architectures.items(), "Counting", console=console, transient=True, disable=not console.is_terminal
    ):
        spaces = {}
        for space, (autoencoder, patch) in SPACES.items():
            latent = LatentSpace.of(catalogue().spec(autoencoder), LATENT_RESOLUTION, patch)
            counted = denoiser_cost(size.on(latent, CLASSES))
            spaces[space] = {
                "tokens": counted.tokens,
                "parameters": counted.parameters,
                "gmacs": counted.gmacs,
                "torchprofile_gmacs": counted.torchprofile_gmacs,
            }
        released = [preset.weights.source for preset in known.denoisers.values() if preset.architecture == name]
        rows.append({"name": name, **size.model_dump(), "spaces": spaces, "released": released, "elsewhere": None})
    return rows + _list_elsewhere(known.elsewhere)


def render_denoisers(rows: list[dict[str, Any]]) -> tuple[Table, Table, Table]:
    """Lay out the rows of denoisers as three tables: size and cost; released weights; what is elsewhere."""
    rows, elsewhere = _apart(rows)
    costs = Table(title=f"Million parameters / GMACs per pass, at {LATENT_RESOLUTION} px and {CLASSES} classes")
    costs.add_column("denoiser")
    for heading in ("width", "depth", "heads"):
        costs.add_column(heading, justify="right")
    for space, counted in rows[0]["spaces"].items() if rows else ():
        costs.add_column(f"{space} ({counted['tokens']} tokens)", justify="right")
    origins = Table(title="Released weights")
    for heading in ("denoiser", "weights"):
        origins.add_column(heading, overflow="fold")
    for row in rows:
        cells = [f"{one['parameters'] / 1e6:.2f} / {one['gmacs']:.4f}" for one in row["spaces"].values()]
        costs.add_row(row["name"], *(str(row[key]) for key in ("width", "depth", "heads")), *cells)
        for source in row["released"]:
            origins.add_row(row["name"], source)
    return costs, origins, elsewhere


def _list_elsewhere(entries: tuple[Elsewhere, ...]) -> list[dict[str, Any]]:
    """List one row per model of the authors' registries that is not expressible here: its name and why."""
    return [
        {"name": name, "elsewhere": {"reason": entry.reason, "instead": entry.instead}}
        for entry in entries
        for name in entry.names
    ]


def _apart(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Table]:
    """Take the models that are elsewhere out of the rows, and lay them out as a table of their own."""
    table = Table(title="In the authors' registries, and not expressible here")
    for heading in ("model", "reason", "instead"):
        table.add_column(heading, overflow="fold", ratio=None if heading == "model" else 1)
    for row in rows:
        if row["elsewhere"]:
            table.add_row(row["name"], row["elsewhere"]["reason"], row["elsewhere"]["instead"] or "")
    return [row for row in rows if not row["elsewhere"]], table
