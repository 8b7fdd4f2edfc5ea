"""Stages hand over: nothing is done twice, nothing stale is taken, nobody who is tested comes in by the back door."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from handreid.build import build_embedder, build_towers
from handreid.cli.commands import app
from handreid.data.manifest import read
from handreid.errors import ProtocolError, RecipeError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.models import feature_cache
from handreid.models.embedder import Embedder
from handreid.models.extraction import joint_features
from handreid.models.feature_cache import cached_joint_features
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run
from handreid.training.train import train
from handreid.workflows.ladder import run_ladder
from tests.conftest import MICRO_RECIPE
from tests.edits import edit_recipe, note
from tests.training.test_learn_prompts import LEARN, TUNE, recipe_of
from tests.training.test_train import history, micro

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


class Said:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, what: str, total: int, unit: str):
        from handreid.progress import NullProgress

        return NullProgress().step(what, total, unit)


def taken(run: Run) -> list[bool]:
    """Per stage whether it was taken from another run."""
    return ["taken_from" in json.loads(path.read_text()) for path in sorted(run.folder.glob("stages/*/stage.json"))]


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(photos.parent, tmp_path / "hands")
    return tmp_path / "hands" / photos.name


SHORT = LEARN.replace("epochs: 12", "epochs: 6")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Without them, a seed would already show in random towers."""
    return _weights(tmp_path_factory.mktemp("weights") / "weights.safetensors")


@pytest.fixture(scope="module")
def trained(photos: Path, weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe_of(SHORT, **weights), photos, tmp_path_factory.mktemp("trained") / "run").folder


@pytest.fixture
def before(trained: Path, tmp_path: Path) -> Run:
    """A run of `SHORT`, beside which others are started."""
    return Run(Path(shutil.copytree(trained, tmp_path / "runs" / "before")))


class TestReuse:
    def test_what_is_unchanged_is_taken_and_what_follows_from_it_is_the_same(self, own_photos: Path, tmp_path: Path):
        first, said = train(recipe_of(SHORT, TUNE), own_photos, tmp_path / "runs" / "first"), Said()
        again = train(recipe_of(SHORT, TUNE), own_photos, tmp_path / "runs" / "again", progress=said)
        assert taken(first) == [False, False]
        assert taken(again) == [True, True]
        assert sum("which trained the same" in line for line in said.lines) == 2
        assert first.model.read_bytes() == again.model.read_bytes()
        assert history(first.folder) == history(again.folder)
        other = train(recipe_of(SHORT, TUNE.replace("epochs: 2", "epochs: 1")), own_photos, tmp_path / "runs" / "other")
        assert taken(other) == [True, False]
        assert [line["stage"] for line in history(other.folder)] == [0] * 6 + [1]

    @pytest.mark.parametrize(
        "change",
        [
            "nothing",
            "recipe",
            "seed",
            "weights",
            "a photo",
            "reuse=False",
            "another folder",
            "validation",
            "validation's draws",
        ],
    )
    def test_what_changed_is_done_again(
        self, change: str, own_photos: Path, tmp_path: Path, before: Run, weights: dict[str, str]
    ):
        recipe, out, options = recipe_of(SHORT, **weights), tmp_path / "runs" / "after", {}
        match change:
            case "recipe":
                recipe = recipe_of(SHORT.replace("tokens: 2", "tokens: 3"), **weights)
            case "seed":
                recipe = recipe_of(SHORT, seed="1", **weights)
            case "weights":
                recipe = recipe_of(SHORT, init_from="start", **weights)
                train(micro("stages.0.epochs=1"), own_photos, tmp_path / "runs" / "start")
            case "a photo":
                trained = load_dataset(recipe, own_photos).split.train[0]
                first = read(own_photos).paths()[trained]
                first.write_bytes(first.read_bytes() + b"0")
            case "reuse=False":
                options = {"reuse": False}
            case "another folder":
                out = tmp_path / "elsewhere" / "after"
            case "validation":
                recipe = recipe_of(SHORT, **weights, **{"data.validation_share": "0.5"})
            case "validation's draws":
                recipe = recipe_of(SHORT, **weights, **{"evaluate.draws": "4"})
        after = train(recipe, own_photos, out, **options)
        assert taken(before) == [False]
        assert taken(after) == [change == "nothing"]

    def test_a_stage_that_is_not_finished_is_not_taken(
        self, before: Run, photos: Path, tmp_path: Path, weights: dict[str, str]
    ):
        (before.stage(0, "learn_prompts") / "stage.json").unlink()
        assert taken(train(recipe_of(SHORT, **weights), photos, tmp_path / "runs" / "after")) == [False]

    def test_the_command_line_can_do_it_again(self, own_photos: Path, tmp_path: Path):
        (tmp_path / "r.yaml").write_text(MICRO_RECIPE.replace("epochs: 3", "epochs: 1"))
        outs = [tmp_path / "runs" / name for name in ("a", "b", "c")]
        for out, option in zip(outs, ((), (), ("--no-reuse",)), strict=True):
            arguments = ["train", str(tmp_path / "r.yaml"), "--data", str(own_photos), "--out", str(out), *option]
            assert CliRunner().invoke(app, arguments).exit_code == 0
        assert [taken(Run(out)) for out in outs] == [[False], [True], [False]]


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(micro("stages.0.epochs=2"), photos, folder / "earlier")
    return folder


class TestStart:
    def test_a_run_begins_with_the_encoder_and_head_of_another(self, runs: Path, photos: Path):
        said = Said()
        joint = "model.test_feature={features: [joint], neck: before}"
        run = train(micro("stages=[]", "init_from=earlier", joint), photos, runs / "later", progress=said)
        earlier, later = Embedder.load(runs / "earlier" / "model.safetensors"), Embedder.load(run.model)
        assert all(
            torch.equal(a, b) for a, b in zip(earlier.backbone.parameters(), later.backbone.parameters(), strict=True)
        )
        assert any("begins with the encoder (not the head, which is another) of" in line for line in said.lines)
        one = "stages.0.epochs=1"
        train(micro(one, "init_from=earlier", "stages.0.optimizer.lr=1e-9"), photos, runs / "on", progress=said)
        assert any("begins with the encoder and head of" in line for line in said.lines)
        neck = "necks.pooled.running_mean"
        assert not torch.equal(
            Embedder.load(runs / "on" / "model.safetensors").head.state_dict()[neck],
            build_embedder(micro(), build_towers(micro())).head.state_dict()[neck],
        )

    def test_what_is_added_to_the_tower_begins_anew_and_the_tower_does_not(self, runs: Path, photos: Path):
        prompts, frozen = "model.backbone.visual_prompts={tokens: 2}", "stages.0.freeze_encoder=true"
        run = train(
            micro("stages.0.epochs=1", "init_from=earlier", prompts, frozen), photos, runs / "prompted", resume=True
        )
        earlier, later = Embedder.load(runs / "earlier" / "model.safetensors"), Embedder.load(run.model)
        theirs, ours = earlier.backbone.visual.state_dict(), later.backbone.visual.state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
        assert later.backbone.visual_prompts is not None
        with pytest.raises(RunError, match=r"its visual_prompts is .*, here None"):
            train(micro("stages.0.epochs=1", "init_from=prompted"), photos, runs / "plain")

    def test_prompts_can_be_learned_for_the_encoder_of_an_earlier_rung(self, photos: Path, tmp_path: Path):
        one = parse_recipe(MICRO_RECIPE.replace("name: micro", "name: one"), "x", ["stages.0.epochs=1"])
        two = parse_recipe(
            MICRO_RECIPE.replace("name: micro", "name: two"), "x", [f"stages=[{SHORT}]", "init_from=one"]
        )
        rungs = run_ladder([one, two], photos, tmp_path)
        assert [rung.name for rung in rungs] == ["one", "two"]
        facts = json.loads((tmp_path / "two" / "run.json").read_text())
        assert facts["init_from"] == str((tmp_path / "one").absolute())
        assert run_ladder([one, two], photos, tmp_path)[1].evaluation == rungs[1].evaluation  # nothing to be done again

    def test_a_rung_that_cannot_be_built_is_known_before_the_first_and_left_out_if_nobody_asked_for_it(
        self, photos: Path, tmp_path: Path
    ):
        """A folder per person says nothing of skin or aspect, which a graph with attributes asks for."""
        plain = parse_recipe(MICRO_RECIPE.replace("name: micro", "name: plain"), "x", ["stages.0.epochs=1"])
        graph = ["model.head={kind: promptsg_graph}", "stages.0.objectives=[{kind: cross_entropy, features: [parts]}]"]
        asked = [plain, parse_recipe(MICRO_RECIPE.replace("name: micro", "name: graph"), "x", graph)]
        with pytest.raises(
            RecipeError, match=r"^rung graph: .*the manifest has no values of.*; choose others with --rungs"
        ):
            run_ladder(asked, photos, tmp_path / "ladder")
        assert not (tmp_path / "ladder").exists()
        said = Said()
        assert [rung.name for rung in run_ladder(asked, photos, tmp_path / "ladder", progress=said, every=False)] == [
            "plain"
        ]
        assert any(line.startswith("note: rung graph is left out: ") for line in said.lines)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["init_from=nowhere"], "neither a run folder nor the name of a run beside"),
            (["init_from=unfinished"], "is not finished"),
            (["init_from=here"], "neither a run folder"),
            (["init_from=earlier", "model.backbone.image_size=64"], "differs from this recipe's"),
        ],
    )
    def test_what_cannot_be_begun_with_leaves_no_folder(
        self, overrides: list[str], message: str, runs: Path, photos: Path
    ):
        (runs / "unfinished").mkdir(exist_ok=True)
        shutil.copy(runs / "earlier" / "run.json", runs / "unfinished")
        with pytest.raises(RunError, match=message):
            train(micro("stages.0.epochs=1", *overrides), photos, runs / "here")
        assert not (runs / "here").exists()

    @pytest.mark.parametrize("start", ["earlier", "untouched"])
    def test_people_of_the_tests_do_not_come_in_through_the_parent(self, start: str, runs: Path, photos: Path):
        """Trap 7, one generation up, and two: what lies between may have trained nobody."""
        train(micro("stages=[]", "init_from=earlier"), photos, runs / "untouched", resume=True)
        with pytest.raises(ProtocolError, match=r"was trained or chosen with \d+ subjects that .* by earlier"):
            train(micro("stages.0.epochs=1", f"init_from={start}", "data.seed=5"), photos, runs / "child")
        assert not (runs / "child").exists()

    def test_nor_in_an_evaluation_under_another_split(self, runs: Path, photos: Path):
        run = train(micro("stages=[]", "init_from=earlier"), photos, runs / "untrained", resume=True)
        facts = json.loads((run.folder / "run.json").read_text())
        edit_recipe(run.folder, "test_share: 0.4", "test_share: 0.7")
        assert facts["init_from"].endswith("earlier")
        with pytest.raises(ProtocolError, match=r"test subjects were trained on in .*earlier"):
            evaluate(run)
        edit_recipe(run.folder, "test_share: 0.7", "test_share: 0.4")
        evaluate(run)

    def test_a_parent_that_changed_is_noticed_when_a_run_goes_on(self, photos: Path, tmp_path: Path):
        train(micro("stages.0.epochs=1"), photos, tmp_path / "parent")
        run = train(micro("stages.0.epochs=1", "init_from=parent"), photos, tmp_path / "child")
        run.model.unlink()
        parent = Embedder.load(tmp_path / "parent" / "model.safetensors")
        with torch.no_grad():
            parent.backbone.visual.conv1.weight.add_(1)
        parent.save(tmp_path / "parent" / "model.safetensors")
        note(tmp_path / "parent", "model.safetensors")
        with pytest.raises(RunError, match="which has changed since"):
            train(None, None, run.folder, resume=True)


class TestTheFeatureCache:
    """Trap 13: caches keyed by a model's name, stale when data or weights change."""

    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        calls: list[int] = []

        def counting(embedder: Embedder, photos: np.ndarray, **options: object) -> np.ndarray:
            calls.append(len(photos))
            return joint_features(embedder, photos, **options)

        monkeypatch.setattr(feature_cache, "joint_features", counting)
        return calls

    def test_they_are_computed_once(self, counted: list[int], tmp_path: Path):
        embedder, photos = _embedder(micro()), _pixels()
        found = [cached_joint_features(embedder, photos, folder=tmp_path) for _ in range(3)]
        assert counted == [3]
        assert np.array_equal(found[0], joint_features(embedder, photos))
        assert np.array_equal(found[0], found[2])
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("change", ["pixel", "weight", "order", "preprocessing", "fewer"])
    def test_whatever_changes_them_makes_them_new(self, change: str, counted: list[int], tmp_path: Path):
        embedder, photos = _embedder(micro()), _pixels()
        cached_joint_features(embedder, photos, folder=tmp_path)
        match change:
            case "pixel":
                photos = photos.copy()
                photos[1, 0, 5, 5] ^= 1
            case "weight":
                with torch.no_grad():
                    embedder.backbone.visual.proj[0, 0] += 1e-3
            case "order":
                photos = photos[::-1]
            case "preprocessing":
                embedder = _embedder(micro("model.preprocess.normalise=half"))
            case "fewer":
                photos = photos[:2]
        found = cached_joint_features(embedder, photos, folder=tmp_path)
        assert len(counted) == 2
        assert np.array_equal(found, joint_features(embedder, photos))

    def test_learning_prompts_a_second_time_needs_no_photo_features(
        self, counted: list[int], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
        train(recipe_of(SHORT), photos, tmp_path / "a" / "run")
        train(recipe_of(SHORT.replace("tokens: 2", "tokens: 3")), photos, tmp_path / "b" / "run")
        assert counted == [20]


def _weights(path: Path) -> dict[str, str]:
    """Both towers' weights in a file, as keys of a recipe."""
    towers = build_towers(micro())
    image = {f"visual.{name}": value for name, value in towers.image.state_dict().items()}
    save_file({**image, **towers.text.clip.state_dict()}, path)
    return {"model.backbone.weights": str(path)}


def _embedder(recipe: Recipe) -> Embedder:
    return build_embedder(recipe, build_towers(recipe))


def _pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 3, 32, 32), np.uint8)
