"""Rendered hands with exact landmarks, and a run that aligns them and mirrors left ones."""

from pathlib import Path

import pytest

from handreid.data import sources
from handreid.data.rendered import render
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.conftest import MICRO_RECIPE

CANONICAL = ("model.preprocess.align=hand", "model.preprocess.chirality=canonical")


def short_recipe(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ("stages.0.epochs=1", "evaluate.draws=1", *overrides))


@pytest.fixture(scope="session")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 10 people, 4 photos each."""
    table = render(tmp_path_factory.mktemp("hands") / "all", identities=10, photos=4, size=64, workers=1)
    path = table.with_name("hands.parquet")
    sources.csv(table).write(path)
    return path


@pytest.fixture(scope="session")
def canonical(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = short_recipe(*CANONICAL, "model.preprocess.without_hand=as_is")
    return train(recipe, hands, tmp_path_factory.mktemp("runs") / "canonical")
