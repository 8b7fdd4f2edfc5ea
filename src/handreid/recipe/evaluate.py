"""The evaluation of a run."""

from string import Formatter
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from handreid.recipe.base import Value
from handreid.recipe.rerank import Rerank, with_kinds


class Prompts(Value):
    """Handcrafted sentences for zero-shot view classification; `{aspect}`, `{surface}` and `{side}` are filled in."""

    templates: tuple[str, ...] = (
        "A photo of a {aspect} {side} hand of a person.",
        "A photo of the {surface} of a {side} hand.",
        "The {surface} of a person's {side} hand on a table.",
        "A close photo of a {side} human hand, {aspect} view.",
    )
    """Each with `{side}`, and `{aspect}` (dorsal, palmar) or `{surface}` (back, palm); their average is scored too."""

    @model_validator(mode="after")
    def _templates_have_places(self) -> "Prompts":
        for template in self.templates:
            try:
                _check_places(template)
                sides = {template.format(aspect=a, side=s, surface=a) for a in ("x", "y") for s in ("u", "v")}
            except ValueError as error:
                places = "{aspect}, {surface} and {side}"
                raise ValueError(f"template {template!r}: only {places} can be filled in") from error
            if len(sides) < 4:
                raise ValueError(f"template {template!r} must use {{side}}, and {{aspect}} or {{surface}}")
        return self


def _check_places(template: str) -> None:
    """Raises ValueError for an unknown place, and for one with a format or a conversion."""
    for _, name, layout, conversion in Formatter().parse(template):
        if name is not None and (name not in ("aspect", "surface", "side") or layout or conversion):
            raise ValueError(f"{{{name}}}")


class Evaluate(Value):
    """How a run is evaluated."""

    draws: int = Field(10, ge=1)
    """Number of gallery draws; scores are means over them."""
    flip_tta: bool = False
    """Flip test-time augmentation: the features of photo and mirrored photo, summed."""
    prompts: Prompts | None = None
    """Zero-shot view classification by the text tower; `{}` for the built-in sentences, null for none."""
    rerank: Annotated[tuple[Rerank, ...], BeforeValidator(with_kinds)] = ()
    """Re-ranking, one mapping or several; reported in addition to the plain ranking."""
    resamples: int = Field(10_000, ge=100)
    """Number of resamples of the subjects for each interval."""
    batch_size: int = Field(64, ge=1)
    """Photos embedded at a time; affects memory, not scores."""

    @model_validator(mode="after")
    def _nothing_is_done_twice(self) -> "Evaluate":
        twice = next((method.words for method in self.rerank if self.rerank.count(method) > 1), None)
        if twice:
            raise ValueError(f"rerank lists {twice} twice: list it once")
        return self
