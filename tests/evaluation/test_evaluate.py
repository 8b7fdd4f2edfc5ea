"""Evaluation of runs: scores from embeddings, what is written down, the ladder, zero-shot words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import average_precision_score

from handreid.build import build_embedder, build_towers
from handreid.data.manifest import read
from handreid.data.prompt_text import VIEWS
from handreid.draw import Draw
from handreid.errors import DataError, ProtocolError, RunError
from handreid.evaluation.compare import Rung, compare, read_scores
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.sections.zero_shot import classify, view_index
from handreid.evaluation.tables.format import format_number
from handreid.evaluation.tables.ladder import markdown
from handreid.files import read_json, write_text
from handreid.metric_table import RANKING
from handreid.metrics.query_scores import score, summarise_scores
from handreid.models.extraction import embed_photos
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.folder import open_run
from handreid.runs.results import Number, read_evaluation
from handreid.training.train import train
from handreid.workflows.ladder import run_ladder
from tests.conftest import MICRO_RECIPE
from tests.plain_results import evaluated, typed


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", overrides)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assess") / "run"
    train(micro(), photos, folder)
    evaluate(open_run(folder))
    return folder


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


class TestScores:
    IDENTITIES = ("a", "b", "c", "a", "b", "a", "d")

    def test_against_scikit_learn_on_every_draw(self):
        rng = np.random.default_rng(0)
        embeddings = rng.normal(size=(7, 5)).astype(np.float32)
        draws = [Draw(rows(0, 1, 2, 6, 5), rows(3, 4)), Draw(rows(3, 4, 2), rows(0, 1, 5))]
        scores = score(embeddings, np.arange(7), draws, self.IDENTITIES)
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        expected = []
        for draw in draws:
            for query in draw.query:
                right = [self.IDENTITIES[g] == self.IDENTITIES[query] for g in draw.gallery]
                expected.append(average_precision_score(right, unit[draw.gallery] @ unit[query]))
        assert scores.metrics["map"] == pytest.approx(expected)
        assert scores.means()["map"] == pytest.approx(np.mean([np.mean(expected[:2]), np.mean(expected[2:])]))

    def test_only_the_photos_that_are_drawn_need_an_embedding(self):
        embeddings = np.eye(4, dtype=np.float32)
        scores = score(embeddings, rows(0, 2, 3, 6), [Draw(rows(0, 2, 6), rows(3))], self.IDENTITIES)
        assert scores.ranks == ((3,),)  # orthogonal to all: ties count against us
        with pytest.raises(DataError, match="was not embedded"):
            score(embeddings, rows(0, 2, 3, 6), [Draw(rows(0, 1), rows(3))], self.IDENTITIES)

    def test_labels_are_names_shared_by_gallery_and_query(self):
        """Trap 10: numbered per folder, `b` is 2 in this gallery and 1 among these queries."""
        embeddings = np.array([[-1, -1], [1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
        scores = score(embeddings, np.arange(5), [Draw(rows(0, 1, 2), rows(3, 4))], ("z", "a", "b", "b", "a"))
        assert scores.metrics["rank1"].tolist() == [1.0, 1.0]

    def test_summaries_have_values_bounds_and_counts(self):
        rng = np.random.default_rng(1)
        draws = [Draw(rows(0, 1, 2, 6), rows(3, 4, 5)), Draw(rows(3, 4, 2, 6), rows(0, 1, 5))]
        scores = score(rng.normal(size=(7, 5)), np.arange(7), draws, self.IDENTITIES)
        found = summarise_scores(scores, np.ones(6, bool), self.IDENTITIES, resamples=500, seed=0)
        assert (found.queries, found.subjects, found.unanswerable) == (3, 2, 0)
        for metric in found.metrics.values():
            assert 0 <= metric.low <= metric.value <= metric.high <= 1


class TestEvaluationFile:
    def test_it_holds_metrics_counts_hashes_and_every_rank(self, run: Path, photos: Path):
        found = read_json(run / "evaluation.json")
        assert list(found["metrics"]) == list(RANKING)
        assert all(m["low"] <= m["value"] <= m["high"] for m in found["metrics"].values())
        assert found["counts"]["draws"] == len(found["draws"]) == 3
        assert {"manifest", "split", "draws", "model"} == set(found["hashes"])
        for draw in found["draws"]:
            assert len(draw["query"]) == len(draw["ranks"]) == found["counts"]["queries"]
            assert all(1 <= rank <= found["counts"]["gallery"] for ranks in draw["ranks"] for rank in ranks)

    def test_metrics_can_be_had_again_from_the_ranks(self, run: Path):
        found = read_json(run / "evaluation.json")
        again = read_scores(typed(found)).means()
        assert again == pytest.approx({name: metric["value"] for name, metric in found["metrics"].items()})

    def test_the_separation_is_of_every_test_photo_once(self, run: Path):
        found = read_json(run / "evaluation.json")
        assert found["separation"]["counts"] == {"photos": 20, "identities": 5, "subjects": 5, "alone": 0}
        assert found["separation"]["subjects"]["photos"] == [4] * 5
        assert set(found["separation"]["subjects"]["name"]) == set(found["subjects"])
        for one in found["separation"]["numbers"].values():
            assert one["low"] <= one["value"] <= one["high"]

    def test_both_average_precisions_keep_their_relation(self, run: Path):
        means = {name: metric["value"] for name, metric in read_json(run / "evaluation.json")["metrics"].items()}
        assert means["map_trapezoid"] == pytest.approx((means["rank1"] + means["mrr"]) / 2)

    def test_other_protocols_get_files_of_their_own(self, run: Path):
        before = (run / "evaluation.json").read_bytes()
        path, _ = evaluate(open_run(run), flip_tta=True)
        assert path.name.endswith("-flip-tta.json")
        assert (run / "evaluation.json").read_bytes() == before

    def test_other_photos_of_the_same_names_get_a_file_of_their_own(self, run: Path, photos: Path):
        before = (run / "evaluation.json").read_bytes()
        manifest = read(photos)
        described = replace(manifest, table=manifest.table.with_columns(pl.lit("night").alias("light")))
        described.write(photos.with_name("described.parquet"))
        path, content = evaluate(open_run(run), data=photos.with_name("described.parquet"))
        hashes = content.hashes
        assert hashes.draws == open_run(run).facts["draws_hash"]
        assert path.name == f"evaluation-disjoint-subject-all-{hashes.draws[:8]}-{hashes.manifest[:8]}.json"
        assert (run / "evaluation.json").read_bytes() == before

    def test_identities_that_were_trained_on_are_refused(self, run: Path, photos: Path, tmp_path: Path):
        """Trap 7, by the back door: the same photos under another split."""
        recipe = (run / "recipe.yaml").read_text()
        other = tmp_path / "run"
        other.mkdir()
        for name in ("run.json", "model.safetensors"):
            (other / name).write_bytes((run / name).read_bytes())
        write_text(other / "recipe.yaml", recipe)
        with pytest.raises(ProtocolError, match="were trained on"):
            evaluate(open_run(other), changes={"seed": 5})

    def test_unfinished_and_absent_runs_say_what_to_do(self, run: Path, tmp_path: Path):
        with pytest.raises(RunError, match="not a run folder"):
            open_run(tmp_path)
        (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
        with pytest.raises(RunError, match="--resume"):
            evaluate(open_run(tmp_path))


class TestLadder:
    def test_it_climbs_compares_and_does_not_run_a_finished_rung_again(self, photos: Path, tmp_path: Path):
        zero = micro("name=zero", "stages=[]", "model.head={kind: linear}", "model.test_feature.neck=before")
        one = micro("name=one", "stages.0.epochs=2")
        rungs = run_ladder([zero, one], photos, tmp_path)
        assert rungs[0].below is None
        assert set(rungs[1].below["rank1"].model_dump()) == {"value", "low", "high", "verdict"}
        made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
        again = run_ladder([zero, one], photos, tmp_path)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == made
        assert [rung.evaluation for rung in again] == [rung.evaluation for rung in rungs]
        assert markdown(rungs) == (tmp_path / "ladder.md").read_text()
        assert [rung["recipe"] for rung in read_json(tmp_path / "ladder.json")["rungs"]] == ["zero", "one"]

    def test_a_run_against_itself_is_within_noise(self, run: Path):
        found = read_evaluation(run / "evaluation.json")
        difference = compare(found, found)["rank1"]
        assert difference.value == 0
        assert difference.verdict == "within noise"

    def test_separation_is_compared_too(self, run: Path):
        found = read_evaluation(run / "evaluation.json")
        same = compare(found, found)
        assert {"ratio", "silhouette"} <= set(same)
        assert {one.verdict for one in same.values()} == {"within noise"}

    def test_a_second_table_tells_of_separation(self, run: Path):
        found = read_evaluation(run / "evaluation.json")
        content = json.loads(found.model_dump_json())
        sums = content["separation"]["subjects"]
        sums["intra"] = [2 * value for value in sums["intra"]]
        sums["silhouette"] = [value - 1 for value in sums["silhouette"]]
        looser = typed(content)
        told = markdown([Rung("loose", looser, None), Rung("tight", found, compare(found, looser))])
        first, second = (part.splitlines() for part in told.split("\n\n")[::2])
        assert [line.split(" | ")[0] for line in first[2:]] == ["| loose", "| tight"]
        assert second[0].startswith("| rung | within (lower) | nearest other (higher) | ratio (lower) |")
        assert len({line.count("|") for line in second}) == 1
        assert second[2].endswith("|  |  |")
        assert second[3].count("better") == 2
        intra = found.separation.numbers["intra"]
        assert f"| {intra.value:.3f} [{intra.low:.3f}, {intra.high:.3f}] |" in second[3]
        assert "20 test photos of 5 identities" in told

    def test_an_evaluation_without_separation_has_blanks(self, run: Path):
        found = read_evaluation(run / "evaluation.json")
        old = found.model_copy(update={"separation": None})
        assert "ratio" not in compare(found, old)
        told = markdown([Rung("old", old, None), Rung("new", found, compare(found, old))])
        assert "| old |" + "  |" * 9 in told
        assert told.count("| new |") == 2
        assert markdown([Rung("old", old, None)]).count("| rung |") == 1

    def test_a_number_that_is_not_defined_is_a_blank(self):
        assert format_number("ratio", Number(value=None, low=None, high=None)) == ""
        assert format_number("ratio", Number(value=0.51234, low=None, high=None)) == "0.512"
        assert format_number("fisher", Number(value=34.56, low=8.0, high=120.0)) == "34.6 [8.000, 120.0]"

    def test_different_draws_are_not_compared(self, run: Path):
        found = read_evaluation(run / "evaluation.json")
        other = found.model_copy(update={"hashes": found.hashes.model_copy(update={"draws": "0" * 64})})
        with pytest.raises(RunError, match="different draws"):
            compare(found, other)

    def test_two_rungs_of_one_name_are_refused(self, photos: Path, tmp_path: Path):
        with pytest.raises(RunError, match="two rungs have the name 'micro'"):
            run_ladder([micro(), micro()], photos, tmp_path)


class TestZeroShot:
    def test_words_that_name_the_view_are_found_and_others_are_not(self):
        basis = np.eye(4, dtype=np.float32)
        views = view_index(["dorsal", "dorsal", "palmar", "palmar"], ["right", "left", "right", "left"])

        def encode(texts: list[str]) -> torch.Tensor:
            return torch.from_numpy(np.stack([basis[VIEWS.index(tuple(text.split()))] for text in texts]))

        (good,) = classify(basis, views, ["{aspect} {side}"], encode)
        assert good.view.all()
        (swapped,) = classify(basis[[1, 0, 3, 2]], views, ["{aspect} {side}"], encode)
        assert not swapped.view.any()
        assert swapped.aspect.all()
        assert not swapped.side.any()

    def test_the_ensemble_averages_the_templates(self):
        encode = {"a": torch.eye(4), "b": 2 * torch.eye(4)[[1, 0, 2, 3]]}
        scores = classify(
            np.eye(4, dtype=np.float32),
            np.arange(4),
            ["a {aspect}{side}", "b {aspect}{side}"],
            lambda texts: encode[texts[0][0]],
        )
        assert [one.template for one in scores] == ["a {aspect}{side}", "b {aspect}{side}", None]
        assert scores[2].view.tolist()[2:] == [True, True]

    def test_photos_of_unknown_view_have_no_right_answer(self):
        assert view_index(["dorsal", None], [None, "left"]).tolist() == [-1, -1]

    def test_a_zero_shot_run_writes_its_prompt_table(self, photos: Path, tmp_path: Path):
        """These photos have no aspect or side: there is nothing to name, and it is not made up."""
        zero = micro("name=zero", "stages=[]", "evaluate.prompts={}")
        run = train(zero, photos, tmp_path / "zero")
        _, found = evaluated(open_run(run.folder))
        assert found["prompts"] == []


def test_the_extractor_takes_no_labels_and_any_batch_size():
    """Trap 5: nothing that is known of a test photo can reach its embedding."""
    embedder = build_embedder(micro(), build_towers(micro()))
    photos = np.random.default_rng(0).integers(0, 255, (7, 3, 32, 32), np.uint8)
    whole, parts = embed_photos(embedder, photos), embed_photos(embedder, photos, batch_size=3)
    assert whole.shape == (7, embedder.dim)
    assert np.allclose(whole, parts, atol=1e-6)
