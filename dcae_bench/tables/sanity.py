"""Checks of the evaluator: properties that its scores must have, and the page that shows each check."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dcae_bench.tables.markdown import grid, harmless

ZERO = 1e-6
"""An identity's score below this part of the last rung's score counts as 0 in float64."""

SAME = 1e-4
"""Largest relative difference that float32 rounding may cause with other batches or another order."""

Ladder = Mapping[str, Mapping[str, float]]
"""Scores by name of each reconstruction (a rung): first the identity, then ever stronger compression."""


@dataclass(frozen=True)
class Check:
    """One check: the claim, whether the claim holds, and the numbers behind the answer."""

    claim: str
    holds: bool
    numbers: str


def check_ladder(ladder: Ladder) -> list[Check]:
    """Check that the identity has perfect scores and that every score gets worse from rung to rung."""
    identity, *_, last = ladder.values()
    found = []
    for key, value in identity.items():
        if key == "psnr":
            found.append(Check("psnr of the identity is infinite", value == math.inf, f"{value:g}"))
        elif key.startswith("ssim"):
            claim = f"{key} of the identity is 1 within {ZERO:g}"
            found.append(Check(claim, abs(value - 1) <= ZERO, f"{value:.9f}"))
        else:
            zero = abs(value) <= ZERO * abs(last[key])
            claim = f"{key} of the identity is 0 within {ZERO:g} of the last rung's"
            found.append(Check(claim, zero, f"{value:.3g}, and {last[key]:.3g} at the end"))
    for key in identity:
        series = [scores[key] for scores in ladder.values()]
        falls = key == "psnr" or key.startswith("ssim")
        ordered = all(a > b if falls else a < b for a, b in pairwise(series))
        claim = f"{key} {'falls' if falls else 'rises'} with every rung"
        found.append(Check(claim, ordered, ", ".join(f"{value:.4g}" for value in series)))
    return found


def relative_differences(variants: Ladder) -> dict[str, dict[str, float]]:
    """Relative difference between each score of a variant and the same score of the first variant."""
    first, *_ = variants.values()
    return {
        name: {key: abs(value - first[key]) / max(abs(first[key]), 1e-12) for key, value in scores.items()}
        for name, scores in variants.items()
    }


def check_variants(variants: Ladder) -> list[Check]:
    """Check that batch size, threads, order and processes change no score by more than rounding."""
    first, *others = [(name, max(apart.values())) for name, apart in relative_differences(variants).items()]
    return [
        Check(f"the scores of {name} are those of {first[0]}", apart <= SAME, f"apart by {apart:.1e}")
        for name, apart in others
    ]


def page(ladder: Ladder, variants: Ladder, checks: Sequence[Check], about: str) -> str:
    """Markdown page: scores of the ladder, relative differences of the variants, every check with its numbers.

    ``about`` says what was measured and how.
    """
    keys = list(next(iter(ladder.values())))
    align = "l" + "r" * len(keys)
    rows = [[name, *(f"{scores[key]:.5g}" for key in keys)] for name, scores in ladder.items()]
    rungs = grid(["reconstruction", *keys], rows, align)
    cells = [[check.claim, "yes" if check.holds else "**no**", check.numbers] for check in checks]
    shown = grid(["check", "holds", "numbers"], cells, "lll")
    rows = [[name, *(f"{x:.1e}" for x in apart.values())] for name, apart in relative_differences(variants).items()]
    invariant = grid(["relative difference", *keys], rows, align)
    return harmless("\n".join([f"# The evaluator checked\n\n{about}\n", rungs, invariant, shown]))
