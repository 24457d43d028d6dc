"""``dcae-bench zoo``: every autoencoder of the catalogue with its size, cost and origin."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dcae_bench.cli.options import wide_console
from dcae_bench.presets import catalogue

RESOLUTIONS = (256, 512, 1024)


def zoo(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every digit instead of a table.")] = False,
) -> None:
    """List every autoencoder: family, f, c, parameters, GMACs to encode and decode, latent, weights and licence.

    GMACs are 1e9 multiply-accumulates of convolutions and matrix products for one image.
    """
    rows = list_autoencoders()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        console = wide_console()
        for table in render(rows):
            console.print(table)


def list_autoencoders() -> list[dict[str, Any]]:
    """One row per autoencoder; the cost of an architecture is counted once."""
    from dcae_bench.models.cost import cost

    known = catalogue()
    used = dict.fromkeys(preset.architecture for preset in known.autoencoders.values())
    console = Console(stderr=True)
    costs = {
        name: cost(known.architectures[name], RESOLUTIONS)
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
            }
        )
    return rows


def render(rows: list[dict[str, Any]]) -> tuple[Table, Table]:
    """The rows as two tables for the terminal: what they cost, and where they come from."""
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
    return costs, origins
