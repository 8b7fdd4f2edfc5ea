"""What every part of a recipe is made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Size = int | tuple[int, int]
FeatureName = Literal["joint", "pooled", "penultimate", "parts"]
Neck = Literal["before", "after"]
Inference = Literal["composed", "fixed"]


class Value(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )
