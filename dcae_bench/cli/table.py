"""``dcae-bench table``: writes a paper-style table from records."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import ProfileOption
from dcae_bench.config import load_profile


def table(
    records: Annotated[list[Path], typer.Argument(help="Reconstruction records (JSON).")],
    output: Annotated[Path, typer.Option(help="Markdown file; .csv and .json are written beside it.", metavar="FILE")],
    profile: ProfileOption = "demo",
) -> None:
    """Write the reconstruction table (the paper's Table 2): what was run, then what the paper reports."""
    from dcae_bench.tables.reported import load_reported
    from dcae_bench.tables.rfid import build, load_records, write

    plan = load_profile(profile)
    write(build(plan.name, load_records(records), load_reported(), plan.paper_rows_not_run), output)
