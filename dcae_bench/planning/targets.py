"""What targets of the workflow need: its jobs, without the files."""

import re
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

from dcae_bench.config import Profile
from dcae_bench.diffusion_spec import ReleasedRow, TrainedRow
from dcae_bench.errors import ConfigError
from dcae_bench.evaluation_spec import EvaluationSet

RECORDS = ("reconstruction", "check")
SCALE = re.compile(r"[0-9]+([.][0-9]+)?")


class Evaluation(NamedTuple):
    """Measuring one autoencoder on some sets: after a training phase, or with released or own weights."""

    autoencoder: str
    phase: int | None
    sets: tuple[EvaluationSet, ...]


@dataclass(frozen=True)
class Needs:
    """Jobs by kind, each once."""

    trainings: tuple[tuple[str, int], ...] = ()
    """Autoencoder and phase."""
    evaluations: tuple[Evaluation, ...] = ()
    encodings: tuple[tuple[str, str], ...] = ()
    """Latent, ``autoencoder@weights``, and name of its images."""
    denoisers: tuple[str, ...] = ()
    """Rows of the diffusion part that are trained; those with released weights are sampled only."""
    samplings: tuple[tuple[str, float], ...] = ()
    """Row and guidance scale."""
    generations: tuple[tuple[str, float], ...] = ()
    """Row and guidance scale of samples that are measured."""
    tables: tuple[str, ...] = ()
    """Tables and figures."""

    def __or__(self, other: Self) -> Self:
        """What either needs."""
        both = {
            field.name: tuple(dict.fromkeys(getattr(self, field.name) + getattr(other, field.name)))
            for field in fields(self)
        }
        return type(self)(**both)


def everything(profile: Profile) -> tuple[str, ...]:
    """Targets that stand for all that a profile describes."""
    return ("all", "results/table_diffusion.md") if profile.diffusion else ("all",)


def needs_of(profile: Profile, target: str) -> Needs:
    """What a target needs. Raises :class:`ConfigError` for a target that no plan counts."""
    found = _of_autoencoders(profile, target) or _of_denoisers(profile, target)
    if found is None:
        raise ConfigError(
            f"target '{target}': is nothing that a plan of profile {profile.name} counts; take "
            f"{', '.join(everything(profile))}, results/table_rfid.md or results/{profile.name}/{_example(profile)}"
        )
    return found


def _of_autoencoders(profile: Profile, target: str) -> Needs | None:
    every = tuple((name, number) for name in profile.named("retrained") for number in profile.phases)
    sets = profile.evaluation.sets
    retrained = tuple(Evaluation(name, number, sets) for name, number in every)
    as_is = tuple(Evaluation(name, None, profile.sets_of(name)) for name in profile.named("released", "own"))
    table, pictures, losses = "results/table_rfid", "results/figures/reconstructions", "results/figures/losses"
    if target == "all":
        return Needs(every, retrained + as_is, tables=(table, pictures, losses) if every else (table, pictures))
    if target.startswith(f"{table}."):
        return Needs(every, retrained + as_is, tables=(table,))
    if target.startswith(f"{pictures}."):
        last = tuple(job for job in retrained if job.phase == max(profile.phases))
        return Needs(every, last + as_is, tables=(pictures,))
    if target.startswith(f"{losses}.") and every:
        return Needs(every, tables=(losses,))
    for stage in ("training", "reconstruction", "latents"):
        for name, number in every:
            if target.startswith(f"results/{profile.name}/{stage}/{name}@retrained/phase{number}/"):
                before = tuple((name, n) for n in range(1, number + 1))
                return Needs(before, (Evaluation(name, number, sets),) if stage == "reconstruction" else ())
    for job in as_is:
        weights = profile.autoencoders[job.autoencoder].weights
        stages = RECORDS if weights == "released" else RECORDS[:1]  # the authors measured no others
        for item in job.sets:
            if target in (
                f"results/{profile.name}/{stage}/{job.autoencoder}@{weights}/{item.label}.json" for stage in stages
            ):
                return Needs(evaluations=(Evaluation(job.autoencoder, None, (item,)),))
    return None


def _of_denoisers(profile: Profile, target: str) -> Needs | None:
    rows = profile.diffusion.rows if profile.diffusion else {}
    all_rows = Needs()
    for row in rows:
        all_rows |= _of_row(profile, row, "generation", _scales(profile, row))
    if rows and target.startswith("results/table_diffusion."):
        return all_rows | Needs(tables=("results/table_diffusion",))
    if all_rows.denoisers and target.startswith("results/figures/diffusion_loss."):
        trained = Needs(all_rows.trainings, encodings=all_rows.encodings, denoisers=all_rows.denoisers)
        return trained | Needs(tables=("results/figures/diffusion_loss",))
    if rows and target.startswith("results/figures/samples."):
        shown = Needs(tables=("results/figures/samples",))
        for row in rows:
            shown |= _of_row(profile, row, "generation", _scales(profile, row)[-1:])
        return shown
    root = f"results/{profile.name}/"
    for row, spec in rows.items():
        if target.startswith(f"{root}latent-cache/{spec.latent}/{spec.data}/"):
            return Needs(_trainings(profile, spec), encodings=((spec.latent, spec.data),))
        if isinstance(spec, TrainedRow) and target.startswith(f"{root}diffusion/{row}/"):
            return _of_row(profile, row, "diffusion", ())
        for stage in ("samples", "generation", "check/generation"):
            if target.startswith(f"{root}{stage}/{row}/s"):
                scale = target.removeprefix(f"{root}{stage}/{row}/s").split("/")[0].removesuffix(".json")
                # What the rules take for a scale; float() takes more.
                return _of_row(profile, row, stage, (float(scale),)) if SCALE.fullmatch(scale) else None
    return None


def _of_row(profile: Profile, row: str, stage: str, scales: tuple[float, ...]) -> Needs:
    """A row's jobs up to a stage; released weights begin with samples."""
    spec = profile.diffusion.rows[row]
    drawn = tuple((row, scale) for scale in scales)
    before = Needs()
    if isinstance(spec, TrainedRow):
        before = Needs(_trainings(profile, spec), encodings=((spec.latent, spec.data),), denoisers=(row,))
    return before | Needs(samplings=drawn, generations=drawn if stage != "samples" else ())


def _trainings(profile: Profile, row: TrainedRow | ReleasedRow) -> tuple[tuple[str, int], ...]:
    """Phases of the autoencoder behind a row's latents."""
    name, weights = row.source
    return tuple((name, number) for number in profile.phases) if weights == "retrained" else ()


def _scales(profile: Profile, row: str) -> tuple[float, ...]:
    return tuple(guidance.scale for guidance in profile.row(row).guidance)


def _example(profile: Profile) -> str:
    if retrained := profile.named("retrained"):
        return f"training/{retrained[0]}@retrained/phase1/model.safetensors"
    name, entry = next(iter(profile.autoencoders.items()))
    return f"reconstruction/{name}@{entry.weights}/{profile.sets_of(name)[0].label}.json"
