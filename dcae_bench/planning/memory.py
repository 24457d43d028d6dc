"""Memory of trainings: with a copy of the weights in each process, with shares of them, and what of it fits a GPU."""

from collections.abc import Sequence
from typing import TypedDict

from dcae_bench.costs.step import StepCost, training_bytes
from dcae_bench.planning.plan import GIB, PlanRow
from dcae_bench.planning.rates import Rates
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.profile.profile import Profile


class MemoryColumns(TypedDict):
    """Memory of a training as fields of a plan's row."""

    memory_gib: float
    plain_gib: float
    sharded_gib: float | None


def training_memory(
    profile: Profile, cost: StepCost, part: int, precision: str, execution: ExecutionSpec
) -> MemoryColumns:
    """Device memory of a training that computes ``part`` images at a time on each device."""
    plain = training_bytes(cost, part, precision, execution) / GIB
    sharded = None
    if profile.world > 1:
        sharded = training_bytes(cost, part, precision, execution, shards=profile.world) / GIB
    chosen = sharded if profile.sharding == "full" and sharded is not None else plain
    return {"memory_gib": chosen, "plain_gib": plain, "sharded_gib": sharded}


def fits(rows: Sequence[PlanRow], rates: Rates) -> tuple[str, ...]:
    """Lines that say which trainings fit the memory of a GPU, with a copy of the weights and with shares of them."""
    plain = {row.subject: row.plain_gib for row in rows if row.plain_gib is not None}
    sharded = {row.subject: row.sharded_gib for row in rows if row.sharded_gib is not None}
    lines = []
    for how, sizes in (("with a copy of the weights in each process", plain), ("with 'sharding: full'", sharded)):
        if not sizes:
            continue
        gb = rates.get("memory", "cuda", "fp32").rate
        room = gb * 1e9 / GIB
        ordered = sorted(sizes, key=lambda subject: sizes[subject], reverse=True)
        large = [subject for subject in ordered if sizes[subject] > room]
        named = ", ".join(f"{subject} ({sizes[subject]:.1f} GiB)" for subject in large or ordered[:1])
        lines.append(
            f"{len(sizes) - len(large)} of {len(sizes)} trainings fit {gb:g} GB ({room:.1f} GiB) {how}; "
            f"{'too large' if large else 'the largest'}: {named}"
        )
    return tuple(lines)
