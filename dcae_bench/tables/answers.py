"""Answers to the paper: what our runs give for each reported row, and the base of both tables that hold answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from dcae_bench.planning.meaning import name_of
from dcae_bench.records.record import Metric
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.reported.verdict import Judgement
from dcae_bench.tables.runs import NOTHING_KNOWN, Holdings, Run, made_by, metric_columns

SOURCES: tuple[WeightsSource, ...] = ("released", "retrained")
"""Weights sources that can answer a row of the paper, in the order of their columns."""

RowT = TypeVar("RowT")
RunT = TypeVar("RunT", bound=Run)
MetricT = TypeVar("MetricT", bound=str)

WhyNot = Callable[[RowT, WeightsSource], tuple[str, ...]]
"""Why no run of a weights source answers a reported row; at least one reason."""


@dataclass(frozen=True)
class Answer(Generic[RunT, MetricT]):
    """What one weights source gives for a row of the paper, by reported metric."""

    runs: Mapping[MetricT, RunT]
    """Run that answers each metric; empty if there is none."""
    measured: Mapping[MetricT, Metric]
    """The same quantity as the reported metric, as measured; without the metrics that were not measured."""
    judgements: Mapping[MetricT, Judgement]
    """Verdict on each metric. Every metric of the row has one, whether measured or not."""
    missing: tuple[str, ...] = ()
    """Why no run answers the row; empty if one does."""


@dataclass(frozen=True)
class ReportedResult(Generic[RowT, RunT, MetricT]):
    """A row of the paper with the answer of each weights source."""

    row: RowT
    answers: Mapping[WeightsSource, Answer[RunT, MetricT]]


@dataclass(frozen=True)
class AnswersTable(Generic[RowT, RunT, MetricT]):
    """Base of the reconstruction and the generation table: one profile's runs, and the paper's rows with answers."""

    COLUMN_ORDER: ClassVar[tuple[str, ...]] = ()
    """Beginnings of metric keys in the order of the columns."""

    profile: str
    runs: tuple[RunT, ...]
    reported: tuple[ReportedResult[RowT, RunT, MetricT], ...]
    holdings: Holdings = field(default=NOTHING_KNOWN, kw_only=True)
    """What the table should hold, and what was left out."""

    @property
    def absent(self) -> list[str]:
        """Names of the measurements that the profile asks for and the table does not hold as the profile asks."""
        here = {name_of(run.record) for run in self.runs if not run.doubts}
        return [name for name in self.holdings.expected if name not in here]

    @property
    def first_line(self) -> str:
        """Profile, commit and hardware, taken from the records."""
        return f"Profile `{self.profile}` · {made_by(self.runs) if self.runs else 'no record yet'}"

    @property
    def beside(self) -> dict[str, list[RunT]]:
        """Runs of other profiles that answer rows of the paper, by profile."""
        found: dict[str, list[RunT]] = {}
        for answer in (answer for result in self.reported for answer in result.answers.values()):
            for run in answer.runs.values():
                if run.record.profile != self.profile:
                    found.setdefault(run.record.profile, []).append(run)
        return found

    @property
    def beside_runs(self) -> list[RunT]:
        """Runs of other profiles that answer rows of the paper, each once."""
        return list({run.path: run for runs in self.beside.values() for run in runs}.values())

    @property
    def columns(self) -> dict[str, Metric]:
        """The metric columns, Fréchet distances first: for each key of the runs' metrics, one metric with that key."""
        return metric_columns(self.runs, self.COLUMN_ORDER)
