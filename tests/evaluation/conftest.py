"""Crops from memory, a cheap extractor, an evaluator of both, a tiny profile with its weights, and refused commands."""

from tests.fixtures.commands import refused  # noqa: F401
from tests.fixtures.evaluation import (  # noqa: F401
    another_cache,
    crops,
    evaluator,
    images,
    lpips,
    make_crops,
    metrics_of,
    own_cache,
    server,
    suite,
    tiny,
)
