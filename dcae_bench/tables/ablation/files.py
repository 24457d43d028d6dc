"""Files of the table of ablations: ``table_ablation.md`` with its ``.csv`` and ``.json`` twins."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dcae_bench.tables.ablation.judge import SeedMean
from dcae_bench.tables.ablation.page import gan_cell, markdown
from dcae_bench.tables.ablation.table import IDEAS, AblationTable, Arm, Effect
from dcae_bench.tables.answers_page import holdings_content
from dcae_bench.tables.files import write_table


def write(table: AblationTable, md_path: Path) -> None:
    """Write the table as Markdown with a ``.csv`` and a ``.json`` twin, each atomically.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    write_table(md_path, page=markdown(table), lines=_csv_lines(table), content=_json_content(table))


def _csv_lines(table: AblationTable) -> Iterator[dict[str, Any]]:
    """One line per number: of every arm, then of every effect, then of the paper."""
    for arm in table.arms:
        for key, head in table.columns.items():
            yield {"part": "arm", **_facts(arm), "metric": key, "label": head.label, **_cells(arm.mean(key))}
    for effect in table.effects:
        for key, head in table.columns.items():
            yield {
                "part": "effect",
                **_facts(effect.with_it),
                "idea": IDEAS[effect.idea],
                "seeds": _seeds(effect.seeds),
                "cost": effect.cost.mean if effect.cost else None,
                "metric": key,
                "label": head.label,
                **_cells(effect.difference(key)),
                "verdict": effect.verdict(key),
                "reason": effect.obstacle,
            }
    for result in table.reported:
        row = result.row
        for answer in result.answers.values():
            for metric, judgement in answer.judgements.items():
                found, value = answer.measured.get(metric), row.metrics[metric]
                yield {
                    "part": "reported",
                    "data_set": row.dataset,
                    "resolution": row.resolution,
                    "compression": row.compression,
                    "idea": f"{row.study}: {row.arm}",
                    "metric": metric,
                    "value": found.value if found else None,
                    "reported": value.value,
                    "confidence": value.confidence,
                    "verdict": judgement.verdict.value,
                    "reason": judgement.reason,
                }


def _facts(arm: Arm) -> dict[str, Any]:
    run = arm.first
    subject, data, variant = run.record.subject, run.record.data, run.variant
    return {
        "data_set": data.name,
        "resolution": data.resolution,
        "compression": subject.compression,
        "autoencoder": variant.of,
        "parameters": subject.parameters,
        "shortcuts": variant.shortcuts,
        "phases": "+".join(map(str, variant.phases)),
        "gan": gan_cell(run),
        "seeds": _seeds(arm.seeds),
        "training_images": run.images,
        "training_seconds": arm.seconds.mean if arm.seconds else None,
        "images": data.images,
        "protocol": run.record.protocol,
    }


def _seeds(seeds: tuple[int, ...]) -> str:
    return " ".join(map(str, seeds))


def _cells(found: SeedMean | None) -> dict[str, float | None]:
    interval = found.interval if found else None
    return {
        "value": found.mean if found else None,
        **{f"interval_{name}": getattr(interval, name) if interval else None for name in ("low", "high", "level")},
    }


def _json_content(table: AblationTable) -> dict[str, Any]:
    return {
        "table": "ablation",
        "profile": table.profile,
        "first_line": table.first_line,
        **holdings_content(table),
        "arms": [
            {**_facts(arm), "records": [run.shown_path for run in arm.runs], "metrics": _means(table, arm)}
            for arm in table.arms
        ],
        "effects": [_json_of_effect(table, effect) for effect in table.effects],
        "runs": [
            {"path": run.shown_path, "key": run.record.key, "record": run.record.model_dump(mode="json")}
            for run in table.runs
        ],
        "trainings": [
            {"path": path, "record": record.model_dump(mode="json")} for path, record in table.trainings.items()
        ],
        "beside": [{"path": run.shown_path, "record": run.record.model_dump(mode="json")} for run in table.beside_runs],
        "not_measured": [{"set": label, "missing": list(why)} for label, why in table.not_measured.items()],
        "reported": [
            {
                "row": result.row.model_dump(mode="json"),
                "answers": {
                    source: {
                        "record": next((run.shown_path for run in answer.runs.values()), None),
                        "measured": {key: value.model_dump(mode="json") for key, value in answer.measured.items()},
                        "missing": list(answer.missing),
                        "judgements": {metric: asdict(found) for metric, found in answer.judgements.items()},
                    }
                    for source, answer in result.answers.items()
                },
            }
            for result in table.reported
        ],
    }


def _means(table: AblationTable, arm: Arm) -> dict[str, Any]:
    return {key: _cells(arm.mean(key)) for key in table.columns}


def _json_of_effect(table: AblationTable, effect: Effect) -> dict[str, Any]:
    return {
        "idea": IDEAS[effect.idea],
        "data_set": effect.with_it.first.record.data.name,
        "resolution": effect.with_it.first.record.data.resolution,
        "without": [run.shown_path for run in effect.without.runs],
        "with": [run.shown_path for run in effect.with_it.runs],
        "seeds": list(effect.seeds),
        "obstacle": effect.obstacle,
        "training_time_ratio": _cells(effect.cost),
        "with_minus_without": {
            key: {**_cells(effect.difference(key)), "verdict": effect.verdict(key)} for key in table.columns
        },
    }
