"""Rebuilding: makes the tables in a folder of evidence again, from the records that their own JSON holds."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import ResultsError, UserError
from dcae_bench.base.files import REPOSITORY, sha256_json
from dcae_bench.records.digest import DIGEST, digest_problem
from dcae_bench.records.record import Record, contradictions
from dcae_bench.tables.ablation import build as ablation
from dcae_bench.tables.ablation.files import write as write_ablation
from dcae_bench.tables.ablation.table import AblationTable
from dcae_bench.tables.files import TWINS
from dcae_bench.tables.generation import build as generation
from dcae_bench.tables.generation.files import write as write_generation
from dcae_bench.tables.generation.table import GenerationTable
from dcae_bench.tables.reconstruction import build as reconstruction
from dcae_bench.tables.reconstruction.files import write as write_reconstruction
from dcae_bench.tables.reconstruction.table import ReconstructionTable
from dcae_bench.tables.reported.ablation import load_reported_ablations
from dcae_bench.tables.reported.generation import load_reported_generation
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
from dcae_bench.tables.runs import Holdings

Content = Mapping[str, Any]


def check_tables(folder: Path) -> Iterator[str]:
    """Differences between the tables of records in a folder and what their records give; none without such a table."""
    for name, again in REBUILDERS.items():
        paths = [Path(folder) / f"{name}{end}" for end in TWINS]
        if not any(path.exists() for path in paths):
            continue
        missing = [path.name for path in paths if not path.exists()]
        yield from (f"{one}: is missing beside the other files of its table" for one in missing)
        if paths[-1].name not in missing:
            yield from _check(paths[0], again)


def count_tables(folder: Path) -> int:
    """Number of tables of records in a folder of evidence."""
    return sum((Path(folder) / f"{name}.json").exists() for name in REBUILDERS)


def _check(page: Path, again: Callable[[Content, Path], None]) -> Iterator[str]:
    source = page.with_suffix(".json")
    try:
        content = json.loads(source.read_bytes())
        problems = list(records_problems(source.name, content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        yield f"{source.name}: is not the JSON of a table ({type(error).__name__}: {error})"
        return
    yield from problems
    if problems:
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / page.name
        try:
            again(content, made)
        except (UserError, OSError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield f"{page.name}: cannot be built again ({reason})"
            return
        for end in TWINS:
            path = page.with_suffix(end)
            if path.exists() and path.read_bytes() != made.with_suffix(end).read_bytes():
                yield f"{path.name}: is not what the records make of it"


def records_problems(name: str, content: Content, *, sealed: bool = True) -> Iterator[str]:
    """Problems of the records that a table holds: a wrong digest, and values that contradict each other.

    In a ``sealed`` folder a record without a digest, which is from before digests, is a problem too.
    """
    for path, inner in runs_of(content):
        problem = digest_problem(inner)
        if sealed and problem is None and inner.get(DIGEST) is None:
            problem = "it carries no digest, so nobody can tell whether it was edited"
        record = Record.model_validate(inner)
        if (problem := problem or next(contradictions(record), None)) is not None:
            yield f"{name}: {path}: {problem}"


def runs_of(content: Content) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that a table's JSON holds, each with its path as tables print it; trainings say that they are."""
    for run in (*content["runs"], *content["beside"], *content.get("trainings", ())):
        for kind, path in (("record", run["path"]), ("training", f"training of {run['path']}")):
            if (inner := run.get(kind)) is not None:
                yield path, inner


def reconstruction_of(content: Content) -> ReconstructionTable:
    """The reconstruction table that a JSON twin holds."""
    datasets = {result["row"]["dataset"] for result in content["reported"]}
    return reconstruction.build(
        content["profile"],
        _records(content["runs"]),
        load_reported_reconstruction(measured=datasets),
        _why_not(content),
        beside=_records(content["beside"]),
        not_measured={(one["autoencoder"], one["set"]): tuple(one["missing"]) for one in content["not_measured"]},
        holdings=_holdings(content),
    )


def generation_of(content: Content) -> GenerationTable:
    """The generation table that a JSON twin holds."""
    return generation.build(
        content["profile"],
        _records(content["runs"]),
        load_reported_generation(),
        _why_not(content),
        beside=_records(content["beside"]),
        not_measured={one["row"]: tuple(one["missing"]) for one in content["not_measured"]},
        holdings=_holdings(content),
    )


def ablation_of(content: Content) -> AblationTable:
    """The table of ablations that a JSON twin holds."""
    return ablation.build(
        content["profile"],
        _records([*content["runs"], *content["trainings"]]),
        load_reported_ablations(),
        _why_not(content),
        beside=_records(content["beside"]),
        not_measured={one["set"]: tuple(one["missing"]) for one in content["not_measured"]},
        holdings=_holdings(content),
    )


REBUILDERS: Mapping[str, Callable[[Content, Path], None]] = {
    "table_rfid": lambda content, page: write_reconstruction(reconstruction_of(content), page),
    "table_diffusion": lambda content, page: write_generation(generation_of(content), page),
    "table_ablation": lambda content, page: write_ablation(ablation_of(content), page),
}
"""Makes a table of the content of its JSON, by the table's name."""


def _records(runs: list[dict[str, Any]]) -> dict[Path, Record]:
    """Records of runs and of the trainings behind them, by path; a training gets a path of its own."""
    found = {}
    for run in runs:
        path = _path(run["path"])
        found[path] = Record.model_validate(run["record"])
        if run.get("training") is not None:
            found[path.with_suffix(".training")] = Record.model_validate(run["training"])
    return found


def _why_not(content: Content) -> Callable[[Any, str], tuple[str, ...]]:
    """The reasons for missing runs as the table tells them; they depend on the machine that made it."""
    told = {
        (sha256_json(result["row"]), source): tuple(answer["missing"])
        for result in content["reported"]
        for source, answer in result["answers"].items()
    }

    def why_not(row: Any, source: str) -> tuple[str, ...]:
        key = sha256_json(row.model_dump(mode="json")), source
        if key not in told:
            raise ResultsError("the paper's rows in baselines/ are not those of the time when the table was made")
        return told[key]

    return why_not


def _holdings(content: Content) -> Holdings:
    def reasons(key: str) -> dict[Path, tuple[str, ...]]:
        return {_path(one["path"]): tuple(one["reasons"]) for one in content[key]}

    unchecked = tuple(map(_path, content["without_images"]))
    damaged = {_path(one["path"]): one["problem"] for one in content.get("damaged", [])}
    return Holdings(tuple(content["expected"]), reasons("left_out"), reasons("doubts"), unchecked, damaged)


def _path(shown: str) -> Path:
    """The path that tables print as ``shown``."""
    return REPOSITORY / shown
