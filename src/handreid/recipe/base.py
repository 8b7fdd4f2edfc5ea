"""The base class and common types of all parts of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handreid.errors import RecipeError
from handreid.recipe.explain import explained

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Size = int | tuple[int, int]
FeatureName = Literal["joint", "pooled", "penultimate", "parts"]
Neck = Literal["before", "after"]
Inference = Literal["composed", "fixed"]


class Value(BaseModel):
    """The constructor raises RecipeError for wrong values; `model_validate` raises pydantic's own error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            where, model = type(self).__name__, type(self)
            raise RecipeError(explained(error, None, where, values, model)) from None

    # otherwise pydantic calls it for parts of a whole that it validates, which would end at the first error
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
