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
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Check the evaluator on your data: identity, JPEG at falling quality, other batches, threads and order."""
    plan = load_profile(profile)
    item = find_sets(plan, [label] if label else [])[0]

    from dcae_bench.data.images import open_crops
    from dcae_bench.device import choose, describe
    from dcae_bench.evaluation.protocols import protocol_of
    from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
    from dcae_bench.evaluation.sanity import invariance, ladder
    from dcae_bench.evaluation.suite import Suite
    from dcae_bench.files import write_text
    from dcae_bench.provenance import git_state
    from dcae_bench.tables.sanity import findings, page, steady

    crops = open_crops(plan, item, data)
    spec = plan.evaluation
    device = choose(plan)
    suite = Suite.load(protocol_of(plan), device, inception)
    evaluator = ReconstructionEvaluator(
        suite, batch_size=spec.batch_size, tf32=spec.settings.get("tf32") == "on", threads=spec.workers
    )
    console = Console(stderr=True)
    rungs = ladder(evaluator, crops, output.parent, console)
    variants = invariance(evaluator, crops, output.parent, console)
    found = [*findings(rungs), *steady(variants)]
    commit, dirty = git_state()
    about = (
        f"`{spec.protocol}` on {len(crops):,} crops of {item.label}, profile {plan.name}; means over images. Commit "
        f"{(commit or 'none')[:12]}{' with uncommitted changes' if dirty else ''}, {describe(device, plan).name}."
    )
    write_text(output, page(rungs, variants, found, about))
    if failed := [check for check in found if not check.holds]:
        raise CheckError(f"{output}: {failed[0].claim} does not hold ({failed[0].numbers}); do not trust the numbers")
