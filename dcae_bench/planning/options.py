"""Options of a Snakemake call, checked before the first job, and the words that rules make of values."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dcae_bench.base.errors import ConfigError
from dcae_bench.profile.profile import DEFAULT_PROFILE, Profile
from dcae_bench.running.gpus import usable_gpus

SWEEP = "1,1.25,1.5,2,3"
"""Default guidance scales of a sweep; ``--config scales=...`` names others."""
SCALE = "[0-9]+([.][0-9]+)?"
"""Regular expression of a guidance scale in a path."""


def chosen_profile(config: Mapping[str, Any], configfiles: Sequence[Any]) -> str:
    """Name or file of the profile: from ``--config profile=...``, else the last ``--configfile``, else the default."""
    if "profile" in config:
        return str(config["profile"])
    return str(configfiles[-1]) if configfiles else DEFAULT_PROFILE


OPTIONS = {
    "profile": "profile by name or path",
    "scales": "guidance scales of a sweep",
    "throughput_plan": "plan of timings",
    "degraded": "also show timings in a degraded state",
    "other_configurations": "true: tables also show records of another configuration, marked",
    "adm_batch": "path of another batch of samples for ADM's evaluator",
    "longest_minutes": "longest time limit that a job asks a cluster for",
}
"""What ``--config`` takes, by key."""


def check_options(config: Mapping[str, Any]) -> None:
    """Check the values of ``--config``. Raises :class:`ConfigError` for an unknown key, with the nearest known one."""
    for key in config:
        if key in OPTIONS:
            continue
        if key in Profile.model_fields:
            remedy = "it is a field of profiles; set it in a profile of your own and name that with profile="
        elif close := difflib.get_close_matches(str(key), OPTIONS, n=1):
            remedy = f"did you mean {close[0]}=?"
        else:
            remedy = f"choose from {', '.join(OPTIONS)}"
        raise ConfigError(f"--config {key}={config[key]}: there is no such key; {remedy}")
    sweep_scales(config.get("scales", SWEEP))
    longest_minutes(config)
    for switch in ("degraded", "other_configurations"):
        if not isinstance(shown := config.get(switch, False), bool):
            raise ConfigError(f"--config {switch}={shown}: is neither True nor False")


def gpu_limit() -> int:
    """GPUs that jobs of a run on this machine take at a time: all that it may use; 0 where there are none.

    Snakemake gives a job that wants more as many as there are, which is what its command takes. Raises
    :class:`MeasurementError` where ``CUDA_VISIBLE_DEVICES`` does not tell which these are.
    """
    return len(usable_gpus())


def longest_minutes(config: Mapping[str, Any]) -> int | None:
    """Longest time limit of a submitted job; None: as its estimate says. Raises :class:`ConfigError`."""
    minutes = config.get("longest_minutes")
    if minutes is None or (isinstance(minutes, int) and not isinstance(minutes, bool) and minutes > 0):
        return minutes
    raise ConfigError(f"--config longest_minutes={minutes}: is no number of minutes, as in longest_minutes=1440")


def on_shared_volume(storage: str | None) -> bool:
    """Whether Snakemake's default storage is a volume that every job sees. Raises :class:`ConfigError` for others.

    Commands read and keep files beside those that rules declare, and a bucket would hold the declared ones alone.
    """
    if storage not in (None, "fs"):
        raise ConfigError(
            f"--default-storage-provider {storage}: results lie on a volume that all jobs share; name fs, as "
            "profiles/kubernetes does"
        )
    return storage is not None


def any_of(names: Iterable[str]) -> str:
    """Regular expression for a wildcard that must be one of the names; without names it matches nothing."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def option(name: str, *values: object) -> list[str]:
    """Words of a command line that give an option once per value. Empty values are left out.

    Rules quote every word (``:q``), because names and paths may contain characters that are special to a shell.
    """
    return [word for value in values if value for word in (f"--{name}", str(value))]


def sweep_scales(scales: object = SWEEP) -> list[str]:
    """Guidance scales as paths spell them. Raises :class:`ConfigError` for anything but a list of scales."""
    try:
        spelled = [f"{float(scale):g}" for scale in str(scales).split(",")]
    except ValueError as error:
        raise ConfigError(f"--config scales={scales}: is not a list of numbers, as in scales={SWEEP}") from error
    for scale in spelled:
        if not re.fullmatch(SCALE, scale):
            raise ConfigError(f"--config scales={scales}: {scale} is no scale of guidance; name scales as in {SWEEP}")
    return spelled
