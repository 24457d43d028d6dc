"""Parts that the pages of the reconstruction and the generation table share: cells, and lines of "How to read"."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcae_bench.records.record import Metric, Record
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.answers import Answer, AnswersTable, MetricT, ReportedResult, RowT, RunT
from dcae_bench.tables.markdown import Footnotes, decimals
from dcae_bench.tables.reported.verdict import Judgement
from dcae_bench.tables.runs import Run, made_by, shown_path, unique


def holdings_text(table: AnswersTable[RowT, RunT, MetricT]) -> str:
    """How many of the expected measurements a table holds, which are missing, and which records it leaves out."""
    held, absent, wanted = table.holdings, table.absent, len(table.holdings.expected)
    if not wanted and not held.left_out and not held.damaged:
        return ""
    if absent:
        names = "; ".join(absent)
        first = (
            f"Holds {wanted - len(absent)} of the {wanted} measurements that the profile asks for. Missing: {names}."
        )
    else:
        first = f"Holds all {wanted} measurements that the profile asks for."
    lines = [f"{first}\n"] if wanted else []
    if held.left_out:
        lines.append(
            "Left out, because they are not what their profile asks for now (delete them and run again, or show them "
            "with `--other-configurations`):\n"
        )
        lines.append("".join(f"- `{shown_path(path)}`: {'; '.join(why)}\n" for path, why in held.left_out.items()))
    if held.damaged:
        lines.append("Records of other profiles that are left out, because they are damaged or of another kind:\n")
        lines.append("".join(f"- `{shown_path(path)}`: {problem}\n" for path, problem in held.damaged.items()))
    return "\n".join(lines)


def holdings_content(table: AnswersTable[RowT, RunT, MetricT]) -> dict[str, Any]:
    """What a table's JSON says of the measurements that it should hold."""
    held = table.holdings
    damaged = [{"path": shown_path(path), "problem": problem} for path, problem in held.damaged.items()]
    return {
        "expected": list(held.expected),
        "absent": table.absent,
        "left_out": [{"path": shown_path(path), "reasons": list(why)} for path, why in held.left_out.items()],
        "doubts": [{"path": shown_path(path), "reasons": list(why)} for path, why in held.doubts.items()],
        **({"damaged": damaged} if damaged else {}),
        "without_images": [shown_path(path) for path in held.unchecked],
    }


def paths_of(result: ReportedResult[RowT, RunT, MetricT]) -> list[str]:
    """Paths of the records that answer a row of the paper, each once."""
    return unique(run.shown_path for answer in result.answers.values() for run in answer.runs.values())


def answering_records(table: AnswersTable[RowT, RunT, MetricT]) -> list[list[str]]:
    """Paths of the records that answer each row of the paper."""
    return [paths_of(result) for result in table.reported]


def doubts_of(run: Run) -> list[str]:
    """Footnotes of a run: what its record says of a user's class, and that it is not what its profile asks for now."""
    told = [*run.record.subject.notes]
    if run.doubts:
        known = not any("was not checked" in reason for reason in run.doubts)
        told.append(f"{'of another configuration: ' if known else ''}{'; '.join(run.doubts)}")
    return told


def column_decimals(table: AnswersTable[RowT, RunT, MetricT]) -> dict[str, int]:
    """Number of decimals of each metric column."""
    return {key: decimals(key, [metric.value for metric in metrics]) for key, metrics in _held(table).items()}


def column_notes(table: AnswersTable[RowT, RunT, MetricT]) -> dict[str, tuple[str, ...]]:
    """Notes by metric key, for columns whose runs all carry the same notes.

    Such notes stand in the column's head, so that they do not crowd every cell.
    """
    notes = {key: {metric.notes for metric in metrics} for key, metrics in _held(table).items()}
    return {key: next(iter(different)) for key, different in notes.items() if len(different) == 1}


def _held(table: AnswersTable[RowT, RunT, MetricT]) -> dict[str, list[Metric]]:
    """The metrics of each column."""
    return {key: [run.record.metrics[key] for run in table.runs if key in run.record.metrics] for key in table.columns}


def verdict_cell(
    answers: Mapping[WeightsSource, Answer[RunT, MetricT]], labels: Mapping[MetricT, str], footnotes: Footnotes
) -> str:
    """The verdict on each weights source, or one verdict if all sources share it; reasons become footnotes.

    ``labels`` are the printed names of the metrics.
    """
    found = {
        source: _verdicts(answer.judgements, answer.missing, labels, footnotes) for source, answer in answers.items()
    }
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{source}: {verdict}" for source, verdict in found.items())


def _verdicts(
    judgements: Mapping[MetricT, Judgement],
    missing: Sequence[str],
    labels: Mapping[MetricT, str],
    footnotes: Footnotes,
) -> str:
    """One verdict if all metrics share verdict and reason, else one for each metric."""
    if len(set(judgements.values())) == 1:
        judgement = next(iter(judgements.values()))
        return f"{judgement.verdict}{footnotes.mark(missing or [judgement.reason])}"
    return ", ".join(
        f"{labels[metric]} {judgement.verdict}{footnotes.mark([judgement.reason])}"
        for metric, judgement in judgements.items()
    )


def beside_lines(table: AnswersTable[RowT, RunT, MetricT]) -> Iterator[str]:
    """One line for each other profile whose runs answer rows of the paper."""
    for profile, runs in table.beside.items():
        sources = " and ".join(unique(_weights_source(run.record) for run in runs))
        yield f'Under "Reported by the paper", {sources} results of profile `{profile}` stand beside: {made_by(runs)}.'
    if table.holdings.unchecked:
        count = len(table.holdings.unchecked)
        yield f"{count} records have no values of each image beside them, so their means were not computed again."


def _weights_source(record: Record) -> str:
    """Weights source of the measured model: of the denoiser, if the record names one."""
    return record.denoiser.weights_source if record.denoiser else record.subject.weights_source


def interval_lines(records: Sequence[Record]) -> Iterator[str]:
    """What the printed intervals are; nothing if no metric has one."""
    if methods := unique(
        f"{metric.interval.level:.0%} by {metric.interval.method}"
        for record in records
        for metric in record.metrics.values()
        if metric.interval
    ):
        yield f"± is the half-width of a value's interval of confidence, [ ] are its ends: {'; '.join(methods)}."


def folder_line(runs: Sequence[Run]) -> str:
    """Where the records lie, and how to read one."""
    folder = os.path.commonpath([run.path.resolve().parent for run in runs])
    return (
        f"Records lie under `{shown_path(Path(folder))}`; the `.json` twin names the one behind each row, and "
        "`dcae-bench show RESULT.json` prints it."
    )
