"""``dcae-bench sanity``: checks the evaluator on an identity and a ladder of JPEG qualities."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import DataOption, InceptionOption, ProfileOption, find_sets
from dcae_bench.config import load_profile
from dcae_bench.errors import CheckError


def sanity(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Markdown page that is written.", metavar="FILE")],
    label: Annotated[str | None, typer.Option("--set", help="Evaluation set; by default the first.")] = None,
    images: Annotated[
        int | None, typer.Option(help="Check on the first images of the set; by default on all.", min=2)
    ] = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Check the evaluator on your data: identity, JPEG at falling quality, other batches, threads, order, processes."""
    plan = load_profile(profile)
    item = find_sets(plan, [label] if label else [])[0]

    from dcae_bench.device import describe
    from dcae_bench.evaluation.sanity import Checked, in_processes, invariance, ladder
    from dcae_bench.evaluation.workers import Process
    from dcae_bench.files import write_text
    from dcae_bench.provenance import git_state
    from dcae_bench.tables.sanity import findings, page, steady

    checked = Checked(plan, item, data, images, inception)
    crops = checked.crops()
    evaluator = checked.evaluator(Process())
    console = Console(stderr=True)
    rungs = ladder(evaluator, crops, output.parent, console)
    variants = invariance(evaluator, crops, output.parent, console)
    variants |= in_processes(checked, output.parent, console)
    found = [*findings(rungs), *steady(variants)]
    commit, dirty = git_state()
    part = "the first " if images is not None and images <= len(crops) else ""
    about = (
        f"`{plan.evaluation.protocol}` on {part}{len(crops):,} crops of {item.label}, profile {plan.name}; means over "
        f"images. Commit {(commit or 'none')[:12]}{' with uncommitted changes' if dirty else ''}, "
        f"{describe(evaluator.suite.device, plan).name}."
    )
    write_text(output, page(rungs, variants, found, about))
    if failed := [check for check in found if not check.holds]:
        raise CheckError(f"{output}: {failed[0].claim} does not hold ({failed[0].numbers}); do not trust the numbers")
