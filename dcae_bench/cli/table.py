"""``dcae-bench table``: writes the reconstruction table from records."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.terminal import printable
from dcae_bench.cli.options import OtherOption, ProfileOption, writable_file
from dcae_bench.profile.profile import load_profile

Records = Annotated[
    list[Path] | None,
    typer.Argument(help="Reconstruction records (JSON); without any, the table holds only the paper's rows."),
]


def table(
    output: Annotated[
        Path,
        typer.Option(
            help="Markdown file; .csv and .json are written beside it.", metavar="FILE", callback=writable_file
        ),
    ],
    records: Records = None,
    profile: ProfileOption = "demo",
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of another profile's results; its records also stand beside the paper's rows.", metavar="DIR"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the prepared data sets; by default results/<profile>/data.", metavar="DIR"),
    ] = None,
    other_configurations: OtherOption = False,
) -> None:
    """Write the reconstruction table (the paper's Table 2): what was run, then what the paper reports.

    A row that was not run gives the reason: the profile leaves it out, or a data set or weights are missing. The table
    says how to get what is missing. A record that is not what its profile asks for now is named and left out.
    """
    from dcae_bench.planning.availability import missing_evaluations
    from dcae_bench.planning.meaning import expected_reconstructions
    from dcae_bench.records.places import Places
    from dcae_bench.tables.absence import ReconstructionAbsence
    from dcae_bench.tables.gather import gather
    from dcae_bench.tables.reconstruction.build import build
    from dcae_bench.tables.reconstruction.files import write
    from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
    from dcae_bench.tables.summary import summary

    loaded = load_profile(profile)
    reported = load_reported_reconstruction(measured={item.dataset for item in loaded.evaluation.sets})
    prepared = data or Path(Places.of(loaded.name).data)
    absence = ReconstructionAbsence(loaded, missing_evaluations(loaded, prepared))
    found = gather(
        loaded,
        prepared,
        records=records or [],
        beside=[path for folder in beside or [] for path in Places(str(folder)).find_reconstructions()],
        kinds=("reconstruction",),
        expected=expected_reconstructions(loaded),
        others=other_configurations,
    )
    built = build(
        loaded.name,
        found.records,
        reported,
        absence.reasons,
        beside=found.beside,
        not_measured=absence.beyond_paper(reported),
        holdings=found.holdings,
    )
    write(built, output)
    for complaint in found.complaints():
        typer.echo(f"dcae-bench: {printable(complaint)}", err=True)
    typer.echo("\n".join(summary(output)))
