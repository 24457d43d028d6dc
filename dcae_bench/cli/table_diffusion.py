"""``dcae-bench table-diffusion``: writes the generation table from records."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.terminal import printable
from dcae_bench.cli.options import OtherOption, ProfileOption, writable_file
from dcae_bench.profile.profile import load_profile


def table_diffusion(
    output: Annotated[
        Path,
        typer.Option(
            help="Markdown file; .csv and .json are written beside it.", metavar="FILE", callback=writable_file
        ),
    ],
    records: Annotated[
        list[Path] | None, typer.Argument(help="Generation records and denoisers' training records (JSON).")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of another profile's results; its records also stand beside the paper's rows.", metavar="DIR"
        ),
    ] = None,
    profile: ProfileOption = "demo",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the prepared data sets; by default results/<profile>/data.", metavar="DIR"),
    ] = None,
    other_configurations: OtherOption = False,
) -> None:
    """Write the generation table (the paper's Tables 3 and 1): what was run, then what the paper reports.

    A row that was not run gives the reason: the profile leaves it out, or a data set or weights are missing. The table
    says how to get what is missing. A record that is not what its profile asks for now is named and left out.
    """
    from dcae_bench.planning.availability import missing_rows
    from dcae_bench.planning.meaning import expected_generations
    from dcae_bench.records.places import Places
    from dcae_bench.tables.absence import GenerationAbsence
    from dcae_bench.tables.gather import gather
    from dcae_bench.tables.generation.build import build
    from dcae_bench.tables.generation.files import write
    from dcae_bench.tables.reported.generation import load_reported_generation
    from dcae_bench.tables.summary import summary

    loaded = load_profile(profile)
    prepared = data or Path(Places.of(loaded.name).data)
    absence = GenerationAbsence(loaded, missing_rows(loaded, prepared))
    found = gather(
        loaded,
        prepared,
        records=records or [],
        beside=[path for folder in beside or [] for path in Places(str(folder)).find_generations()],
        kinds=("generation", "diffusion_training"),
        expected=expected_generations(loaded),
        others=other_configurations,
    )
    built = build(
        loaded.name,
        found.records,
        load_reported_generation(),
        absence.reasons,
        beside=found.beside,
        not_measured=absence.missing,
        holdings=found.holdings,
    )
    write(built, output)
    for complaint in found.complaints():
        typer.echo(f"dcae-bench: {printable(complaint)}", err=True)
    typer.echo("\n".join(summary(output)))
