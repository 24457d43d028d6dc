"""Counted costs on disk, in the user's cache, because counting traces a whole step or pass."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cache_dir, sha256_file, sha256_json, write_text
from dcae_bench.base.reading import read_json
from dcae_bench.base.typed import Strict
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.specs.autoencoders import AutoencoderSpec, CustomSpec, unfolded
from dcae_bench.weights.user_class import source_modules

logger = logging.getLogger(__name__)

COUNTERS = (f"{__package__}.step", f"{__package__}.passes")
"""Modules that count costs; another code of theirs makes a cached cost worthless."""

Cost = TypeVar("Cost", bound=Strict)
"""A kind of cost that is cached on disk."""


def autoencoder_key(spec: AutoencoderSpec) -> list[object]:
    """An autoencoder's part of a cache key: its spec, and for a user's class the hash of the class's code."""
    own = unfolded(spec)
    files = source_modules(own.class_name).values() if isinstance(own, CustomSpec) else ()
    return [spec.model_dump(mode="json"), *map(sha256_file, files)]


def cached(kind: type[Cost], key: Sequence[object], count: Callable[[], Cost]) -> Cost:
    """Read a cost from the user's cache, or count it and write it to the cache.

    Costs counted by other code or by another version of torch are not read.
    """
    key = [*key, torch.__version__, fingerprint(*COUNTERS)]
    path = cache_dir() / "costs" / f"{sha256_json(key)[:24]}.json"
    try:
        kept = read_json(path)
        if kept["sha256"] == sha256_json(kept["cost"]):
            return kind(**kept["cost"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: count again
        pass
    cost = count()
    counted = cost.model_dump(mode="json")
    try:
        write_text(path, json.dumps({"cost": counted, "sha256": sha256_json(counted)}))
    except ResultsError as error:  # a missing cache costs only time
        logger.warning("%s; the cost is counted again next time", error)
    return cost
