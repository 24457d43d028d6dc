"""What the typed parts of a profile share: their base class and the types of their fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# AlexNet and VGG16 leave nothing of a smaller image.
LPIPS_MIN_RESOLUTION = 32

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Model(BaseModel):
    """Part of a profile: unknown keys are refused, nothing changes after reading, every number is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
