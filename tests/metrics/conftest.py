"""A cache of the session's own, and pairs of photographs."""

from tests.fixtures.metrics import empty_cache, photo_pairs, rng, session_cache  # noqa: F401
