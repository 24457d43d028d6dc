"""The files of the generation table: Markdown to read, CSV to plot, JSON with everything behind them."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dcae_bench.files import write_text
from dcae_bench.records import WeightsSource
from dcae_bench.tables.diffusion import REPORTED_LABELS, DiffusionTable, Generation, ReportedResult
from dcae_bench.tables.diffusion_page import markdown
from dcae_bench.tables.rfid import interval_cells, settings_cell


def write(table: DiffusionTable, md_path: Path) -> None:
    """Write the table as Markdown with a ``.csv`` and a ``.json`` twin, each atomically.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    md_path = Path(md_path)
    write_text(md_path.with_suffix(".csv"), pd.DataFrame(list(_tidy(table)), dtype=object).to_csv(index=False))
    write_text(md_path.with_suffix(".json"), json.dumps(_everything(table), indent=2, ensure_ascii=False) + "\n")
    write_text(md_path, markdown(table))


def _tidy(table: DiffusionTable) -> Iterator[dict[str, Any]]:
    """One line per number: first every measured one, then every reported one with its verdict."""
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
        for source in result.answers:
            yield from _tidy_reported(result, source)


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


def _tidy_reported(result: ReportedResult, source: WeightsSource) -> Iterator[dict[str, Any]]:
    row, answer = result.row, result.answers[source]
    for metric, judgement in answer.judgements.items():
        measured, run = answer.reproduced(metric), answer.runs.get(metric)
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
                "guidance": 1.0 if metric == "gfid" else row.guidance,
                "samples": row.samples,
                "protocol": row.protocol,
                "settings": settings_cell(run.record) if run else None,
                "metric": metric,
                "label": REPORTED_LABELS[metric],
                "measured": measured.value if measured else None,
                **interval_cells(measured),
                "reported": value.value if value else None,
                "better": "lower",
                "confidence": value.confidence if value else None,
                "verdict": judgement.verdict.value,
                "reason": judgement.reason,
                "notes": (value.note if value else None) or row.note,
                "record": run.shown_path if run else None,
            }


def _everything(table: DiffusionTable) -> dict[str, Any]:
    return {
        "table": "generation",
        "profile": table.profile,
        "first_line": table.first_line,
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
