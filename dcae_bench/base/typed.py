"""Strict base class of every typed file content, and field types that several files share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """A typed value from a file: refuses unknown keys, cannot change after reading, and holds finite numbers only.

    JSON would store a non-finite number as null, which no reader accepts. Such a number therefore fails here, where
    it arises.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
