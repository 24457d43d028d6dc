"""Crops from memory, a cheap extractor, an evaluator of both, and a tiny profile with its weights."""

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
