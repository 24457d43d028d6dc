"""Files of the throughput table: Markdown, and ``.csv`` and ``.json`` twins with every number of a row."""

from pathlib import Path
from typing import Any

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.tables.files import write_table
from dcae_bench.tables.reported.throughput import ReportedSpeed
from dcae_bench.tables.throughput.page import markdown
from dcae_bench.tables.throughput.table import ThroughputRow, ThroughputTable

CODE = "code_sha256"
"""Key of the fingerprint that the rows were compared with, in a table's JSON."""


def write(table: ThroughputTable, path: Path) -> None:
    """Write Markdown with a ``.csv`` and a ``.json`` twin, each atomically.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    lines, left_out = ([_csv_line(table, row) for row in rows] for rows in (table.rows, table.left_out))
    content: dict[str, Any] = {"rows": lines, "left_out": left_out, "sources": table.sources, CODE: table.code}
    if table.held < table.planned:
        content |= {"timings": table.held, "planned": table.planned}
    write_table(path, page=markdown(table), lines=lines, content=content)


def _csv_line(table: ThroughputTable, row: ThroughputRow) -> dict[str, Any]:
    """All numbers of a row in one flat mapping; null for what was not measured."""
    record, found, gpu = row.record, row.record.derived, row.record.environment.gpu
    model, theirs = record.model, row.reported_value
    facts = {
        "protocol": record.protocol,
        "device": gpu.name if gpu else record.environment.processor,
        "power_limit_w": gpu.power_limit_w if gpu else None,
        "threads": record.environment.threads,
        **model.model_dump(),
        "work": record.work,
        "mode": record.mode,
        "precision": record.precision,
        "batch": record.batch,
        "share": record.share,
        **_iterations(record),
        "status": record.status,
        "reason": record.reason,
        "restarts": len(record.restarts),
        "code_sha256": record.provenance.code_sha256,
        "of_other_code": table.is_of_other_code(row) if table.code else None,
    }
    for name in ("images_per_s", "iteration_ms", "energy_per_image_j"):
        facts |= _estimate_cells(name, getattr(found, name) if found else None)
    facts |= _estimate_cells("speed_up", row.speed_up)
    judged = row.judgement
    return facts | {
        "energy_reason": found.energy_reason if found else None,
        "peak_gib": found.peak_gib if found else None,
        "ceiling_tflops": found.ceiling_tflops.value if found and found.ceiling_tflops else None,
        "mfu": found.mfu if found else None,
        "mac_ratio": row.mac_ratio,
        "sampled_images_per_s": row.sampled_per_s,
        "reported_images_per_s": theirs.value if theirs else None,
        "reported_pass_images_per_s": row.reported_pass_per_s,
        "reported_pass_latency_ms": _value(row.reported.forward_latency_ms if row.reported else None),
        "reported_memory_gb": _value(row.reported.memory_gb if row.reported else None),
        "reported_confidence": theirs.confidence if theirs else None,
        "reported_speed_up": row.reported_speed_up,
        "verdict": str(judged.verdict),
        "verdict_reason": judged.reason,
        "state": found.gate.state if found else None,
        "state_reasons": "; ".join(reason.text for reason in found.gate.reasons) if found else None,
    }


def _iterations(record: ThroughputRecord) -> dict[str, str | None]:
    """Iterations of each process to warm up and timed, and timed blocks, separated by blanks; null if none ran."""
    series = [restart.series for restart in record.restarts]
    counts = {
        "warm_up_iterations": [one.warm_up.iterations for one in series],
        "timed_iterations": [one.timed_iterations for one in series],
        "blocks": [len(one.blocks) for one in series],
    }
    return {name: " ".join(map(str, found)) or None for name, found in counts.items()}


def _value(speed: ReportedSpeed | None) -> float | None:
    return speed.value if speed else None


def _estimate_cells(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """CSV cells of an estimate: its value, and both ends of its interval."""
    parts = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
