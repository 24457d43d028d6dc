"""The files of the reconstruction table: Markdown to read, CSV to plot, JSON with everything behind them."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd

from dcae_bench.errors import ResultsError
from dcae_bench.files import write_text
from dcae_bench.records import Metric, Record, WeightsSource, load
from dcae_bench.tables.reconstruction import REPORTED_LABELS, SOURCES, Answer, Pair, ReportedResult, RfidTable, Run
from dcae_bench.tables.reported import ReportedMetric, ReportedRow
from dcae_bench.tables.rfid_page import markdown
from dcae_bench.tables.verdict import RECORD_KEYS, judge

WhyNot = Callable[[ReportedRow, WeightsSource], tuple[str, ...]]


def load_records(paths: Iterable[Path]) -> dict[Path, Record]:
    """Read records by their paths. Raises :class:`ResultsError` when one is missing or is not a record."""
    return {Path(path): load(path) for path in paths}


def build(
    profile_name: str,
    records: Mapping[Path, Record],
    reported: Sequence[ReportedRow],
    why_not: WhyNot,
    *,
    beside: Mapping[Path, Record] | None = None,
    not_measured: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
) -> RfidTable:
    """Arrange the reconstruction records of a profile and judge the reported rows; other records are left out.

    ``why_not`` says why a row has no result of a weights source. ``beside`` are records of other profiles, which answer
    reported rows that the profile's own do not. ``not_measured`` has the reasons for the profile's measurements that
    answer no row, by autoencoder and evaluation set; those that were made are left out. Raises
    :class:`ResultsError` when a record is of another profile or two records claim the same row.
    """
    runs, others = _runs(records), _runs(beside or {})
    for run in runs:
        if run.record.profile != profile_name:
            raise ResultsError(
                f"{run.path}: is of profile {run.record.profile}, not {profile_name}; pass it with --beside"
            )
    results = []
    for row in reported:
        answers = {source: _answer(row, source, runs, others, why_not) for source in SOURCES}
        results.append(ReportedResult(row, answers))
    made = {(run.record.subject.autoencoder, f"{run.record.data.name}-{run.record.data.resolution}") for run in runs}
    absent = {key: reasons for key, reasons in (not_measured or {}).items() if key not in made}
    return RfidTable(profile_name, runs, tuple(_pairs(runs)), tuple(results), absent)


def _runs(records: Mapping[Path, Record]) -> tuple[Run, ...]:
    """Reconstruction records in the table's order, each row once."""
    chosen = [Run(Path(path), record) for path, record in records.items() if record.kind == "reconstruction"]
    runs = tuple(sorted(chosen, key=lambda run: (run.order, run.record.profile)))
    for before, run in pairwise(runs):
        if (before.order, before.record.profile) == (run.order, run.record.profile):
            raise ResultsError(f"{run.path}: is a second record of the row of {before.path}; pass one of them")
    return runs


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


def _answer(
    row: ReportedRow, source: WeightsSource, own: Sequence[Run], others: Sequence[Run], why_not: WhyNot
) -> Answer:
    """What one weights source gave for a reported row: the profile's own run before another's, then the last phase."""
    for runs in (own, others):
        candidates = [run for run in runs if run.record.subject.weights_source == source and _concerns(run, row)]
        run = max(candidates, key=lambda run: run.record.subject.phase or 0, default=None)
        if run is not None:
            return Answer(run, {metric: judge(row, run.record, metric) for metric in _metrics(row)})
    missing = why_not(row, source)
    judgement = judge(row, None, "rfid", not_run_reason="; ".join(missing))
    return Answer(None, dict.fromkeys(_metrics(row), judgement), missing)


def _concerns(run: Run, row: ReportedRow) -> bool:
    subject, data = run.record.subject, run.record.data
    theirs = (row.dataset, row.resolution, row.family, row.compression, row.latent_channels)
    return theirs == (data.name, data.resolution, subject.family, subject.compression, subject.latent_channels)


def _metrics(row: ReportedRow) -> Collection[ReportedMetric]:
    """Metrics of a row: the reported ones, or all that the paper reports elsewhere where it has no such row."""
    return row.metrics or REPORTED_LABELS


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
            yield from _tidy_answer(result.row, source, answer)


def _tidy_answer(row: ReportedRow, source: WeightsSource, answer: Answer) -> Iterator[dict[str, Any]]:
    record = answer.run.record if answer.run else None
    name = record.subject.autoencoder if record else f"{row.family}-f{row.compression}c{row.latent_channels}"
    for metric, judgement in answer.judgements.items():
        value, measured = row.metrics.get(metric), answer.reproduced(metric)
        yield {
            "part": "reported",
            "data_set": row.dataset,
            "resolution": row.resolution,
            "latent_shape": row.latent_shape,
            "family": row.family,
            "autoencoder": name,
            "parameters": row.parameters,
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
            "record": answer.run.shown_path if answer.run else None,
        }


def interval_cells(metric: Metric | None) -> dict[str, float | None]:
    """Cells of a metric's interval in a table of numbers."""
    interval = metric.interval if metric else None
    names = ("low", "high", "level")
    return {f"interval_{name}": getattr(interval, name) if interval else None for name in names}


def settings_cell(record: Record) -> str:
    """A record's switches in one cell."""
    return "; ".join(f"{switch}={value}" for switch, value in record.settings.items())


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
        "not_measured": [
            {"autoencoder": name, "set": label, "missing": reasons}
            for (name, label), reasons in table.not_measured.items()
        ],
    }


def _reported(result: ReportedResult) -> dict[str, Any]:
    return {
        "row": result.row.model_dump(mode="json"),
        "latent_shape": result.row.latent_shape,
        "answers": {source: _everything_of(answer) for source, answer in result.answers.items()},
    }


def _everything_of(answer: Answer) -> dict[str, Any]:
    found = {metric: answer.reproduced(metric) for metric in answer.judgements}
    record = answer.run.record if answer.run else None
    return {
        "record": answer.run.shown_path if answer.run else None,
        "profile": record.profile if record else None,
        "settings": record.settings if record else None,
        "record_keys": {metric: RECORD_KEYS[metric] for metric in answer.judgements},
        "measured": {metric: value.model_dump(mode="json") if value else None for metric, value in found.items()},
        "missing": answer.missing,
        "judgements": {metric: asdict(judgement) for metric, judgement in answer.judgements.items()},
    }
