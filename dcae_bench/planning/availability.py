"""Availability: data and weights that a profile needs and this machine lacks, found without torch or any image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dcae_bench.base.reading import read_json
from dcae_bench.data.external import ROOT_VARIABLE, external_datasets, is_there
from dcae_bench.extractors import dinov2_files, inception_weights
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import ReleasedRow
from dcae_bench.specs.protocols import PAPER
from dcae_bench.subjects.own import own_files
from dcae_bench.weights import released as weights

INCEPTION_REASON = "Inception weights are not here: `dcae-bench weights fetch inception`"

MissingEvaluations = dict[tuple[str, str], tuple[str, ...]]
"""Reasons why an evaluation cannot run, with the remedies, by autoencoder and label of the evaluation set."""


def missing_evaluations(profile: Profile, data: Path) -> MissingEvaluations:
    """Evaluations of the profile that cannot run on this machine, with one reason per missing thing.

    ``data`` is the folder of the prepared data sets. Missing training data, or a missing folder from ``data_roots``, is
    an error elsewhere and is not listed here. Raises :class:`WeightsError` when the record of fetched weights cannot be
    read.
    """
    found: MissingEvaluations = {}
    for name, entry in profile.autoencoders.items():
        for item in profile.sets_of(name):
            reasons = []
            if item.dataset not in profile.all_training_sets() and (
                reason := _data_reason(profile, item.dataset, data)
            ):
                reasons.append(reason)
            if entry.weights != "retrained":
                reasons += [*_missing_weights(profile, LatentSource(name, entry.weights)), *missing_networks(profile)]
            if reasons:
                found[name, item.label] = tuple(reasons)
    return found


def missing_sets(profile: Profile, data: Path) -> dict[str, tuple[str, ...]]:
    """Evaluation sets that no retrained autoencoder can be measured on here, by label, with the reasons."""
    found: dict[str, tuple[str, ...]] = {}
    for item in profile.evaluation.sets:
        trained_on = item.dataset in profile.all_training_sets()
        if not trained_on and (reason := _data_reason(profile, item.dataset, data)):
            found[item.label] = (reason,)
    return found


def missing_rows(profile: Profile, data: Path) -> dict[str, tuple[str, ...]]:
    """Like :func:`missing_evaluations`, for rows of the profile's diffusion part, by name of the row.

    Raises :class:`WeightsError`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for row in profile.diffusion.rows if profile.diffusion else ():
        resolved = profile.row(row)
        reasons = [
            reason
            for dataset in resolved.data.datasets
            if dataset not in profile.all_training_sets()
            and (reason := _data_reason(profile, dataset, data, resolved.data.split)) is not None
        ]
        reasons += _missing_weights(profile, resolved.spec.source)
        if isinstance(resolved, ReleasedRow) and not weights.is_fetched(resolved.spec.released):
            reasons.append(_weights_reason(resolved.spec.released))
        reasons += missing_networks(profile)
        if reasons:
            found[row] = tuple(reasons)
    return found


def missing_networks(profile: Profile) -> Sequence[str]:
    """Reasons why networks of the profile's metrics are missing; none for those that packages embed."""
    wanted, reasons = profile.evaluation.extractors, []
    by_inception = profile.evaluation.protocol == PAPER or any(name.startswith("inception") for name in wanted)
    if by_inception and not inception_weights.is_available():
        reasons.append(INCEPTION_REASON)
    if "dinov2" in wanted and (reason := dinov2_files.missing()) is not None:
        reasons.append(reason)
    return reasons


def _missing_weights(profile: Profile, source: LatentSource) -> Sequence[str]:
    """Reasons why weights of an autoencoder are missing; none for weights that the profile trains."""
    name = source.autoencoder
    if source.weights == "own":
        return own_files(name, profile.autoencoders[name]).missing
    return [_weights_reason(name)] if source.weights == "released" and not weights.is_fetched(name) else []


def _data_reason(profile: Profile, name: str, data: Path, split: Literal["train", "eval"] = "eval") -> str | None:
    dataset = external_datasets().get(name)
    if dataset is None or name in profile.data_roots or _prepared(data / name / f"{split}.json"):
        return None
    root = dataset.root(profile.data_roots)
    if root is not None and is_there(root):
        return None
    place = (
        f"put them at {root}"
        if root
        else f"put them at ${ROOT_VARIABLE}/{name}, or name their folder in data_roots.{name}"
    )
    kind = {"train": "training", "eval": "evaluation"}[split]
    number = dataset.images.get(split)
    count = "" if number is None else f"{number:,} "
    return f"{dataset.title} is not here: get its {count}{kind} images from {dataset.home} ({dataset.access}), {place}"


def _prepared(index: Path) -> bool:
    """Whether a manifest exists and the folder or the container of its images still exists."""
    try:
        return Path(read_json(index)["root"]).exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _weights_reason(name: str) -> str:
    released = weights.released_weights()[name]
    if released.address is not None:
        remedy = f"get {released.file} from {released.address}, then `dcae-bench weights fetch {name} --path FILE`"
    else:
        remedy = f"`dcae-bench weights fetch {name}`"
    return f"released weights of {name} are not here: {remedy}"
