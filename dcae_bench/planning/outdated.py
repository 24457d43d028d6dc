"""Results that are not what the profile asks for now: found, and given to Snakemake to make again."""

import atexit
import os
from base64 import urlsafe_b64decode
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import ConfigError, DataError, ResultsError
from dcae_bench.catalogue.denoisers import CATALOGUE
from dcae_bench.data.latents import read_latent_manifest, require_latents_of_row
from dcae_bench.data.sample_manifest import read_sample_manifest, recipe_asked
from dcae_bench.planning.meaning import Meaning
from dcae_bench.planning.workflow import Workflow
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.rows import ReleasedRow, Row, TrainedRow
from dcae_bench.records.record import load
from dcae_bench.subjects.own import are_other_own_weights
from dcae_bench.weights.released import other_weights

SNAKEMAKE_MEMORY = Path(".snakemake") / "metadata"
"""Where Snakemake remembers what shaped each file."""
LONG_AGO_S = 86_400
"""Time stamp (seconds since 1970) of a record that must be made again; older than any input."""


def outdated(jobs: Workflow) -> dict[str, tuple[str, ...]]:
    """Existing records of this workflow's jobs that are not what the profile asks for now, with the reasons."""
    meaning, found = Meaning(jobs.profile, Path(jobs.places.data)), {}
    generations = jobs.generations(jobs.ready_rows)
    for path in [*jobs.training_records(), *jobs.records, *jobs.ablations.variant_records, *generations]:
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
    # Snakemake leaves its --directory before the process ends.
    atexit.register(_put_back, {os.path.abspath(path): times for path, times in aged.items()})
    return list(aged)


def reason_to_run(path: str, aged: Collection[str]) -> Any:
    """Input of a job that may have no other, so that Snakemake runs it again if its output ``path`` is ``aged``.

    An old time stamp alone tells Snakemake nothing: an input must be younger. The input is always the same file, of
    which Snakemake compares the time stamp only if the output is aged.
    """
    from snakemake.io import ancient

    return str(CATALOGUE) if path in aged else ancient(str(CATALOGUE))


def _drawn_otherwise(jobs: Workflow) -> Iterator[str]:
    """Manifests of latents and samples that the profile and the code would not make so now, or of other weights."""
    for name in jobs.ready_rows:
        row = jobs.rows[name]
        if isinstance(row, TrainedRow):
            path = jobs.latents_of(name, "manifest.json")
            if Path(path).exists() and not _latents_are_asked(jobs, row, Path(path).parent):
                yield path
        for scale in jobs.scales(name):
            path = jobs.places.samples(name, scale, "samples.json")
            if Path(path).exists() and not _samples_are_asked(jobs, row, scale, Path(path).parent):
                yield path


def _latents_are_asked(jobs: Workflow, row: TrainedRow, folder: Path) -> bool:
    try:
        manifest = read_latent_manifest(folder)
        require_latents_of_row(manifest, jobs.profile, row, folder)
    except DataError:
        return False
    source = row.spec.source
    if _are_others(jobs, source, manifest.weights_sha256):
        return False
    if source.weights != "retrained" or not jobs.profile.phases:
        return True
    trained = jobs.places.training(source.autoencoder, max(jobs.profile.phases), "record.json")
    return _weights_of(trained) in (None, manifest.weights_sha256)


def _samples_are_asked(jobs: Workflow, row: Row, scale: str, folder: Path) -> bool:
    try:
        manifest = read_sample_manifest(folder)
        asked = recipe_asked(jobs.profile, manifest)
    except (DataError, ConfigError):
        return False
    if (manifest.row, f"{manifest.guidance_scale:g}", manifest.recipe_sha256) != (row.name, scale, asked):
        return False
    if _are_others(jobs, row.spec.source, manifest.autoencoder_sha256):
        return False
    if isinstance(row, TrainedRow):
        return _weights_of(jobs.places.denoiser(row.name, "record.json")) in (None, manifest.denoiser_sha256)
    return isinstance(row, ReleasedRow) and other_weights(row.spec.released, manifest.denoiser_sha256, None) is None


def _are_others(jobs: Workflow, source: LatentSource, sha256: str) -> bool:
    """Whether weights that no job trains are not those of an autoencoder now."""
    if source.weights == "own":
        return are_other_own_weights(source.autoencoder, jobs.profile.autoencoders[source.autoencoder], sha256)
    return source.weights == "released" and other_weights(source.autoencoder, sha256, None) is not None


def _weights_of(record: str) -> str | None:
    """Hash of the weights that a training left, as its record says; None where no record can be read."""
    try:
        trained = load(Path(record))
    except ResultsError:
        return None
    return (trained.denoiser or trained.subject).weights_sha256


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
