"""Files of the reconstruction table: ``table_rfid.md`` with its ``.csv`` and ``.json`` twins."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.answers_page import holdings_content
from dcae_bench.tables.files import interval_cells, settings_cell, write_table
from dcae_bench.tables.reconstruction.judge import RECORD_KEYS
from dcae_bench.tables.reconstruction.page import markdown
from dcae_bench.tables.reconstruction.table import (
    REPORTED_LABELS,
    ReconstructionAnswer,
    ReconstructionResult,
    ReconstructionTable,
)
from dcae_bench.tables.reported.reconstruction import ReconstructionRow


def write(table: ReconstructionTable, md_path: Path) -> None:
    """Write the table as Markdown with a ``.csv`` and a ``.json`` twin, each atomically.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    write_table(md_path, page=markdown(table), lines=_csv_lines(table), content=_json_content(table))


def _csv_lines(table: ReconstructionTable) -> Iterator[dict[str, Any]]:
    """One line per number: first every measured number, then every reported number with its verdict."""
    for run in table.runs:
        record = run.record
        for key, metric in record.metrics.items():
            yield {
                "part": "run",
                "data_set": record.data.name,
                "resolution": record.data.resolution,
                "latent_shape": run.latent_shape,
                "family": record.subject.family,
                "autoencoder": record.subject.autoencoder,
                "parameters": record.subject.parameters,
                "gmacs": record.subject.gmacs,
                "trained_images": record.subject.trained_images,
                "weights_source": record.subject.weights_source,
                "phase": record.subject.phase,
                "images": record.data.images,
                "protocol": record.protocol,
                "settings": settings_cell(record),
                "metric": key,
                "label": metric.label,
                "measured": metric.value,
                **interval_cells(metric),
                "reported": None,
                "unit": metric.unit,
                "better": metric.better,
                "confidence": None,
                "verdict": None,
                "reason": None,
                "notes": " ".join(metric.notes),
                "record": run.shown_path,
            }
    for result in table.reported:
        for source, answer in result.answers.items():
            yield from _csv_lines_of_answer(result.row, source, answer)


def _csv_lines_of_answer(
    row: ReconstructionRow, source: WeightsSource, answer: ReconstructionAnswer
) -> Iterator[dict[str, Any]]:
    for metric, judgement in answer.judgements.items():
        value, measured, run = row.metrics.get(metric), answer.measured.get(metric), answer.runs.get(metric)
        record = run.record if run else None
        name = record.subject.autoencoder if record else f"{row.family}-f{row.compression}c{row.latent_channels}"
        yield {
            "part": "reported",
            "data_set": row.dataset,
            "resolution": row.resolution,
            "latent_shape": row.latent_shape,
            "family": row.family,
            "autoencoder": name,
            "parameters": row.parameters,
            "gmacs": record.subject.gmacs if record else None,
            "trained_images": record.subject.trained_images if record else None,
            "weights_source": source,
            "phase": record.subject.phase if record else None,
            "images": row.images,
            "protocol": row.protocol,
            "settings": settings_cell(record) if record else None,
            "metric": metric,
            "label": REPORTED_LABELS[metric],
            "measured": measured.value if measured else None,
            **interval_cells(measured),
            "reported": value.value if value else None,
            "confidence": value.confidence if value else None,
            "verdict": judgement.verdict.value,
            "reason": judgement.reason,
            "notes": value.note if value else None,
            "record": run.shown_path if run else None,
        }


def _json_content(table: ReconstructionTable) -> dict[str, Any]:
    return {
        "table": "reconstruction",
        "profile": table.profile,
        "first_line": table.first_line,
        **holdings_content(table),
        "runs": [
            {
                "path": run.shown_path,
                "key": run.record.key,
                "latent_shape": run.latent_shape,
                "best_in": [key for key in run.record.metrics if any(run in pair.winners(key) for pair in table.pairs)],
                "record": run.record.model_dump(mode="json"),
            }
            for run in table.runs
        ],
        "beside": [{"path": run.shown_path, "record": run.record.model_dump(mode="json")} for run in table.beside_runs],
        "differences": [
            {
                "dc_ae": pair.dc_ae.shown_path,
                "sd_vae": pair.sd_vae.shown_path,
                "obstacle": pair.obstacle,
                "dc_ae_minus_sd_vae": {key: pair.difference(key) for key in table.columns},
            }
            for pair in table.pairs
        ],
        "reported": [_json_of_result(result) for result in table.reported],
        "not_measured": [
            {"autoencoder": name, "set": label, "missing": reasons}
            for (name, label), reasons in table.not_measured.items()
        ],
    }


def _json_of_result(result: ReconstructionResult) -> dict[str, Any]:
    return {
        "row": result.row.model_dump(mode="json"),
        "latent_shape": result.row.latent_shape,
        "answers": {source: _json_of_answer(answer) for source, answer in result.answers.items()},
    }


def _json_of_answer(answer: ReconstructionAnswer) -> dict[str, Any]:
    found = {metric: answer.measured.get(metric) for metric in answer.judgements}
    run = next(iter(answer.runs.values()), None)  # one run answers all metrics of a row
    return {
        "record": run.shown_path if run else None,
        "profile": run.record.profile if run else None,
        "settings": run.record.settings if run else None,
        "record_keys": {metric: RECORD_KEYS[metric] for metric in answer.judgements},
        "measured": {metric: value.model_dump(mode="json") if value else None for metric, value in found.items()},
        "missing": answer.missing,
        "judgements": {metric: asdict(judgement) for metric, judgement in answer.judgements.items()},
    }
