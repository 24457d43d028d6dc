"""Page of a plan for the terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dcae_bench.planning.plan import Plan, PlanRow


def render(plan: Plan) -> Group:
    """Lay out a plan for rich: a section per rule, the totals, and all assumptions."""
    table = Table(
        title=f"Estimate for profile {plan.profile}, target {' '.join(plan.targets)}: nothing has been started"
    )
    table.add_column("rule")
    table.add_column("subject")
    for name in ("jobs", "GPU-hours", "CPU-hours", "memory GiB", "disk GiB", "while running GiB", "download GiB"):
        table.add_column(name, justify="right")
    table.add_column("rate")
    before = None
    for row in plan.rows:
        if before not in (None, row.rule):
            table.add_section()
        before = row.rule
        table.add_row(*_cells(row))
    table.add_section()
    cells = _cells(plan.total())
    if any(row.download_gib is None for row in plan.rows):
        cells[-2] += " and more"
    table.add_row(*cells, style="bold")
    notes = (
        [Text("Memory of the trainings", style="bold"), *(Text(f"- {line}") for line in plan.fits)] if plan.fits else []
    )
    return Group(table, *notes, Text("Assumptions", style="bold"), *(Text(f"- {line}") for line in plan.assumptions))


def _cells(row: PlanRow) -> list[str]:
    numbers = (row.gpu_hours, row.cpu_hours, row.memory_gib, row.disk_gib, row.unfinished_gib)
    download = "not known" if row.download_gib is None else _number(row.download_gib)
    return [row.rule, row.subject, str(row.jobs), *map(_number, numbers), download, row.source]


def _number(value: float) -> str:
    if value == 0:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
