"""The path of a network, as records hold it: plain eager PyTorch, or a fast way that agreed with it."""

from typing import Literal

from pydantic import Field

from dcae_bench.base.typed import Strict

PathRequest = Literal["auto", "eager", "fast"]
"""What the user asks for. ``auto``: fast on a GPU where it agrees with eager, and eager elsewhere."""


class PathAgreement(Strict):
    """Error of the fast path against eager PyTorch on the first batch, both in the same precision."""

    what: str = Field(description="the two outputs that were compared")
    error: float = Field(ge=0, description="largest relative root mean square error")
    limit: float = Field(gt=0, description="largest error at which the fast path is taken")


class ComputePath(Strict):
    """How a network was computed. Both paths compute the same function; the last bits of their results differ."""

    name: Literal["eager", "fast"]
    how: str = Field(description="what was computed how, e.g. compiled blocks, CUDA graph")
    agreement: PathAgreement | None = Field(default=None, description="null: the fast path was not tried, or failed")
    reason: str | None = Field(default=None, description="why the path is eager; null: it is fast")

    @property
    def described(self) -> str:
        """The path in a few words, as commands print it."""
        if self.agreement is None:
            return self.name
        return f"{self.name} (error {self.agreement.error:.2g}, limit {self.agreement.limit:g})"
