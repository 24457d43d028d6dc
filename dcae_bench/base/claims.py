"""Claims: what this process may write only while it holds a lock. They are checked before others can see a write.

The locks belong to a room above; this module lets whoever writes a file ask for them.
"""

from typing import Protocol


class Claim(Protocol):
    """A lock that this process holds."""

    def require(self) -> None:
        """Raise :class:`ResultsError` if the lock is lost, as a process that was suspended may lose it."""
        ...


_held: list[Claim] = []


def hold(claim: Claim) -> None:
    """Check ``claim`` before each write from now on."""
    _held.append(claim)


def give_back(claim: Claim) -> None:
    """Check ``claim`` no longer."""
    if claim in _held:
        _held.remove(claim)


def require_claims() -> None:
    """Check that no lock of this process is lost. Raises :class:`ResultsError`."""
    for claim in tuple(_held):
        claim.require()
