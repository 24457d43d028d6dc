"""``dcae-bench table-ablation``: writes the table and the figure of ablations from records."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.terminal import printable
from dcae_bench.cli.options import OtherOption, ProfileOption, writable_file
from dcae_bench.profile.profile import load_profile


def table_ablation(
    output: Annotated[
        Path,
        typer.Option(
            help="Markdown file; .csv and .json are written beside it.", metavar="FILE", callback=writable_file
        ),
    ],
    records: Annotated[
        list[Path] | None, typer.Argument(help="Reconstruction and training records of the ablations (JSON).")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="PNG file for the figure; by default none.", callback=writable_file)
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of another profile's results; its records also stand beside the paper's values.", metavar="DIR"
        ),
    ] = None,
    profile: ProfileOption = "demo",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the prepared data sets; by default results/<profile>/data.", metavar="DIR"),
    ] = None,
    other_configurations: OtherOption = False,
) -> None:
    """Write the table of ablations (the paper's Figure 3): what each idea, each phase and the GAN add.

    An effect is judged by its interval over seeds. A record that is not what its profile asks for now is named and left
    out.
    """
    from dcae_bench.planning.availability import missing_sets
    from dcae_bench.planning.meaning import expected_ablations
    from dcae_bench.profile.ablated import required_ablations
    from dcae_bench.records.places import Places
    from dcae_bench.tables.ablation.build import build
    from dcae_bench.tables.ablation.figure import ablation_figure
    from dcae_bench.tables.ablation.files import write
    from dcae_bench.tables.gather import gather
    from dcae_bench.tables.reported.ablation import load_reported_ablations
    from dcae_bench.tables.summary import summary

    loaded = load_profile(profile)
    wanted = required_ablations(loaded).sets
    prepared = data or Path(Places.of(loaded.name).data)
    found = gather(
        loaded,
        prepared,
        records=records or [],
        beside=[path for folder in beside or [] for path in Places(str(folder)).find_ablations()],
        kinds=("reconstruction", "training"),
        expected=expected_ablations(loaded),
        others=other_configurations,
    )
    built = build(
        loaded.name,
        found.records,
        load_reported_ablations(),
        lambda row, source: (loaded.paper_rows_not_run,),
        beside=found.beside,
        not_measured={label: why for label, why in missing_sets(loaded, prepared).items() if label in wanted},
        holdings=found.holdings,
    )
    write(built, output)
    if figure is not None:
        ablation_figure(built, figure)
    for complaint in found.complaints():
        typer.echo(f"dcae-bench: {printable(complaint)}", err=True)
    typer.echo("\n".join(summary(output)))
