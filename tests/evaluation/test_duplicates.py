"""Photos known by what is on them: copies of a file are one photo in the numbers, and are embedded once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handreid import inference
from handreid.data import sources
from handreid.evaluation.compare import compare
from handreid.evaluation.evaluate import evaluate
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.conftest import MICRO_RECIPE
from tests.plain_results import evaluated, typed

PEOPLE, SHOTS = 5, 5


def photo(person: int, shot: int) -> Image.Image:
    base = np.tile(np.random.default_rng(person).integers(122, 134, (1, 1, 3)), (40, 48, 1)).astype(float)
    base[:, 3 * person :][:, :6] += np.random.default_rng(person).integers(-25, 25, 3)
    noisy = base + np.random.default_rng([person, shot]).normal(0, 60, base.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def save(root: Path, where: str, person: int, shot: int, suffix: str = "png") -> Path:
    path = root / where / f"p{person:02d}" / f"{shot}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(person, shot).save(path)
    return path


def prepared(root: Path, draws: int) -> Path:
    """A tree as the papers' scripts leave it: every test photo is in each draw, as a query or in the gallery."""
    for person in range(7):
        for shot in range(4):
            save(root, "train" if person < 5 else "val", person, shot)
    for draw in range(draws):
        for person in range(7, 7 + PEOPLE):
            for shot in range(SHOTS):
                save(root, f"gallery{draw}_all" if shot == draw else f"query{draw}", person, shot)
    path = root / "manifest.parquet"
    sources.folders(root).write(path)
    return path


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ("stages.0.epochs=1", "data.protocol=prepared", *overrides))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """A run on a tree with five copies of each photo, its evaluation, and that of a tree with one."""
    root = tmp_path_factory.mktemp("copies")
    run = train(micro(), prepared(root / "copies", 5), root / "run")
    _, copies = evaluated(run)
    _, once = evaluated(run, data=prepared(root / "once", 1))
    return run, json.loads(json.dumps(copies)), json.loads(json.dumps(once))


class TestPreparedTrees:
    def test_the_numbers_of_the_space_are_those_of_the_distinct_photos(self, trees: Any):
        _, copies, once = trees
        assert copies["separation"]["counts"] == once["separation"]["counts"]
        assert copies["separation"]["counts"]["photos"] == PEOPLE * SHOTS
        for name, of in copies["separation"]["numbers"].items():
            assert of == pytest.approx(once["separation"]["numbers"][name], rel=1e-5), name

    def test_ranks_are_those_of_every_draw_as_given(self, trees: Any):
        _, copies, once = trees
        assert copies["draws"][0]["ranks"] == once["draws"][0]["ranks"]
        assert (copies["counts"]["draws"], once["counts"]["draws"]) == (5, 1)

    def test_they_are_said(self, trees: Any):
        _, copies, once = trees
        assert any(note.startswith("125 test photos are 25 different pictures") for note in copies["notes"])
        assert not any("different pictures" in note for note in once["notes"])
        assert not any("LEAK" in note for note in copies["notes"])

    def test_each_is_decoded_and_embedded_once(self, trees: Any, monkeypatch: pytest.MonkeyPatch):
        run, _, _ = trees
        run.embeddings.unlink()
        counted = {"decode_rows": 0, "embed_rows": 0}

        def counting(name: str, work: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
            def counted_work(*arguments: Any) -> np.ndarray:
                found = work(*arguments)
                counted[name] += len(found)
                return found

            return counted_work

        for name in counted:
            monkeypatch.setattr(inference, name, counting(name, getattr(inference, name)))
        evaluate(run)
        assert counted == {"decode_rows": PEOPLE * SHOTS, "embed_rows": PEOPLE * SHOTS}

    def test_an_evaluation_that_counted_copies_is_compared_without_its_space(self, trees: Any):
        _, copies, _ = trees
        older = json.loads(json.dumps(copies))
        older["separation"]["subjects"]["photos"] = [5 * count for count in older["separation"]["subjects"]["photos"]]
        assert "ratio" not in compare(typed(copies), typed(older))
        assert "ratio" in compare(typed(copies), typed(copies))


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_query_whose_own_photo_is_in_the_gallery_is_said(suffix: str, tmp_path: Path):
    """Also where it is another file of the same picture."""
    path = prepared(tmp_path / "tree", 1)
    save(tmp_path / "tree", "gallery0_all", 7, 3, suffix)
    if suffix == "png":
        source = tmp_path / "tree" / "query0" / "p08" / "2.png"
        shutil.copyfile(source, tmp_path / "tree" / "gallery0_all" / "p09" / "other.png")
    sources.folders(tmp_path / "tree").write(path)
    _, found = evaluated(train(micro("stages=[]"), path, tmp_path / "run"))
    (note,) = [note for note in found["notes"] if note.startswith("LEAK")]
    assert note.startswith("LEAK: 1 of 20 queries (of all draws) have an identical picture in their gallery")
    others = [note for note in found["notes"] if "under another identity" in note]
    assert len(others) == (suffix == "png")


class TestEvaluationsWithFewerMetrics:
    """They know neither all metrics, nor cameras, nor ranks of identities, and are compared all the same."""

    @staticmethod
    def older(found: dict[str, Any]) -> dict[str, Any]:
        old = json.loads(json.dumps(found))
        for name in ("r_precision", "map_at_r", "identity_rank1", "identity_rank5", "identity_rank10"):
            for part in (old, *old["views"].values()):
                del part["metrics"][name]
        del old["protocol"]["cameras"]
        for draw in old["draws"]:
            del draw["identity_ranks"]
        return old

    def test_they_are_compared_in_what_they_have(self, trees: Any):
        _, found, _ = trees
        for ours, theirs in ((found, self.older(found)), (self.older(found), found)):
            assert {"rank1", "map", "r_precision"} <= compare(typed(ours), typed(theirs)).keys()
            assert "identity_rank5" not in compare(typed(ours), typed(theirs))

    def test_the_tables_of_them_are_those_they_were(self, trees: Any):
        from handreid.cli.tables import print_evaluation
        from handreid.evaluation.compare import Rung
        from handreid.evaluation.tables.ladder import columns, markdown

        _, found, _ = trees
        old = Rung("old", typed(self.older(found)), None)
        assert columns([old])[1:6] == ["rank-1", "rank-5", "mAP", "mAP trapezoid", "mINP"]
        assert len(columns([old])) == 7
        assert "| old |" in markdown([old, Rung("new", typed(found), compare(typed(found), old.evaluation))])
        print_evaluation(old.evaluation)
