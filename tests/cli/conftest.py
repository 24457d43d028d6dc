"""Commands that must fail as a user's error."""

from tests.fixtures.commands import refused  # noqa: F401
