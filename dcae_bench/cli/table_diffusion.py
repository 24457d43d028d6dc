"""``dcae-bench table-diffusion``: writes the generation table from records."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import ProfileOption
from dcae_bench.config import load_profile


def table_diffusion(
    output: Annotated[Path, typer.Option(help="Markdown file; .csv and .json are written beside it.", metavar="FILE")],
    records: Annotated[
        list[Path] | None, typer.Argument(help="Records (JSON) of generation and of the denoisers' training.")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of another profile's results, which answer the paper's rows too.", metavar="DIR"),
    ] = None,
    profile: ProfileOption = "demo",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the prepared data sets; by default results/<profile>/data.", metavar="DIR"),
    ] = None,
) -> None:
    """Write the generation table (the paper's Tables 3 and 1): what was run, then what the paper reports.

    A row that was not run says why: what the profile leaves out, or which data set or weights are not here and how to
    get them.
    """
    from dcae_bench.availability import missing_rows
    from dcae_bench.records import find_generation
    from dcae_bench.tables.absence import DenoiserAbsence
    from dcae_bench.tables.diffusion import build
    from dcae_bench.tables.diffusion_files import write
    from dcae_bench.tables.reported_diffusion import load_reported_diffusion
    from dcae_bench.tables.rfid import load_records

    plan = load_profile(profile)
    absence = DenoiserAbsence(plan, missing_rows(plan, data or Path("results") / plan.name / "data"))
    others = load_records(path for folder in beside or [] for path in find_generation(folder))
    made, reported = load_records(records or []), load_reported_diffusion()
    built = build(plan.name, made, reported, absence.reasons, beside=others, not_measured=absence.missing)
    write(built, output)
