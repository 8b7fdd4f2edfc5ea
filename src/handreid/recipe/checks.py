"""What is checked before anything is trained."""

from typing import Literal, get_args

from pydantic import Field

from handreid.recipe.base import Value

GateName = Literal[
    "strangers",
    "labels",
    "preprocessing",
    "pairs",
    "optimised",
    "rates",
    "gradients",
    "loss",
    "texts",
    "clipping",
    "frozen",
]
GATES: tuple[GateName, ...] = get_args(GateName)


class Gates(Value):
    """Checks before the first step of every stage; see [checks](checks.md)."""

    skip: tuple[GateName, ...] = Field(())
    """Checks to skip, if one does not apply to an objective of your own."""
