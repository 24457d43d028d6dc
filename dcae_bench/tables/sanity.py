"""What must hold of the evaluator's own measurements, and the page that shows them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dcae_bench.tables.markdown import grid

ZERO = 1e-6
"""What counts as 0 for an identity in float64, relative to the score of the last rung."""

SAME = 1e-4
"""Relative difference that float32's rounding may make in other batches or another order."""

Ladder = Mapping[str, Mapping[str, float]]
"""Scores by name of each rung, the identity first, then ever stronger compression."""


@dataclass(frozen=True)
class Finding:
    """One check: what must hold, whether it does, and the numbers."""

    claim: str
    holds: bool
    numbers: str


def findings(ladder: Ladder) -> list[Finding]:
    """Check the perfect scores of the identity, then that every score gets worse from rung to rung."""
    identity, *_, last = ladder.values()
    found = []
    for key, value in identity.items():
        if key == "psnr":
            found.append(Finding("psnr of the identity is infinite", value == math.inf, f"{value:g}"))
        elif key.startswith("ssim"):
            found.append(Finding(f"{key} of the identity is 1", abs(value - 1) <= ZERO, f"{value:.9f}"))
        else:
            zero = abs(value) <= ZERO * abs(last[key])
            found.append(Finding(f"{key} of the identity is 0", zero, f"{value:.3g}, and {last[key]:.3g} at the end"))
    for key in identity:
        series = [scores[key] for scores in ladder.values()]
        falls = key == "psnr" or key.startswith("ssim")
        ordered = all(a > b if falls else a < b for a, b in pairwise(series))
        claim = f"{key} {'falls' if falls else 'rises'} with every rung"
        found.append(Finding(claim, ordered, ", ".join(f"{value:.4g}" for value in series)))
    return found


def differences(variants: Ladder) -> dict[str, dict[str, float]]:
    """Relative differences of every variant's scores from those of the first."""
    first, *_ = variants.values()
    return {
        name: {key: abs(value - first[key]) / max(abs(first[key]), 1e-12) for key, value in scores.items()}
        for name, scores in variants.items()
    }


def steady(variants: Ladder) -> list[Finding]:
    """Check that batches, threads, order and processes change no score by more than rounding."""
    first, *others = [(name, max(apart.values())) for name, apart in differences(variants).items()]
    return [
        Finding(f"the scores of {name} are those of {first[0]}", apart <= SAME, f"apart by {apart:.1e}")
        for name, apart in others
    ]


def page(ladder: Ladder, variants: Ladder, checks: Sequence[Finding], about: str) -> str:
    """Markdown: the ladder, the variants' relative differences, then every check with its numbers.

    ``about`` says what was measured, and how.
    """
    keys = list(next(iter(ladder.values())))
    rows = [[name, *(f"{scores[key]:.5g}" for key in keys)] for name, scores in ladder.items()]
    scores = grid(["reconstruction", *keys], rows, ["left", *["right"] * len(keys)])
    cells = [[check.claim, "yes" if check.holds else "**no**", check.numbers] for check in checks]
    shown = grid(["check", "holds", "numbers"], cells, ["left", "left", "left"])
    rows = [[name, *(f"{x:.1e}" for x in apart.values())] for name, apart in differences(variants).items()]
    invariant = grid(["relative difference", *keys], rows, ["left", *["right"] * len(keys)])
    return "\n".join([f"# The evaluator checked\n\n{about}\n", scores, invariant, shown])
