"""``dcae-bench sanity``: checks the evaluator on your data, with the identity and JPEG in place of an autoencoder."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import CheckError
from dcae_bench.base.terminal import Console
from dcae_bench.cli.options import DataOption, InceptionOption, ProfileOption, find_sets, writable_file
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.gpus import take_gpus


def sanity(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Markdown page to write.", metavar="FILE", callback=writable_file)],
    label: Annotated[str | None, typer.Option("--set", help="Evaluation set; by default the profile's first.")] = None,
    images: Annotated[
        int | None, typer.Option(help="Number of first images of the set to use; by default all.", min=2)
    ] = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Check the evaluator on your data: identity, JPEG at falling quality, other batches, threads, order, processes."""
    loaded = load_profile(profile)
    item = find_sets(loaded, [label] if label else [])[0]
    take_gpus(loaded, 1)

    from dcae_bench.base.files import write_text
    from dcae_bench.evaluation.sanity import CheckedSet, measure_in_processes, measure_invariance, measure_ladder
    from dcae_bench.records.provenance import git_state
    from dcae_bench.running.device import describe
    from dcae_bench.running.output_lock import sole_writer
    from dcae_bench.running.processes import Worker
    from dcae_bench.tables.sanity import check_ladder, check_variants, page

    checked = CheckedSet(loaded, item, data, images, inception)
    crops = checked.crops()
    evaluator = checked.evaluator(Worker())
    console = Console(stderr=True)
    # The passes keep their states in the folder of the page.
    with sole_writer(output.parent / ".sanity"):
        rungs = measure_ladder(evaluator, crops, output.parent, console)
        variants = measure_invariance(evaluator, crops, output.parent, console)
        variants |= measure_in_processes(checked, output.parent, console)
    found = [*check_ladder(rungs), *check_variants(variants)]
    commit, dirty = git_state()
    part = "the first " if images is not None and images <= len(crops) else ""
    about = (
        f"`{loaded.evaluation.protocol}` on {part}{len(crops):,} crops of {item.label}, profile {loaded.name}; means "
        f"over images. Commit {(commit or 'none')[:12]}{' with uncommitted changes' if dirty else ''}, "
        f"{describe(evaluator.suite.device, loaded).name}."
    )
    write_text(output, page(rungs, variants, found, about))
    if failed := [check for check in found if not check.holds]:
        raise CheckError(f"{output}: {failed[0].claim} does not hold ({failed[0].numbers}); do not trust the numbers")
