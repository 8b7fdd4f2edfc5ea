"""What every part of a recipe is made of."""

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
    """Raises RecipeError where it is made of values that are wrong; `model_validate` raises pydantic's own error."""

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

    # pydantic would else call it for parts of what is validated as a whole, which then ends at the first thing wrong
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
