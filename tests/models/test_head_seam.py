"""A head from outside the package: a recipe model, a module and a line for each; it trains, is kept and is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field

from handreid.errors import RecipeError
from handreid.evaluation.evaluate import evaluate
from handreid.files import read_json
from handreid.models.embedder import Embedder
from handreid.models.heads import HEADS, Head, Named, named_features
from handreid.recipe import Model, Recipe, load_recipe, parse_recipe
from handreid.recipe.model import Bnneck, HeadValue
from handreid.training.train import train
from handreid.types import Features
from tests.conftest import MICRO_RECIPE


class Scaled(HeadValue):
    """Features of one length, which is learned (Ranjan et al. 2017)."""

    kind: Literal["scaled"] = "scaled"
    length: float = Field(8.0, gt=0)


class ScaledHead(Head):
    def __init__(self, widths: dict[str, int], necked: tuple[str, ...], *, length: float) -> None:
        super().__init__()
        self.before, self.after = widths, {name: widths[name] for name in necked}
        self.length = torch.nn.Parameter(torch.tensor(length))

    def forward(self, features: Features) -> tuple[Named, Named]:
        named = named_features(features, self.before)
        return named, {name: self.length * F.normalize(named[name], dim=1) for name in self.after}


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the kind: the two lines that a head in the package has."""
    monkeypatch.setitem(HEADS, "scaled", ScaledHead)
    field = Model.model_fields["head"]
    before = field.annotation
    field.annotation = Annotated[Scaled | Bnneck, Field(discriminator="kind")]  # type: ignore[assignment]
    field.discriminator = None
    for model in (Model, Recipe):
        model.model_rebuild(force=True)
    yield
    field.annotation, field.discriminator = before, "kind"
    for model in (Model, Recipe):
        model.model_rebuild(force=True)


def test_it_is_trained_kept_and_read(kind: None, photos: Path, tmp_path: Path):
    recipe = parse_recipe(MICRO_RECIPE, "micro", ["model.head={kind: scaled, length: 4}", "stages.0.epochs=2"])
    run = train(recipe, photos, tmp_path / "run")
    assert load_recipe(run.folder / "recipe.yaml") == recipe
    head = Embedder.load(run.model).head
    assert isinstance(head, ScaledHead)
    assert head.length.item() != 4  # it learned
    checks = {
        check["name"]: check["passed"]
        for check in read_json(run.folder / "stages" / "0-fine_tune" / "checks.json")["checks"]
    }
    assert checks["gradients"]
    assert checks["optimised"]
    _, found = evaluate(run)
    assert found.metrics["rank1"].value > 0.3


def test_without_its_lines_it_is_not_known():
    with pytest.raises(RecipeError, match=r"model\.head\.kind 'scaled' is not one of"):
        parse_recipe(MICRO_RECIPE, "micro", ["model.head={kind: scaled}"])
