"""Pre-training: terms are their definitions, nothing leaks, collapse is named, resuming is exact, towers are handed on."""

import copy
import json
import math
from pathlib import Path

from dataclasses import replace
import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from handreid.data.manifest import read
from handreid.errors import CheckError, ProtocolError, RecipeError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.files import read_json
from handreid.models.embedder import Embedder
from handreid.objectives.momentum_contrast import momentum_contrast
from handreid.objectives.supcon import supervised_contrast
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.conftest import MICRO_RECIPE
from tests.training.resumed import whole_and_resumed
from tests.training.test_train import history

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

COMMON = (
    "epochs: 2, optimizer: {kind: adamw, lr: 1.0e-3, schedule: {kind: cosine}}, augment: [{kind: crop, enlarge: 1.25}]"
)
SUPCON = (
    "{kind: pretrain, terms: [{kind: supcon, hidden: 32, width: 16}], sampler: {kind: pk, identities: 4, images: 2}, "
    + COMMON
    + "}"
)
MOCO = (
    "{kind: pretrain, terms: [{kind: moco, queue: 12, momentum: 0.9, hidden: 32, width: 16}], batch_size: 8, "
    + COMMON
    + "}"
)


def recipe_of(*stages: str, **keys: str) -> Recipe:
    overrides = [f"{name}={value}" for name, value in keys.items()]
    return parse_recipe(MICRO_RECIPE, "micro", [f"stages=[{', '.join(stages)}]", *overrides])



@pytest.fixture(scope="session")
def captioned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, with one or two wordings each."""
    made = read(photos)
    names = [chr(97 + row // 4) for row in range(len(made))]
    words = [f"a photo of hand {name}" + (f" | hand {name}" if row % 2 else "") for row, name in enumerate(names)]
    path = made.root / "captioned.parquet"
    replace(made, table=made.table.with_columns(pl.Series("caption", words))).write(path)
    return path


V3 = MOCO.replace("queue: 12", "version: v3")
TEXT = (
    "{kind: pretrain, learns: both, terms: [{kind: image_text}, {kind: supcon, labels: photo, weight: 0.5, hidden: 32, "
    "width: 16}], batch_size: 8, " + COMMON + "}"
)
LIT = "{kind: pretrain, learns: text, terms: [{kind: image_text, loss: siglip}], batch_size: 8, " + COMMON + "}"


@pytest.mark.parametrize("stage", [SUPCON, MOCO, V3, TEXT, LIT], ids=["supcon", "moco", "v3", "image_text", "lit"])
def test_it_resumes_to_the_same_bits(stage: str, captioned: Path, tmp_path: Path):
    whole, resumed = whole_and_resumed(recipe_of(stage), captioned, tmp_path, epoch=1)
    assert whole.model.read_bytes() == resumed.model.read_bytes()
    print(history(whole.folder))
    print([(c["name"],c["found"]) for c in json.loads((whole.folder/"stages/0-pretrain/checks.json").read_text())["checks"]])
