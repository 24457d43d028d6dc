"""What a profile's measurements need and this machine lacks: found without torch and without reading an image."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dcae_bench import weights
from dcae_bench.config import Profile
from dcae_bench.data.external import ROOT_VARIABLE, external_datasets
from dcae_bench.diffusion_plan import ReleasedPlan
from dcae_bench.diffusion_spec import LatentSource
from dcae_bench.metrics import inception_weights
from dcae_bench.own import own_files
from dcae_bench.protocols import PAPER

INCEPTION_REASON = "Inception weights are not here: `dcae-bench weights fetch inception`"

Missing = dict[tuple[str, str], tuple[str, ...]]
"""What is missing, and what it would take, by autoencoder and label of the evaluation set."""


def missing(profile: Profile, data: Path) -> Missing:
    """Rows of the profile that cannot be measured here, with one reason per thing that is missing.

    ``data`` holds the prepared data sets. What an autoencoder is trained on is never optional, nor is a folder of
    images that the user names and that is not there: those fail where they are used, with their own error. Raises
    :class:`WeightsError` when the record of fetched weights cannot be read.
    """
    found: Missing = {}
    for name, entry in profile.autoencoders.items():
        for item in profile.sets_of(name):
            reasons = []
            if item.dataset not in profile.trained_on() and (reason := _data_reason(profile, item.dataset, data)):
                reasons.append(reason)
            if entry.weights != "retrained":
                reasons += _lacking(profile, LatentSource(name, entry.weights))
                if profile.evaluation.protocol == PAPER and not inception_weights.here():
                    reasons.append(INCEPTION_REASON)
            if reasons:
                found[name, item.label] = tuple(reasons)
    return found


def missing_rows(profile: Profile, data: Path) -> dict[str, tuple[str, ...]]:
    """Rows of the profile's diffusion part that cannot be run here, with one reason per thing that is missing.

    The same is optional as in :func:`missing`, of which this is the other half. Raises :class:`WeightsError`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for row in profile.diffusion.rows if profile.diffusion else ():
        plan = profile.row(row)
        reasons = [
            reason
            for dataset in plan.data.datasets
            if dataset not in profile.trained_on()
            and (reason := _data_reason(profile, dataset, data, plan.data.split)) is not None
        ]
        reasons += _lacking(profile, plan.row.source)
        if isinstance(plan, ReleasedPlan) and not weights.here(plan.row.released):
            reasons.append(_weights_reason(plan.row.released))
        if profile.evaluation.protocol == PAPER and not inception_weights.here():
            reasons.append(INCEPTION_REASON)
        if reasons:
            found[row] = tuple(reasons)
    return found


def _lacking(profile: Profile, source: LatentSource) -> Sequence[str]:
    """What is missing of an autoencoder's weights, unless a training makes them."""
    name = source.autoencoder
    if source.weights == "own":
        return own_files(name, profile.autoencoders[name]).missing
    return [_weights_reason(name)] if source.weights == "released" and not weights.here(name) else []


def _data_reason(profile: Profile, name: str, data: Path, split: Literal["train", "eval"] = "eval") -> str | None:
    dataset = external_datasets().get(name)
    if dataset is None or name in profile.data_roots or _prepared(data / name / f"{split}.json"):
        return None
    root = dataset.root(profile.data_roots)
    if root is not None and root.is_dir():
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
    """Whether a manifest was written and the folder of its images is still there."""
    try:
        return Path(json.loads(index.read_text())["root"]).is_dir()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _weights_reason(name: str) -> str:
    released = weights.released()[name]
    if released.address is not None:
        remedy = f"get {released.file} from {released.address}, then `dcae-bench weights fetch {name} --path FILE`"
    else:
        remedy = f"`dcae-bench weights fetch {name}`"
    return f"released weights of {name} are not here: {remedy}"
