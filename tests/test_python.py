"""The front door: what `import handreid` offers, and that docs/python.md, the README and the example say what is so."""

import importlib
import inspect
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import handreid
from handreid.data.manifest import read
from handreid.errors import DataError, ManifestError, PhotoError, RecipeError, RunError, WeightsError
from handreid.metrics.intervals import intervals
from handreid.metrics.k_reciprocal import rerank as rerank_distances
from handreid.metrics.k_reciprocal import rerank_matches
from handreid.metrics.query_expansion import expand, expand_gallery
from handreid.metrics.ranking import rank_matches
from handreid.metrics.ranking_metrics import metrics as metrics_of
from handreid.models.embedder import Embedder
from handreid.recipe import (
    CrossEntropy,
    Data,
    FineTune,
    GalleryExpansion,
    KReciprocal,
    QueryExpansion,
    Triplet,
    parse_recipe,
)
from handreid.runs.folder import Run
from tests.conftest import MICRO_RECIPE
from tests.test_docs import ROOT, blocks

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
PAGE = ROOT / "docs" / "python.md"
NAMES = {"Recipe", "load_recipe", "train", "evaluate", "Embedder", "embed", "rank", "rerank", "metrics"} | {
    "read_manifest",
    "Manifest",
    "HandreidError",
}


class TestTheDoor:
    def test_it_offers_what_the_page_says(self):
        assert set(handreid.__all__) == NAMES
        told = set(re.findall(r"`(\w+)`", PAGE.read_text().split("| name | what it does |")[1].split("\n\n")[0]))
        assert told == NAMES
        assert set(dir(handreid)) >= NAMES

    def test_type_checkers_see_what_is_there(self):
        lines = re.findall(r"^    from (\S+) import (\w+) as \2$", Path(handreid.__file__).read_text(), re.M)
        assert {name for _, name in lines} == NAMES
        for module, name in lines:
            if name != "metrics":
                assert getattr(handreid, name) is getattr(importlib.import_module(module), name)

    @pytest.mark.parametrize("name", sorted(NAMES))
    def test_it_is_typed_and_described(self, name: str):
        offered = (
            getattr(handreid, name)
            if name != "metrics"
            else importlib.import_module("handreid.metrics.summary").metrics
        )
        assert inspect.getdoc(offered)
        if not inspect.isclass(offered):
            hints = inspect.signature(offered)
            assert hints.return_annotation is not inspect.Signature.empty
            assert all(one.annotation is not inspect.Parameter.empty for one in hints.parameters.values())

    def test_metrics_is_a_function_and_a_package(self):
        from handreid.metrics import ranking

        assert inspect.signature(handreid.metrics) == inspect.signature(
            importlib.import_module("handreid.metrics.summary").metrics
        )
        assert handreid.metrics.ranking is ranking

    def test_importing_it_imports_nothing_heavy(self):
        code = (
            "import sys; import handreid\n"
            "early = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'handreid'}\n"
            "handreid.Recipe, handreid.rank, handreid.metrics, handreid.HandreidError\n"
            "print(early & {'torch', 'polars', 'pydantic', 'numpy', 'PIL', 'yaml'}, 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["set()", "False"]

    def test_what_is_not_there_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="no attribute 'emded'"):
            _ = handreid.emded


class TestRecipesBuiltInPython:
    @pytest.mark.parametrize(
        ("build", "complaint"),
        [
            (lambda: FineTune(epoch=3), "FineTune: unknown key 'epoch'; did you mean 'epochs'?"),
            (lambda: FineTune(epochs=0), "FineTune: epochs is 0: Input should be greater than or equal to 1"),
            (lambda: handreid.Recipe(), "Recipe: key 'name' is missing"),
            (lambda: Triplet(margin=-1), "Triplet: margin -1.0 must be over 0, or `soft`"),
            (
                lambda: FineTune(objectives=[{"kind": "tripled"}]),
                "FineTune: objectives.0.kind 'tripled' is not one of cross_entropy, .*; did you mean 'triplet'?",
            ),
            (
                lambda: handreid.Recipe(name="a", model={"hed": 1}),
                "Recipe: unknown key 'model.hed'; did you mean 'head'?",
            ),
            (lambda: handreid.Recipe(name="a b", seed=-1), "Recipe: name is 'a b'.*\nRecipe: seed is -1"),
            (lambda: KReciprocal(k1=0), "KReciprocal: k1 is 0"),
        ],
    )
    def test_what_is_wrong_is_a_recipe_error(self, build: Callable[[], object], complaint: str):
        with pytest.raises(RecipeError, match=complaint):
            build()

    def test_it_is_what_yaml_says_but_for_the_place(self):
        raw = {
            "name": "x",
            "stages": [{"kind": "fine_tune", "epoch": 3, "objectives": [{"kind": "triplet", "margn": 1}]}],
        }
        with pytest.raises(RecipeError) as built:
            handreid.Recipe(**raw)
        with pytest.raises(RecipeError) as parsed:
            parse_recipe(json.dumps(raw), "Recipe")
        assert re.sub(r" line \d+", "", str(parsed.value)) == str(built.value)
        assert str(built.value).count("\n") == 1

    def test_pydantics_own_way_stays(self):
        from pydantic import ValidationError

        with pytest.raises(ValidationError):
            handreid.Recipe.model_validate({"name": 3})
        built = handreid.Recipe(name="x", data=Data(label="subject"), stages=[FineTune(objectives=[CrossEntropy()])])
        assert built == handreid.Recipe.model_validate(built.model_dump())


def rough(seed: int, photos: int, dim: int = 3) -> np.ndarray:
    """Features of so few values that many are equal."""
    return np.random.default_rng(seed).integers(1, 3, (photos, dim)).astype(np.float32)


class TestRank:
    def test_the_best_come_first_with_their_cosines_and_names(self):
        gallery = np.array([[1.0, 0], [0, 2], [3, 3], [-1, 0]])
        found = handreid.rank([[1.0, 0.1]], gallery, labels=["a", "b", "c", "d"])
        assert found.labels.tolist() == [["a", "c", "b", "d"]]
        unit = np.array([1, 0.1]) / np.hypot(1, 0.1)
        expected = [unit @ (row / np.linalg.norm(row)) for row in gallery[[0, 2, 1, 3]]]
        assert found.scores[0] == pytest.approx(expected, abs=1e-7)
        assert found.indices.tolist() == [[0, 2, 1, 3]]
        assert len(handreid.rank([1.0, 0.1], gallery, 2)) == 1

    @given(st.integers(0, 500), st.integers(1, 12))
    @settings(max_examples=40, deadline=None)
    def test_it_is_a_sort_of_everything(self, seed: int, k: int):
        query, gallery = rough(seed, 4), rough(seed + 1, 11)
        whole, some = handreid.rank(query, gallery, None), handreid.rank(query, gallery, k)
        assert np.array_equal(whole.indices[:, :k], some.indices)
        assert np.array_equal(whole.scores[:, :k], some.scores)
        assert (np.diff(whole.scores) <= 0).all()
        tied = np.diff(whole.scores) == 0
        assert (np.diff(whole.indices)[tied] > 0).all()  # in the order of the gallery
        assert np.array_equal(np.sort(whole.indices), np.tile(np.arange(11), (4, 1)))

    @given(st.integers(0, 500), st.sampled_from(["cosine", "k_reciprocal"]))
    @settings(max_examples=40, deadline=None)
    def test_with_the_queries_people_it_agrees_with_the_ranks_of_right_answers(self, seed: int, how: str):
        query, gallery, random = rough(seed, 5), rough(seed + 1, 14), np.random.default_rng(seed)
        own, people = random.integers(0, 4, 5), random.integers(0, 4, 14)
        if how == "cosine":
            found = handreid.rank(query, gallery, None, labels=people, query_labels=own)
            ranking = rank_matches(query, gallery, own, people)
        else:
            found = handreid.rerank(query, gallery, None, how=KReciprocal(k1=4, k2=2), labels=people, query_labels=own)
            ranking = rerank_matches(query, gallery, own, people, k1=4, k2=2)
        for number, names in enumerate(found.labels):
            ranks = np.flatnonzero(names == own[number]) + 1
            assert ranks.tolist() == ranking.ranks[ranking.offsets[number] : ranking.offsets[number + 1]].tolist()

    def test_by_label_each_comes_once_by_its_best_photo(self):
        gallery = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.5, 0.5]])
        found = handreid.rank([1.0, 0], gallery, 2, labels=["a", "a", "b", "b"], by="label")
        assert found.labels.tolist() == [["a", "b"]]
        assert found.indices.tolist() == [[0, 3]]

    def test_order_and_type_of_what_is_given_change_nothing(self):
        query, gallery = rough(0, 3), np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
        plain = handreid.rank(query, gallery)
        tensor = torch.from_numpy(gallery).requires_grad_()
        for other in (gallery.tolist(), tensor, gallery[::-1][::-1], gallery.astype(np.float64) * 7):
            found = handreid.rank(torch.from_numpy(query), other)
            assert np.array_equal(found.indices, plain.indices)
        assert np.array_equal(handreid.rank(query, tensor).scores, plain.scores)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"query": [[1.0, 2], [3]]}, "query features are no array: give a row for each photo"),
            ({"query": np.empty((0, 2))}, r"query features are empty, of shape \(0, 2\)"),
            ({"gallery": np.empty((0, 2))}, "gallery features are empty"),
            ({"gallery": [[1.0, np.nan], [1, 1]]}, "the feature of gallery photo 0 .* is not finite"),
            ({"query": [[0.0, 0.0]]}, "is all zero"),
            ({"query": [[1.0, 2, 3]]}, "query features have 3 numbers per photo, gallery features 2"),
            ({"query": np.ones((1, 2, 2))}, r"have the shape \(1, 2, 2\)"),
            ({"query": [["a", "b"]]}, "give an array of real numbers"),
            ({"k": 0}, "k is 0; give how many"),
            ({"labels": ["a"]}, "labels are of shape .* for 2 photos"),
            ({"labels": ["a", None]}, "hold such as None"),
            ({"labels": ["a", 1]}, "texts among whole numbers"),
            ({"labels": [0.5, 1.5]}, "hold such as 0.5"),
            ({"labels": "ab"}, "labels are 'ab'; give one for each photo"),
            ({"query_labels": ["a"]}, "query_labels are given and labels are not"),
            ({"labels": [1, 2], "query_labels": ["a"]}, "of queries are texts, those of the gallery whole numbers"),
            ({"by": "label"}, "by='label' needs labels"),
        ],
    )
    @pytest.mark.parametrize("how", ["rank", "rerank"])
    def test_what_cannot_be_ranked_is_one_clear_error(self, how: str, change: dict[str, Any], complaint: str):
        arguments = {"query": [[1.0, 0.0]], "gallery": [[1.0, 0.0], [0.0, 1.0]], **change}
        with pytest.raises(DataError, match=complaint):
            getattr(handreid, how)(**arguments)


class TestRerank:
    def test_scores_are_of_the_re_ranked_distance(self):
        random = np.random.default_rng(0)
        query, gallery = random.normal(size=(4, 6)), random.normal(size=(15, 6))
        found = handreid.rerank(query, gallery, None, how=KReciprocal(k1=5, k2=2))
        distances = np.concatenate(list(rerank_distances(query, gallery, k1=5, k2=2)))
        assert np.array_equal(found.indices, np.argsort(distances, kind="stable"))
        assert np.array_equal(found.scores, 1 - np.take_along_axis(distances, found.indices, 1))
        assert found.labels is None

    def test_expansion_ranks_by_what_it_expands(self):
        random = np.random.default_rng(0)
        query, gallery = random.normal(size=(4, 6)), random.normal(size=(15, 6))
        ours = handreid.rerank(query, gallery, how=QueryExpansion(neighbours=3, alpha=1.0))
        assert np.array_equal(
            ours.indices, handreid.rank(expand(query, gallery, neighbours=3, alpha=1.0), gallery).indices
        )
        ours = handreid.rerank(query, gallery, how=GalleryExpansion(neighbours=2))
        assert np.array_equal(ours.scores, handreid.rank(query, expand_gallery(gallery, neighbours=2)).scores)


class TestMetrics:
    def test_they_are_those_of_an_evaluation(self):
        random = np.random.default_rng(0)
        query, gallery = random.normal(size=(20, 4)), random.normal(size=(30, 4))
        own, people = random.integers(0, 6, 20), random.integers(0, 6, 30)
        found = handreid.metrics(query, gallery, own, people)
        per_query = metrics_of(rank_matches(query, gallery, own, people))
        assert found.values == {name: pytest.approx(np.nanmean(value)) for name, value in per_query.items()}
        assert found["map"] == found.values["map"]
        assert found.intervals is None
        named = handreid.metrics(query, gallery, [f"p{n}" for n in own], [f"p{n}" for n in people], subjects=list(own))
        assert named.values == found.values
        assert named.intervals == intervals(per_query, own)

    def test_cameras_are_left_out_and_what_has_no_answer_is_counted(self):
        features, labels = np.eye(3), ["a", "a", "b"]
        found = handreid.metrics(features, features, labels, labels, cameras=(["x", "x", "y"], ["x", "z", "y"]))
        assert found.unanswerable == 1
        assert np.isnan(found.per_query["rank1"][2])
        with pytest.raises(DataError, match=r"none of 3 queries has a right answer .* from another camera"):
            handreid.metrics(features, features, labels, labels, cameras=(["x"] * 3, ["x"] * 3))
        with pytest.raises(DataError, match="none of 3 queries has a right answer"):
            handreid.metrics(features, features, labels, ["c", "d", "e"])
        with pytest.raises(DataError, match="subjects are of shape"):
            handreid.metrics(features, features, labels, labels, subjects=["a"])


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages.0.epochs=1"])
    return handreid.train(recipe, str(photos), str(tmp_path_factory.mktemp("runs") / "run"))


class TestEmbed:
    def test_every_way_to_name_model_and_photos_gives_the_same(self, run: Run, photos: Path):
        manifest = handreid.read_manifest(str(photos))
        rows = handreid.embed(run, manifest)
        assert rows.dtype == np.float32
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(manifest)), abs=1e-6)
        for model in (
            run.folder,
            str(run.folder),
            run.model,
            handreid.Embedder.load(run),
            Embedder.load(str(run.folder)),
        ):
            assert np.array_equal(handreid.embed(model, photos), rows)
        assert np.array_equal(handreid.embed(run, photos.parent), rows)  # a folder: sorted, as the manifest is here
        assert np.array_equal(handreid.embed(run, map(str, manifest.paths())), rows)
        assert handreid.embed(run, manifest.paths()[3]) == pytest.approx(rows[3:4], abs=1e-5)
        assert handreid.embed(run, reversed(manifest.paths())) == pytest.approx(rows[::-1], abs=1e-5)

    def test_they_are_those_of_the_evaluation(self, run: Run, photos: Path):
        from handreid.evaluation.embed import embed_known, select_photos

        handreid.evaluate(run)
        assert run.evaluation.exists()
        assert np.array_equal(handreid.embed(run, read(photos)), embed_known(run, select_photos(run)))

    def test_photos_are_decoded_some_at_a_time(self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch):
        from handreid import inference

        whole = handreid.embed(run, photos, batch_size=5)
        monkeypatch.setattr(inference, "_AT_ONCE", 12)
        assert np.array_equal(handreid.embed(run, photos, batch_size=5), whole)

    def test_flip_tta_is_as_the_recipe_says(self, photos: Path, tmp_path: Path):
        recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages=[]", "evaluate.flip_tta=true"])
        run = handreid.train(recipe, photos, tmp_path / "run")
        both = handreid.embed(run, photos)
        assert np.array_equal(both, handreid.embed(run.model, photos, flip_tta=True))
        assert not np.allclose(both, handreid.embed(run, photos, flip_tta=False))

    def test_what_is_wrong_is_one_clear_error(self, run: Run, photos: Path, tmp_path: Path):
        (tmp_path / "text.jpg").write_text("no photo")
        with pytest.raises(PhotoError, match=r"text\.jpg cannot be read as an image"):
            handreid.embed(run, tmp_path)
        with pytest.raises(PhotoError, match=r"gone\.jpg is missing"):
            handreid.embed(run, [tmp_path / "gone.jpg"])
        with pytest.raises(DataError, match="there is no photo to embed"):
            handreid.embed(run, [])
        with pytest.raises(RunError, match="not a run folder"):
            handreid.embed(tmp_path, photos)
        with pytest.raises(WeightsError):
            handreid.embed(tmp_path / "text.jpg", photos)
        with pytest.raises(ManifestError):
            handreid.embed(run, "gone.parquet")
        with pytest.raises(DataError, match="batch_size is 0"):
            handreid.embed(run, photos, batch_size=0)
        with pytest.raises(RecipeError, match="tiny-cross-entropi"):
            handreid.train("tiny-cross-entropi", photos, tmp_path / "out")


@pytest.fixture
def here(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pages' code finds what it names."""
    shutil.copytree(photos.parent, tmp_path / "photos")
    read(photos).write(tmp_path / "photos.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestThePages:
    def test_the_six_tasks_run_and_are_short(self, here: Path, capsys: pytest.CaptureFixture[str]):
        tasks = blocks(PAGE, "python")
        assert len(tasks) == 6
        assert max(sum(bool(line.strip()) for line in task.splitlines()) for task in tasks) <= 6
        names: dict[str, Any] = {"__name__": "python_md"}
        for task in tasks:
            exec(compile(task, PAGE.name, "exec"), names)
        assert names["run"].finished
        assert names["embeddings"].shape[0] == 48
        assert names["found"].labels.shape == (24, 3)
        assert capsys.readouterr().out.startswith("rank-1 ")
        recipe = names["recipe"].model_copy(update={"stages": (names["stage"],)})
        with pytest.raises(handreid.HandreidError, match="is not empty"):
            handreid.train(recipe, "photos.parquet", "runs/first")
        micro = parse_recipe(MICRO_RECIPE, "micro")
        assert handreid.train(micro.model_copy(update={"stages": recipe.stages}), "photos.parquet", "runs/own").finished

    def test_python_in_the_readme_runs(self, here: Path, monkeypatch: pytest.MonkeyPatch):
        for name, shot in (("anna", 1), ("ben", 1), ("ben", 2)):
            (here / "photos" / name).mkdir(exist_ok=True)
            shutil.copy(here / "photos" / f"p0{len(name)}" / f"{shot}.jpg", here / "photos" / name / f"{shot}.jpg")
        (code,) = blocks(ROOT / "README.md", "python")
        assert 6 <= len(code.splitlines()) <= 8
        names: dict[str, Any] = {}
        exec(
            compile(code.replace('"tiny-cross-entropy"', "small"), "README.md", "exec"),
            names | {"small": self._small()},
        )

    def _small(self) -> handreid.Recipe:
        return parse_recipe(MICRO_RECIPE, "micro", ["stages.0.epochs=1"])

    def test_the_example_says_who_is_who(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
        monkeypatch.setattr(sys, "argv", ["identify_hands.py", str(tmp_path / "place"), "small"])
        names = runpy.run_path(str(ROOT / "examples" / "identify_hands.py"))
        said = capsys.readouterr().out
        assert re.search(r"^\S+ is most like \S+ \(\d\.\d\d\), ", said, re.M)
        assert re.search(r"^rank-1 \d+\.\d% \(", said, re.M)
        assert names["run"].evaluation.exists()
        assert (ROOT / "examples" / "identify_hands.py").read_text().count("\n# %% ") >= 5
