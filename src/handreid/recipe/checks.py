"""Checks before training."""

from typing import Literal, get_args

from pydantic import Field

from handreid.recipe.base import Value

CheckName = Literal[
    "subject_disjoint",
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
    "views",
    "queue",
    "key_encoder",
]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)


class Checks(Value):
    """Checks before the first step of every stage; see [checks](checks.md)."""

    skip: tuple[CheckName, ...] = Field(())
    """Checks to skip, if one does not apply to an objective of your own."""
