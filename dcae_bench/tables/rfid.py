"""The files of the reconstruction table: Markdown to read, CSV to plot, JSON with everything behind them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd

from dcae_bench.errors import ResultsError
from dcae_bench.files import write_text
from dcae_bench.records import Record, load
from dcae_bench.tables.reconstruction import REPORTED_LABELS, Pair, ReportedResult, RfidTable, Run
from dcae_bench.tables.reported import ReportedRow
from dcae_bench.tables.rfid_page import markdown
from dcae_bench.tables.verdict import RECORD_KEYS, judge


def load_records(paths: Iterable[Path]) -> dict[Path, Record]:
    """Read records by their paths. Raises :class:`ResultsError` when one is missing or is not a record."""
    return {Path(path): load(path) for path in paths}


def build(
    profile_name: str, records: Mapping[Path, Record], reported: Sequence[ReportedRow], not_run_reason: str
) -> RfidTable:
    """Arrange the reconstruction records of a profile and judge the reported rows; other records are left out.

    ``not_run_reason`` says, in one sentence, why the profile leaves rows of the paper out. Raises
    :class:`ResultsError` when a record is of another profile or two records claim the same row.
    """
    chosen = [Run(Path(path), record) for path, record in records.items() if record.kind == "reconstruction"]
    runs = tuple(sorted(chosen, key=lambda run: run.order))
    for before, run in pairwise(runs):
        if before.order == run.order:
            raise ResultsError(f"{run.path}: is a second record of the row of {before.path}; pass one of them")
    for run in runs:
        if run.record.profile != profile_name:
            raise ResultsError(
                f"{run.path}: is of profile {run.record.profile}, not {profile_name}; pass its own records"
            )
    results = []
    for row in reported:
        run = _answer(row, runs)
        record = run.record if run else None
        judgements = {metric: judge(row, record, metric, not_run_reason=not_run_reason) for metric in row.metrics}
        results.append(ReportedResult(row, run, judgements))
    return RfidTable(profile_name, runs, tuple(_pairs(runs)), tuple(results))


def write(table: RfidTable, md_path: Path) -> None:
    """Write the table as Markdown with a ``.csv`` and a ``.json`` twin, each atomically.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    md_path = Path(md_path)
    write_text(md_path.with_suffix(".csv"), pd.DataFrame(list(_tidy(table)), dtype=object).to_csv(index=False))
    write_text(md_path.with_suffix(".json"), json.dumps(_everything(table), indent=2, ensure_ascii=False) + "\n")
    write_text(md_path, markdown(table))


def _pairs(runs: Sequence[Run]) -> Iterator[Pair]:
    for _, group in groupby(runs, key=lambda run: run.setting):
        members = list(group)
        last = max(run.record.subject.phase or 0 for run in members)
        final = [run for run in members if (run.record.subject.phase or 0) == last]
        sides = ([run for run in final if run.record.subject.family == family] for family in ("dc-ae", "sd-vae"))
        for dc_ae, sd_vae in product(*sides):
            yield Pair(dc_ae, sd_vae)


def _answer(row: ReportedRow, runs: Sequence[Run]) -> Run | None:
    """The run nearest to a reported row: its own weights source first, then the last phase."""
    candidates = [
        run
        for run in runs
        if (run.record.data.name, run.record.data.resolution) == (row.dataset, row.resolution)
        and run.record.subject.family == row.family
        and (run.record.subject.compression, run.record.subject.latent_channels)
        == (row.compression, row.latent_channels)
    ]
    return max(
        candidates,
        key=lambda run: (run.record.subject.weights_source == row.weights_source, run.record.subject.phase or 0),
        default=None,
    )


def _tidy(table: RfidTable) -> Iterator[dict[str, Any]]:
    """One line per number: first every measured one, then every reported one with its verdict."""
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
                "weights_source": record.subject.weights_source,
                "phase": record.subject.phase,
                "images": record.data.images,
                "protocol": record.protocol,
                "metric": key,
                "label": metric.label,
                "measured": metric.value,
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
        row = result.row
        for metric, value in row.metrics.items():
            yield {
                "part": "reported",
                "data_set": row.dataset,
                "resolution": row.resolution,
                "latent_shape": row.latent_shape,
                "family": row.family,
                "autoencoder": f"{row.family}-f{row.compression}c{row.latent_channels}",
                "parameters": row.parameters,
                "weights_source": row.weights_source,
                "images": row.images,
                "protocol": row.protocol,
                "metric": metric,
                "label": REPORTED_LABELS[metric],
                "measured": result.reproduced(metric),
                "reported": value.value,
                "confidence": value.confidence,
                "verdict": result.judgements[metric].verdict.value,
                "reason": result.judgements[metric].reason,
                "notes": value.note,
                "record": result.run.shown_path if result.run else None,
            }


def _everything(table: RfidTable) -> dict[str, Any]:
    return {
        "table": "reconstruction",
        "profile": table.profile,
        "first_line": table.first_line,
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
        "differences": [
            {
                "dc_ae": pair.dc_ae.shown_path,
                "sd_vae": pair.sd_vae.shown_path,
                "obstacle": pair.obstacle,
                "dc_ae_minus_sd_vae": {key: pair.difference(key) for key in table.columns},
            }
            for pair in table.pairs
        ],
        "reported": [_reported(result) for result in table.reported],
    }


def _reported(result: ReportedResult) -> dict[str, Any]:
    return {
        "row": result.row.model_dump(mode="json"),
        "latent_shape": result.row.latent_shape,
        "record": result.run.shown_path if result.run else None,
        "record_keys": {metric: RECORD_KEYS[metric] for metric in result.row.metrics},
        "measured": {metric: result.reproduced(metric) for metric in result.row.metrics},
        "judgements": {metric: asdict(judgement) for metric, judgement in result.judgements.items()},
    }
