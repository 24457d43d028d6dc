"""Results that are not what the profile asks for now: found, and given to Snakemake to make again."""

import atexit
import os
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.reading import read_json
from dcae_bench.planning.meaning import Meaning
from dcae_bench.planning.workflow import Workflow
from dcae_bench.records.record import load

SNAKEMAKE_MEMORY = Path(".snakemake") / "metadata"
"""Where Snakemake remembers what shaped each file."""
LONG_AGO_S = 86_400
"""Time stamp (seconds since 1970) of a record that must be made again; older than any input."""


def outdated(jobs: Workflow) -> dict[str, tuple[str, ...]]:
    """Existing records of this workflow's jobs that are not what the profile asks for now, with the reasons."""
    meaning, found = Meaning(jobs.profile, Path(jobs.places.data)), {}
    for path in [*jobs.training_records(), *jobs.records, *jobs.generations(jobs.ready_rows)]:
        if not Path(path).exists():
            continue
        try:
            reasons = meaning.differences(load(Path(path)), Path(path))
        except ResultsError as error:
            reasons = (str(error),)
        if reasons:
            found[path] = reasons
    return found


def age_outdated(jobs: Workflow, memory: Path = SNAKEMAKE_MEMORY) -> list[str]:
    """Give outdated records an old time stamp, so that Snakemake makes them again, and return their paths.

    Snakemake knows from its own ``memory`` alone what shaped a file. It has none of results that were copied from
    elsewhere, and would take them as they are. Files that Snakemake remembers are its own business. The time stamps
    are put back when this process ends, so that a dry run changes nothing.
    """
    remembered, aged = _remembered(memory), {}
    for path in [*outdated(jobs), *_drawn_otherwise(jobs)]:
        if path in remembered:
            continue
        with suppress(OSError):  # in a folder that cannot be written; the tables leave the record out
            before = os.stat(path)
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))
            aged[path] = before.st_atime_ns, before.st_mtime_ns
    atexit.register(_put_back, aged)
    return list(aged)


def _drawn_otherwise(jobs: Workflow) -> Iterator[str]:
    """Manifests of latents and samples of another seed, and of samples of another sampler."""
    for row in jobs.ready_rows:
        asked: dict[str, object] = {"seed": jobs.profile.seed}
        if row in jobs.trained_rows and _differs(path := jobs.latents_of(row, "manifest.json"), asked):
            yield path
        asked["sampler"] = jobs.rows[row].sampler.model_dump(mode="json")
        for scale in jobs.scales(row):
            if _differs(path := jobs.places.samples(row, scale, "samples.json"), asked):
                yield path


def _remembered(memory: Path) -> set[str]:
    """Paths of the files that Snakemake remembers; the names in its folder are paths in base64, long ones in parts."""
    found = set()
    for file in memory.rglob("*"):
        name = "".join(part.removeprefix("@") for part in file.relative_to(memory).parts)
        with suppress(ValueError):
            found.add(urlsafe_b64decode(name).decode())
    return found


def _put_back(aged: Mapping[str, tuple[int, int]]) -> None:
    """Give the files that were not made again their own time stamps."""
    for path, times in aged.items():
        with suppress(OSError):
            if os.stat(path).st_mtime == LONG_AGO_S:
                os.utime(path, ns=times)


def _differs(manifest: str, asked: Mapping[str, object]) -> bool:
    """Whether a manifest is there and states another value than those asked for."""
    try:
        content = read_json(Path(manifest))
        return any(content[key] != value for key, value in asked.items())
    except OSError:
        return False
    except (ValueError, KeyError, TypeError, RecursionError):
        return True
