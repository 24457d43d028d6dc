"""Needs of workflow targets: the jobs that a target stands for, without their files."""

import re
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

from dcae_bench.base.errors import ConfigError
from dcae_bench.planning.ablations import AblationJobs
from dcae_bench.profile.ablated import trained_as
from dcae_bench.profile.diffusion import ReleasedRowSpec, TrainedRowSpec
from dcae_bench.profile.evaluation import EvaluationSet
from dcae_bench.profile.profile import Profile
from dcae_bench.records import places
from dcae_bench.records.places import Places

SCALE = re.compile(r"[0-9]+([.][0-9]+)?")


class EvaluationJob(NamedTuple):
    """Evaluation of an autoencoder on some sets: after a phase, or with released or own weights (phase None)."""

    autoencoder: str
    phase: int | None
    sets: tuple[EvaluationSet, ...]


@dataclass(frozen=True)
class Needs:
    """Jobs by kind. Every job occurs once."""

    trainings: tuple[tuple[str, int], ...] = ()
    """Pairs of autoencoder and phase."""
    evaluations: tuple[EvaluationJob, ...] = ()
    encodings: tuple[tuple[str, str], ...] = ()
    """Pairs of latent (``autoencoder@weights``) and name of the images in the profile's ``diffusion.data``."""
    denoisers: tuple[str, ...] = ()
    """Trained rows of the diffusion part. Rows with released weights need no training."""
    samplings: tuple[tuple[str, float], ...] = ()
    """Pairs of row and guidance scale."""
    generations: tuple[tuple[str, float], ...] = ()
    """Pairs of row and guidance scale whose samples are measured."""
    tables: tuple[str, ...] = ()
    """Paths of tables and figures, without file ending."""

    def __or__(self, other: Self) -> Self:
        """Union of the jobs of both."""
        both = {
            field.name: tuple(dict.fromkeys(getattr(self, field.name) + getattr(other, field.name)))
            for field in fields(self)
        }
        return type(self)(**both)


def all_targets(profile: Profile) -> tuple[str, ...]:
    """Targets that together cover everything in a profile."""
    tables = {"diffusion": profile.diffusion, "ablation": profile.ablations}
    return ("all", *(places.table(name) for name, part in tables.items() if part))


def needs_of(profile: Profile, target: str) -> Needs:
    """Jobs that a target needs. Raises :class:`ConfigError` for a target that no plan counts."""
    found = _autoencoder_needs(profile, target) or _ablation_needs(profile, target) or _diffusion_needs(profile, target)
    if found is None:
        raise ConfigError(
            f"target '{target}': is nothing that a plan of profile {profile.name} counts; take "
            f"{', '.join(all_targets(profile))}, {places.table('rfid')} or {_example(profile)}"
        )
    return found


def _autoencoder_needs(profile: Profile, target: str) -> Needs | None:
    every = tuple((name, number) for name in profile.with_weights("retrained") for number in profile.phases_of(name))
    sets = profile.evaluation.sets
    retrained = tuple(EvaluationJob(name, number, sets) for name, number in every)
    untrained = profile.with_weights("released", "own")
    not_trained = tuple(EvaluationJob(name, None, profile.sets_of(name)) for name in untrained)
    at = Places.of(profile.name)
    table = places.table("rfid", "")
    pictures, losses = places.figure("reconstructions", ""), places.figure("losses", "")
    curves = tuple((name, number) for name, number in every if not profile.is_fitted(name))
    if target == "all":
        return Needs(every, retrained + not_trained, tables=(table, pictures, losses) if curves else (table, pictures))
    if target.startswith(f"{table}."):
        return Needs(every, retrained + not_trained, tables=(table,))
    if target.startswith(f"{pictures}."):
        last = tuple(job for job in retrained if job.phase == max(profile.phases_of(job.autoencoder)))
        return Needs(every, last + not_trained, tables=(pictures,))
    if target.startswith(f"{losses}.") and curves:
        return Needs(curves, tables=(losses,))
    for name, number in every:
        before = tuple((name, n) for n in range(1, number + 1))
        subject = f"{name}@retrained"
        if target.startswith(at.reconstruction(subject, "", number, "")):
            return Needs(before, (EvaluationJob(name, number, sets),))
        if target.startswith((f"{at.training(name, number)}/", at.latent_statistics(subject, "", number, ""))):
            return Needs(before)
    for job in not_trained:
        weights = profile.autoencoders[job.autoencoder].weights
        subject = f"{job.autoencoder}@{weights}"
        for item in job.sets:
            made = [at.reconstruction(subject, item.label)]
            # The authors published values only for released weights.
            made += [at.check(subject, item.label)] if weights == "released" else []
            if target in made:
                return Needs(evaluations=(EvaluationJob(job.autoencoder, None, (item,)),))
    return None


def _ablation_needs(profile: Profile, target: str) -> Needs | None:
    if profile.ablations is None:
        return None
    jobs = AblationJobs(profile, Places.of(profile.name), {})
    if target.startswith((f"{places.table('ablation', '')}.", f"{places.figure('ablation', '')}.")):
        sets = tuple(item for item in profile.evaluation.sets if item.label in jobs.labels)
        # The profile's own trainings are measured on all sets in the job that the main table needs too.
        evaluations = tuple(
            EvaluationJob(name, phase, sets if name in jobs.variants else profile.evaluation.sets)
            for name, phase in jobs.measured
        )
        return Needs(tuple(jobs.trained), evaluations, tables=(places.table("ablation", ""),))
    for name, variant in jobs.variants.items():
        for one in variant.lineage:
            at = (
                jobs.places.training(name, one.phase),
                jobs.places.reconstruction(f"{name}@retrained", "", one.phase, ""),
            )
            if not target.startswith((f"{at[0]}/", at[1])):
                continue
            before = tuple(trained_as(profile, earlier) for earlier in one.lineage)
            sets = tuple(item for item in profile.evaluation.sets if item.label in jobs.labels)
            return Needs(before, (EvaluationJob(name, one.phase, sets),) if target.startswith(at[1]) else ())
    return None


def _diffusion_needs(profile: Profile, target: str) -> Needs | None:
    rows = profile.diffusion.rows if profile.diffusion else {}
    all_rows = Needs()
    for row in rows:
        all_rows |= _row_needs(profile, row, "generation", _scales(profile, row))
    if rows and target.startswith(f"{places.table('diffusion', '')}."):
        return all_rows | Needs(tables=(places.table("diffusion", ""),))
    if all_rows.denoisers and target.startswith(f"{places.figure('diffusion_loss', '')}."):
        trained = Needs(all_rows.trainings, encodings=all_rows.encodings, denoisers=all_rows.denoisers)
        return trained | Needs(tables=(places.figure("diffusion_loss", ""),))
    if rows and target.startswith(f"{places.figure('samples', '')}."):
        shown = Needs(tables=(places.figure("samples", ""),))
        for row in rows:
            shown |= _row_needs(profile, row, "generation", _scales(profile, row)[-1:])
        return shown
    at = Places.of(profile.name)
    for row, spec in rows.items():
        if target.startswith(f"{at.latents(spec.latent, spec.data)}/"):
            return Needs(_trainings(profile, spec), encodings=((spec.latent, spec.data),))
        if isinstance(spec, TrainedRowSpec) and target.startswith(f"{at.denoiser(row)}/"):
            return _row_needs(profile, row, "diffusion", ())
        for stage, start in (
            ("samples", at.samples(row, "")),
            ("generation", at.generation(row, "").removesuffix(".json")),
            ("check", at.check_samples(row, "").removesuffix(".json")),
        ):
            if target.startswith(start):
                scale = target.removeprefix(start).split("/")[0].removesuffix(".json")
                # The rules accept only SCALE; float() would accept more.
                return _row_needs(profile, row, stage, (float(scale),)) if SCALE.fullmatch(scale) else None
    return None


def _row_needs(profile: Profile, row: str, stage: str, scales: tuple[float, ...]) -> Needs:
    """Jobs of a row up to a stage. A row with released weights needs no encoding and no training."""
    spec = profile.required_diffusion.rows[row]
    drawn = tuple((row, scale) for scale in scales)
    before = Needs()
    if isinstance(spec, TrainedRowSpec):
        before = Needs(_trainings(profile, spec), encodings=((spec.latent, spec.data),), denoisers=(row,))
    return before | Needs(samplings=drawn, generations=drawn if stage != "samples" else ())


def _trainings(profile: Profile, row: TrainedRowSpec | ReleasedRowSpec) -> tuple[tuple[str, int], ...]:
    """Trainings of the autoencoder behind a row's latents."""
    name, weights = row.source
    return tuple((name, number) for number in profile.phases_of(name)) if weights == "retrained" else ()


def _scales(profile: Profile, row: str) -> tuple[float, ...]:
    return tuple(guidance.scale for guidance in profile.row(row).guidance)


def _example(profile: Profile) -> str:
    at = Places.of(profile.name)
    if retrained := profile.with_weights("retrained"):
        return at.weights(retrained[0], 1)
    name, entry = next(iter(profile.autoencoders.items()))
    return at.reconstruction(f"{name}@{entry.weights}", profile.sets_of(name)[0].label)
