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
    """Measure an identity and JPEG at falling quality: rFID must be 0, then every metric must get worse."""
    plan = load_profile(profile)
    item = find_sets(plan, [label] if label else [])[0]

    from dcae_bench.data.images import open_crops
    from dcae_bench.device import choose
    from dcae_bench.evaluation.protocols import protocol_of
    from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
    from dcae_bench.evaluation.sanity import ladder
    from dcae_bench.evaluation.suite import Suite
    from dcae_bench.files import write_text
    from dcae_bench.tables.sanity import findings, page

    crops = open_crops(plan, item, data)
    spec = plan.evaluation
    suite = Suite.load(protocol_of(plan), choose(plan), inception)
    evaluator = ReconstructionEvaluator(
        suite, batch_size=spec.batch_size, tf32=spec.settings.get("tf32") == "on", threads=spec.workers
    )
    rungs = ladder(evaluator, crops, output.parent, Console(stderr=True))
    found = findings(rungs)
    about = f"`{spec.protocol}` on {len(crops):,} crops of {item.label}, profile {plan.name}; means over images."
    write_text(output, page(rungs, found, about))
    if failed := [check for check in found if not check.holds]:
        raise CheckError(f"{output}: {failed[0].claim} does not hold ({failed[0].numbers}); do not trust the numbers")
