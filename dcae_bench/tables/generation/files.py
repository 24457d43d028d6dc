"""Files of the generation table: ``table_diffusion.md`` with its ``.csv`` and ``.json`` twins."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.answers_page import holdings_content
from dcae_bench.tables.files import interval_cells, settings_cell, write_table
from dcae_bench.tables.generation.judge import reported_scale
from dcae_bench.tables.generation.page import markdown
from dcae_bench.tables.generation.table import DISTANCES, REPORTED_LABELS, Generation, GenerationAnswer, GenerationTable
from dcae_bench.tables.reported.generation import GenerationRow


def write(table: GenerationTable, md_path: Path) -> None:
    """Write the table as Markdown with a ``.csv`` and a ``.json`` twin, each atomically.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    write_table(md_path, page=markdown(table), lines=_csv_lines(table), content=_json_content(table))


def _csv_lines(table: GenerationTable) -> Iterator[dict[str, Any]]:
    """One line per number: first every measured number, then every reported number with its verdict."""
    for run in table.runs:
        for key, metric in run.record.metrics.items():
            yield {
                "part": "run",
                **_facts(run),
                "metric": key,
                "label": metric.label,
                "measured": metric.value,
                **interval_cells(metric),
                "reported": None,
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


def _facts(run: Generation) -> dict[str, Any]:
    record, denoiser = run.record, run.denoiser
    return {
        "data_set": record.data.name,
        "resolution": record.data.resolution,
        "row": denoiser.row,
        "denoiser": denoiser.name,
        "process": denoiser.process,
        "weights_source": denoiser.weights_source,
        "released": denoiser.released,
        "latent_space": run.latent_space,
        "autoencoder_source": record.subject.weights_source,
        "tokens": denoiser.tokens,
        "parameters": denoiser.parameters,
        "gmacs": denoiser.gmacs,
        "training_images": run.training_images,
        "training_flops": run.training_flops,
        "loss": run.loss,
        "guidance": run.guidance,
        "samples": record.data.images,
        "protocol": record.protocol,
        "settings": settings_cell(record),
    }


def _csv_lines_of_answer(
    row: GenerationRow, source: WeightsSource, answer: GenerationAnswer
) -> Iterator[dict[str, Any]]:
    for metric, judgement in answer.judgements.items():
        measured, run = answer.measured.get(metric), answer.runs.get(metric)
        for value in row.metrics.get(metric, ()) or (None,):
            yield {
                "part": "reported",
                "data_set": row.dataset,
                "resolution": row.resolution,
                "row": row.label,
                "denoiser": row.denoiser,
                "process": row.process,
                "weights_source": source,
                "released": row.released if source == "released" else None,
                "latent_space": row.latent_space,
                "tokens": row.tokens,
                "parameters": row.parameters,
                "training_images": row.training_images,
                "guidance": reported_scale(row, metric),
                "samples": row.samples,
                "protocol": row.protocol,
                "settings": settings_cell(run.record) if run else None,
                "metric": metric,
                "label": REPORTED_LABELS[metric],
                "measured": measured.value if measured else None,
                **interval_cells(measured),
                "reported": value.value if value else None,
                "better": "lower" if metric in DISTANCES else "higher",
                "confidence": value.confidence if value else None,
                "verdict": judgement.verdict.value,
                "reason": judgement.reason,
                "notes": (value.note if value else None) or row.note,
                "record": run.shown_path if run else None,
            }


def _json_content(table: GenerationTable) -> dict[str, Any]:
    return {
        "table": "generation",
        "profile": table.profile,
        "first_line": table.first_line,
        **holdings_content(table),
        "runs": [
            {
                "path": run.shown_path,
                "key": run.record.key,
                **_facts(run),
                "record": run.record.model_dump(mode="json"),
                "training": run.training.model_dump(mode="json") if run.training else None,
            }
            for run in table.runs
        ],
        "beside": [
            {
                "path": run.shown_path,
                "record": run.record.model_dump(mode="json"),
                "training": run.training.model_dump(mode="json") if run.training else None,
            }
            for run in table.beside_runs
        ],
        "not_measured": [{"row": row, "missing": reasons} for row, reasons in table.not_measured.items()],
        "reported": [
            {
                "row": result.row.model_dump(mode="json"),
                "latent_space": result.row.latent_space,
                "answers": {
                    source: {
                        "records": {metric: run.shown_path for metric, run in answer.runs.items()},
                        "missing": answer.missing,
                        "judgements": {metric: asdict(found) for metric, found in answer.judgements.items()},
                    }
                    for source, answer in result.answers.items()
                },
            }
            for result in table.reported
        ],
    }
