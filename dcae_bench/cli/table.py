"""``dcae-bench table``: writes a paper-style table from records."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import ProfileOption
from dcae_bench.config import load_profile

Records = Annotated[
    list[Path] | None, typer.Argument(help="Reconstruction records (JSON); none is a table without runs.")
]


def table(
    output: Annotated[Path, typer.Option(help="Markdown file; .csv and .json are written beside it.", metavar="FILE")],
    records: Records = None,
    profile: ProfileOption = "demo",
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of another profile's records, which answer the paper's rows too.", metavar="DIR"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the prepared data sets; by default results/<profile>/data.", metavar="DIR"),
    ] = None,
) -> None:
    """Write the reconstruction table (the paper's Table 2): what was run, then what the paper reports.

    A row that was not run says why: what the profile leaves out, or which data set or weights are not here and how to
    get them.
    """
    from dcae_bench.availability import missing
    from dcae_bench.records import find
    from dcae_bench.tables.absence import Absence
    from dcae_bench.tables.reported import load_reported
    from dcae_bench.tables.rfid import build, load_records, write

    plan = load_profile(profile)
    reported = load_reported(measured={item.dataset for item in plan.evaluation.sets})
    absence = Absence(plan, missing(plan, data or Path("results") / plan.name / "data"))
    others = load_records(path for folder in beside or [] for path in find(folder))
    made = load_records(records or [])
    built = build(plan.name, made, reported, absence.reasons, beside=others, not_measured=absence.elsewhere(reported))
    write(built, output)
