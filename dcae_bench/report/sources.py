"""Sources of the report: the tables of a run, and folders of committed evidence."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dcae_bench.base.errors import ResultsError, UserError
from dcae_bench.base.reading import read_json
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.tables.ablation.table import AblationTable
from dcae_bench.tables.generation.table import GenerationTable
from dcae_bench.tables.rebuild import ablation_of, generation_of, reconstruction_of, records_problems
from dcae_bench.tables.reconstruction.table import ReconstructionTable
from dcae_bench.tables.throughput.build import MEASURES, build, find_records, is_record, planned_timings
from dcae_bench.tables.throughput.evidence import RECORDS, code_told, holds_timings, plan_folders
from dcae_bench.tables.throughput.table import ThroughputTable

COMMANDS = {
    "reconstruction": "make results/table_rfid.md",
    "generation": "make results/table_diffusion.md",
    "throughput": "make results/table_throughput.md",
    "ablation": "make results/table_ablation.md",
}
"""Command that makes each table."""
TableT = TypeVar("TableT")


@dataclass(frozen=True)
class Source:
    """Tables of one folder: of this run, of one plan of timings, or of committed evidence."""

    name: str
    """Name that sets it apart from the other sources of a page."""
    title: str
    folder: Path
    committed: bool
    """Whether it is evidence: no images lie beside its records, and other machines may have made it."""
    reconstruction: ReconstructionTable | None = None
    generation: GenerationTable | None = None
    ablation: AblationTable | None = None
    throughput: ThroughputTable | None = None

    @property
    def empty(self) -> bool:
        """Whether it holds no table."""
        return not any((self.reconstruction, self.generation, self.ablation, self.throughput))


def find_sources(results: Path) -> list[Source]:
    """Every source below a folder of results: this run first, then its timings, then committed evidence.

    Raises :class:`ResultsError` when there is none, or when one cannot be read or contradicts itself.
    """
    results = Path(results)
    found = [_run(results), *_timings(results / "throughput"), *sorted(_evidence(results / "reference"), key=_order)]
    found = [source for source in found if not source.empty]
    if not found:
        raise ResultsError(f"{results}: holds no table; make one first, for example `{COMMANDS['reconstruction']}`")
    return found


def _run(results: Path) -> Source:
    return Source("run", "This run", results, committed=False, **_tables(results, sealed=False))


def _timings(folder: Path) -> Iterator[Source]:
    """A source for each plan of timings that has records; a plan may have begun and hold its state alone."""
    for plan in sorted(path for path in folder.glob("*") if path.is_dir() and path.name != "logs"):
        if any(is_record(path) for path in plan.rglob("*.json") if path.is_file()):
            records = find_records([plan])
            table = build(records, planned=planned_timings([plan]), code=fingerprint(MEASURES))
            yield Source(f"plan-{plan.name}", f"This run, timings of plan {plan.name}", plan, False, throughput=table)


def _evidence(folder: Path) -> Iterator[Source]:
    """A source for each folder of evidence."""
    for one in sorted(path for path in folder.glob("*") if path.is_dir()):
        throughput = None
        if holds_timings(one):
            timings = find_records([one / RECORDS])
            throughput = build(timings, planned=planned_timings(plan_folders(one)), code=code_told(one))
        tables = _tables(one, sealed=True)
        yield Source(one.name, f"Committed evidence {one.name}", one, True, throughput=throughput, **tables)


def _order(source: Source) -> tuple[bool, bool, float]:
    """Evidence of profiles before timings, of GPUs before processors, and the newest first."""
    if source.throughput is None:
        return False, False, 0.0
    records = [row.record for row in (*source.throughput.rows, *source.throughput.left_out)]
    ended = max((record.provenance.finished.timestamp() for record in records), default=0.0)
    return True, not any(record.environment.gpu for record in records), -ended


def _tables(folder: Path, *, sealed: bool) -> dict[str, Any]:
    return {
        "reconstruction": _read(folder / "table_rfid.json", reconstruction_of, sealed),
        "generation": _read(folder / "table_diffusion.json", generation_of, sealed),
        "ablation": _read(folder / "table_ablation.json", ablation_of, sealed),
    }


def _read(path: Path, table_of: Callable[[Mapping[str, Any]], TableT], sealed: bool) -> TableT | None:
    """The table of a JSON twin; None without one. Its records are checked against their digests first."""
    if not path.exists():
        return None
    try:
        content = read_json(path)
        problem = next(records_problems(path.name, content, sealed=sealed), None)
        if problem is None:
            return table_of(content)
    except (OSError, ValidationError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ResultsError(f"{path}: no table can be made of it ({reason}); {_remedy(sealed)}") from error
    raise ResultsError(f"{path.parent}: {problem}; {_remedy(sealed)}")


def _remedy(sealed: bool) -> str:
    return "restore the folder of evidence" if sealed else "make the table again"
