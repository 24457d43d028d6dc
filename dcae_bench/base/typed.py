"""Strict base class of every typed file content, and field types that several files share."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=100)]
"""A name that stands in paths; file systems limit its length."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Beta = Annotated[float, Field(ge=0, lt=1)]


LARGEST = 2**63 - 1
"""Largest whole number of a field: no library takes a larger one."""


class Strict(BaseModel):
    """A typed value from a file: refuses unknown keys, cannot change after reading, and holds finite numbers only.

    JSON would store a non-finite number as null, which no reader accepts. Such a number therefore fails here, where
    it arises.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_fit_64_bits(self) -> Self:
        for name, value in self.__dict__.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and abs(number) > LARGEST:
                    raise ValueError(f"{name} is a number of more than 63 bits; take a smaller one")
        return self
