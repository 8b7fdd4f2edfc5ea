"""The rule of Market-1501, from the manifest to every number: the query's own camera gives no answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from handreid.data.manifest import Manifest, read
from handreid.data.splits import Split, make_split
from handreid.errors import ProtocolError, RunError
from handreid.evaluation.compare import compare, read_scores
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.sections.reranking import read_reranked
from handreid.metrics.query_scores import score
from handreid.recipe import Recipe, parse_recipe, read_rerank
from handreid.report.compare.runs import compare_runs
from handreid.report.figures.strip_selection import strip_of
from handreid.report.photos.confusion import most_confused
from handreid.report.photos.test_photos import load_test_photos
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.plain_results import crossed as crossed_by
from tests.plain_results import evaluated, typed


def table(rows: list[tuple[str, str, str | None, str]]) -> Manifest:
    return Manifest(pl.DataFrame(rows, ["path", "subject", "camera", "split"], orient="row"), Path("photos"))


def market() -> Manifest:
    """A split as Market-1501's: queries, and a gallery with several photos of each identity from several cameras."""
    rows = [(f"t{who}{shot}.jpg", f"t{who}", f"c{shot}", "train") for who in range(4) for shot in range(3)]
    for who in range(3):
        rows += [(f"q{who}{shot}.jpg", f"p{who}", f"c{shot}", "query") for shot in range(2)]
        rows += [(f"g{who}{shot}.jpg", f"p{who}", f"c{shot % 3}", "gallery") for shot in range(5)]
    rows += [("one.jpg", "lonely", "c0", "query"), ("same.jpg", "lonely", "c0", "gallery")]
    return table([*rows, ("d.jpg", "stranger", None, "distractor")])


def split_of(manifest: Manifest, cameras: str, **options: object) -> Split:
    return make_split(manifest, protocol="prepared", label="subject", cameras=cameras, **options)


class TestSplit:
    def test_the_default_is_as_it_was(self):
        plain, ignored = make_split(market(), protocol="prepared", label="subject"), split_of(market(), "ignore")
        assert ignored.cameras is None
        assert (plain.draws_hash, plain.hash) == (ignored.draws_hash, ignored.hash)

    def test_hashes_are_of_the_rule_and_the_cameras(self):
        """So that numbers by one rule are never compared with those by the other."""
        ignored, crossed = split_of(market(), "ignore"), split_of(market(), "cross")
        assert crossed.draws_hash != ignored.draws_hash
        assert crossed.hash != ignored.hash
        moved = pl.when(pl.col("path") == "g01.jpg").then(pl.lit("c9")).otherwise("camera").alias("camera")
        other = replace(market(), table=market().table.with_columns(moved))
        assert split_of(other, "cross").draws_hash != crossed.draws_hash
        assert split_of(other, "ignore").draws_hash == ignored.draws_hash

    def test_queries_without_another_camera_are_counted_and_said(self):
        split = split_of(market(), "cross")
        told = [note for note in split.notes if note.startswith("cameras: cross")]
        assert len(told) == 1
        assert "1 of 7 test queries" in told[0]
        assert any(split.paths[row] == "one.jpg" for row in split.test[0].query)

    def test_cameras_that_are_ignored_are_said(self, photos: Path):
        assert any(note.startswith("cameras: ignore") for note in split_of(market(), "ignore").notes)
        without = make_split(read(photos), protocol="disjoint", label="subject")
        assert not any("camera" in note for note in without.notes)

    def test_distractors_need_no_camera(self):
        assert split_of(market(), "cross").cameras is not None

    def test_a_manifest_without_cameras_is_refused(self):
        bare = replace(market(), table=market().table.with_columns(camera=pl.lit(None, pl.String)))
        with pytest.raises(ProtocolError, match=r"gives none of its .* Fill in the column 'camera'"):
            split_of(bare, "cross")

    def test_cameras_that_are_missing_are_named(self):
        gone = pl.when(pl.col("path") == "g01.jpg").then(None).otherwise("camera").alias("camera")
        some = replace(market(), table=market().table.with_columns(gone))
        with pytest.raises(ProtocolError, match=r"1 without, such as g01\.jpg"):
            split_of(some, "cross")

    def test_one_camera_for_all_leaves_nothing(self):
        one = replace(market(), table=market().table.with_columns(camera=pl.lit("c0")))
        with pytest.raises(ProtocolError, match="leaves no test query with a right answer"):
            split_of(one, "cross")


def test_scores_are_those_of_a_gallery_without_the_querys_own_camera():
    split = split_of(market(), "cross")
    rows = np.unique(np.concatenate([split.test[0].gallery, split.test[0].query]))
    embeddings = np.random.default_rng(0).normal(size=(len(rows), 6)).astype(np.float32)
    found = score(embeddings, rows, split.test, split.identities, cameras=split.cameras)
    unit = dict(zip(rows.tolist(), embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), strict=True))
    for query, ranks in zip(split.test[0].query, found.ranks, strict=True):
        left = [
            row
            for row, out in zip(split.test[0].gallery, split.left_out(int(query), split.test[0].gallery), strict=True)
            if not out
        ]
        order = sorted(left, key=lambda row: -float(unit[row] @ unit[query]))
        right = [place for place, row in enumerate(order, 1) if split.identities[row] == split.identities[query]]
        assert list(ranks) == right
    assert [split.paths[query] for query, ranks in zip(split.test[0].query, found.ranks, strict=True) if not ranks] == [
        "one.jpg"
    ]


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ("stages.0.epochs=1", *overrides))


@pytest.fixture(scope="module")
def crossed(cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train(micro("data.cameras=cross"), cameras, tmp_path_factory.mktemp("cameras") / "crossed")
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def ignoring(cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train(micro("name=ignoring"), cameras, tmp_path_factory.mktemp("cameras") / "ignoring")
    evaluate(run)
    return run


class TestARun:
    def test_the_recipes_rule_is_in_its_evaluation(self, crossed: Run, ignoring: Run):
        found, plain = (json.loads(run.evaluation.read_text()) for run in (crossed, ignoring))
        assert (found["protocol"]["cameras"], plain["protocol"]["cameras"]) == ("cross", "ignore")
        assert found["counts"]["unanswerable"] > 0 == plain["counts"]["unanswerable"]
        empty = sum(not ranks for draw in found["draws"] for ranks in draw["ranks"])
        assert empty == found["counts"]["unanswerable"]
        assert any(note.startswith("cameras: cross") for note in found["notes"])
        assert any(note.startswith("cameras: ignore") for note in plain["notes"])
        again = read_scores(typed(found)).means()
        assert again == pytest.approx({name: one["value"] for name, one in found["metrics"].items()})

    def test_validation_follows_it(self, crossed: Run, ignoring: Run):
        assert crossed.facts["split_hash"] != ignoring.facts["split_hash"]
        values = json.loads(crossed.metrics.read_text().splitlines()[-1])
        assert 0 <= values["validation_map"] <= 1

    def test_it_can_be_asked_for_and_has_a_file_of_its_own(self, ignoring: Run):
        called = handreid("evaluate", ignoring.folder, "--cameras", "cross", "--rerank", "gallery-expansion=2")
        assert called.code == 0, called.err
        assert "cameras crossed" in called.out
        (path,) = ignoring.folder.glob("evaluation-*-cameras-cross-gallery-expansion-2-nearest.json")
        found = json.loads(path.read_text())
        assert found["protocol"]["cameras"] == "cross"
        path, same = evaluated(ignoring, changes={"cameras": "ignore"})
        assert path == ignoring.evaluation
        assert same["protocol"]["cameras"] == "ignore"

    def test_re_ranking_and_expansion_leave_out_the_same(self, ignoring: Run):
        ways = [read_rerank(text) for text in ("k1=3,k2=2", "expansion=2", "gallery-expansion=2")]
        _, found = evaluated(ignoring, changes={"cameras": "cross"}, rerank=ways)
        found = json.loads(json.dumps(found))
        plain = [len(ranks) for draw in found["draws"] for ranks in draw["ranks"]]
        for number, entry in enumerate(found["reranked"]):
            again = read_reranked(typed(found), number)
            assert [len(ranks) for ranks in again.ranks] == plain
            assert again.means() == pytest.approx({name: one["value"] for name, one in entry["metrics"].items()})

    def test_two_rules_are_not_compared(self, crossed: Run, ignoring: Run):
        ours, theirs = (typed(json.loads(run.evaluation.read_text())) for run in (crossed, ignoring))
        with pytest.raises(RunError, match="different draws"):
            compare(ours, theirs)
        with pytest.raises(RunError, match="cameras cross for ignore"):
            compare_runs([ignoring.folder, crossed.folder])

    def test_pictures_rank_as_the_evaluation_does(self, crossed: Run):
        tested, found = load_test_photos(crossed), json.loads(crossed.evaluation.read_text())
        for number, draw in enumerate(found["draws"]):
            for row, ranks in zip(draw["query"], draw["ranks"], strict=True):
                strip = strip_of(tested, found["photos"][row], draw=number)
                assert (strip.rank, strip.matches) == (ranks[0] if ranks else None, len(ranks))
        wrong = sum(bool(ranks) and ranks[0] > 1 for draw in found["draws"] for ranks in draw["ranks"])
        assert sum(mixed.wrong for mixed in most_confused(tested, top=999)) == wrong

    def test_without_cameras_it_is_one_line(self, photos: Path, tmp_path: Path):
        run = train(micro("name=bare"), photos, tmp_path / "run")
        line = complaint("evaluate", run.folder, "--cameras", "cross")
        assert line.startswith("ProtocolError: cameras: cross needs the camera of every test and validation photo")


def test_a_matrix_follows_the_rule(hard_photos: Path, tmp_path: Path):
    made = read(hard_photos)
    shot = pl.Series("camera", [f"c{row % 3}" for row in range(len(made))])
    replace(made, table=made.table.with_columns(shot)).write(tmp_path / "cameras.parquet")
    run = train(micro("stages=[]", "name=zero"), tmp_path / "cameras.parquet", tmp_path / "run")
    plain_path, plain = crossed_by(run, "view")
    path, found = crossed_by(run, "view", cameras="cross")
    assert path != plain_path
    assert path.name.endswith("-cameras-cross.json")
    assert (plain["cameras"], found["cameras"]) == ("ignore", "cross")
    assert found["hashes"]["draws"] != plain["hashes"]["draws"]
    lost = [cell["counts"]["unanswerable"] for cell in found["cells"] if cell["metrics"]]
    assert sum(lost) > 0 == sum(cell["counts"]["unanswerable"] for cell in plain["cells"] if cell["metrics"])
