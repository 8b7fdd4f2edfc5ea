"""Side information: it reaches the tower in training, validation and test alike, and says nothing of who it is."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from handreid import inference
from handreid.build import build_embedder, build_towers
from handreid.data import manifest
from handreid.data.splits import evaluated_rows
from handreid.errors import RecipeError
from handreid.evaluation import evaluate as assess
from handreid.evaluation.embed import embed
from handreid.models.backbone import Backbone
from handreid.models.clip import build_image_tower
from handreid.models.embedder import Embedder
from handreid.models.extraction import embed_photos, joint_features
from handreid.models.side_information import UNKNOWN, SideInformation, combinations_of
from handreid.progress import NullProgress
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run, open_run
from handreid.runs.side_information import seen_combinations, side_information_of
from handreid.training.stages import photo_data
from handreid.training.stages.fine_tune import stage
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.training.stages.fine_tune.wise_ft import interpolation_curve, recompute_batchnorm
from handreid.training.train import train
from tests.models.test_lora import RESNET, VIT
from tests.plain_results import evaluated
from tests.training.test_train import micro

SIDE = "model.side_information={columns: [camera, lens], strength: 2.0}"
SEEN = (("c0", "35"), ("c0", "50"), ("c1", "35"), ("c1", "50"))
TOWERS = pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])


def backbone_of(config: dict, *, told: bool = True) -> Backbone:
    """The tower is the same, told or not."""
    torch.manual_seed(0)
    tower = build_image_tower(config)
    side = {"columns": ["camera"], "strength": 2.0, "combinations": [["a"], ["b"], ["c"]]}
    backbone = Backbone(tower, config, side_information=side if told else None)
    if told:
        torch.nn.init.normal_(backbone.side_information.vectors)
    return backbone.eval()


def photos_for(backbone: Backbone, count: int = 3) -> Tensor:
    return torch.randn(count, 3, *backbone.size, generator=torch.Generator().manual_seed(1))


def bytes_for(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 3, 32, 32), np.uint8)


def told_embedder(change: str = "seed=0") -> Embedder:
    """As after some training: vectors that are far apart."""
    recipe = micro(SIDE, change)
    embedder = build_embedder(recipe, build_towers(recipe), SEEN)
    torch.nn.init.normal_(embedder.backbone.side_information.vectors, generator=torch.Generator().manual_seed(3))
    return embedder


@pytest.fixture(scope="module")
def run(cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(micro(SIDE), cameras, tmp_path_factory.mktemp("side") / "run")


class TestTheVector:
    SIDE = SideInformation(["camera"], 3.0, [["a"], ["b"]], width=4)

    def test_is_that_of_the_combination_times_the_strength(self):
        found = self.SIDE(torch.tensor([1, 0, 1]))
        assert torch.equal(found, 3.0 * self.SIDE.vectors[[1, 0, 1]])

    def test_of_an_unknown_is_the_mean(self):
        found = self.SIDE(torch.tensor([UNKNOWN, 0]))
        assert torch.allclose(found[0], 3.0 * self.SIDE.vectors.mean(dim=0))
        assert torch.equal(found[1], 3.0 * self.SIDE.vectors[0])

    def test_is_looked_up_by_all_columns_together(self):
        side = SideInformation(["camera", "view"], 1.0, [["a", "x"], ["b", "x"], ["b", "y"]], width=4)
        found = side.look_up([["b", "a", "a", None, "b", "z"], ["y", "x", "y", "x", None, "x"]])
        assert found.tolist() == [2, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]

    def test_there_is_one_for_each_combination_seen_without_a_gap(self):
        values = [["b", "a", None, "b", "b"], ["x", "y", "x", None, "x"]]
        assert combinations_of(values) == (("a", "y"), ("b", "x"))

    def test_a_mirror_image_is_of_the_other_side(self):
        columns, seen = ["camera", "side"], [["a", "left"], ["a", "right"], ["left", "left"]]
        side = SideInformation(columns, 1.0, seen, width=4)
        assert side.mirrored(torch.tensor([0, 1, 2, UNKNOWN])).tolist() == [1, 0, UNKNOWN, UNKNOWN]
        assert self.SIDE.mirrored(torch.tensor([0, 1, UNKNOWN])).tolist() == [0, 1, UNKNOWN]


class TestInTheTower:
    @TOWERS
    def test_zero_vectors_are_the_plain_tower(self, config: dict):
        plain, told = backbone_of(config, told=False), backbone_of(config)
        torch.nn.init.zeros_(told.side_information.vectors)
        conditions, photos = torch.tensor([0, 1, UNKNOWN]), photos_for(plain)
        for name in ("joint", "pooled", "penultimate", "patches"):
            assert torch.allclose(getattr(told(photos, conditions), name), getattr(plain(photos), name), atol=1e-5)

    @TOWERS
    def test_none_is_unknown_for_all(self, config: dict):
        told = backbone_of(config)
        photos = photos_for(told)
        assert torch.equal(told(photos).joint, told(photos, torch.full((3,), UNKNOWN)).joint)

    @TOWERS
    def test_each_photo_has_its_own(self, config: dict):
        told = backbone_of(config)
        photos = photos_for(told)
        together = told(photos, torch.tensor([2, UNKNOWN, 0])).joint
        for row, condition in enumerate([2, UNKNOWN, 0]):
            alone = told(photos[row : row + 1], torch.tensor([condition])).joint
            assert torch.allclose(together[row], alone[0], atol=1e-5)
        assert not torch.allclose(together, told(photos, torch.tensor([1, 1, 1])).joint, atol=1e-3)

    def test_in_a_vit_it_is_added_to_the_class_token(self):
        """As if the token itself were another one."""
        told, plain = backbone_of(VIT), backbone_of(VIT, told=False)
        photos = photos_for(told)
        found = told(photos, torch.tensor([1, 1, 1]))
        with torch.no_grad():
            plain.visual.class_embedding += 2.0 * told.side_information.vectors[1]
        expected = plain(photos)
        assert torch.equal(found.joint, expected.joint)
        assert torch.equal(found.penultimate, expected.penultimate)

    def test_in_a_resnet_it_is_added_to_what_is_pooled_and_to_what_the_attention_pool_asks_with(self):
        told, plain = backbone_of(RESNET), backbone_of(RESNET, told=False)
        photos = photos_for(told)
        found, without = told(photos, torch.tensor([1, 1, 1])), plain(photos)
        vector = 2.0 * told.side_information.vectors[1]
        assert torch.allclose(found.pooled, without.pooled + vector, atol=1e-5)
        assert torch.equal(found.penultimate, without.penultimate)
        assert torch.equal(found.patches, without.patches)
        with torch.no_grad():  # the mean's token alone has the first position embedding
            plain.visual.attnpool.positional_embedding[0] += vector
        assert torch.allclose(found.joint, plain(photos).joint, atol=1e-5)

    @TOWERS
    def test_a_gradient_reaches_the_vectors_of_the_batch_and_an_unknown_reaches_all(self, config: dict):
        for conditions, reached in (([0, 2, 2], [True, False, True]), ([0, UNKNOWN, 0], [True] * 3)):
            told = backbone_of(config)
            told(photos_for(told), torch.tensor(conditions)).joint.square().sum().backward()
            assert [bool(row.any()) for row in told.side_information.vectors.grad] == reached

    @TOWERS
    def test_under_autocast(self, config: dict):
        told = backbone_of(config)
        photos, conditions = photos_for(told), torch.tensor([0, 1, UNKNOWN])
        with torch.autocast("cpu", torch.bfloat16):
            found = told(photos, conditions)
        assert torch.isfinite(found.joint).all()
        assert found.joint.dtype == torch.bfloat16

    def test_conditions_for_a_model_that_takes_none_are_an_error(self):
        plain = backbone_of(VIT, told=False)
        with pytest.raises(ValueError, match="takes none"):
            plain(photos_for(plain), torch.tensor([0, 0, 0]))

    def test_beside_visual_prompts(self):
        embedder = told_embedder("model.backbone.visual_prompts={tokens: 2, depth: deep}")
        photos = torch.from_numpy(bytes_for(3))
        one, other = (embedder.embed(photos, torch.tensor(known)) for known in ([0, 0, 0], [0, 0, 1]))
        assert torch.equal(one[:2], other[:2])
        assert not torch.allclose(one[2], other[2], atol=1e-3)


class TestTheEmbedder:
    def test_saved_and_loaded_it_looks_up_and_embeds_the_same(self, tmp_path: Path):
        embedder = told_embedder()
        embedder.save(tmp_path / "m.safetensors")
        again = Embedder.load(tmp_path / "m.safetensors")
        rows = pl.DataFrame({"camera": ["c1", "c0", "c9"], "lens_mm": [50, 35, 35]})
        conditions, remarks = side_information_of(again, rows)
        assert conditions.tolist() == [3, 0, UNKNOWN]
        assert remarks == ["side information: 1 of 3 photos get the mean, as their values did not train"]
        photos, known = torch.from_numpy(bytes_for(3)), torch.from_numpy(conditions)
        assert torch.equal(again.embed(photos, known), embedder.embed(photos, known))
        assert not torch.allclose(again.embed(photos, known), embedder.embed(photos), atol=1e-3)

    def test_photos_keep_their_conditions_in_batches(self):
        embedder, photos = told_embedder(), bytes_for(7)
        conditions = np.array([0, 3, UNKNOWN, 1, 1, 2, 0])
        whole, parts = (embed_photos(embedder, photos, conditions=conditions, batch_size=n) for n in (7, 3))
        assert np.allclose(whole, parts, atol=1e-5)
        assert not np.allclose(whole, embed_photos(embedder, photos), atol=1e-3)
        joint = joint_features(embedder, photos, conditions=conditions, batch_size=3)
        one = embedder(torch.from_numpy(photos[1:2]), torch.tensor([3])).features.joint
        assert np.allclose(joint[1], one.detach().numpy()[0], atol=1e-5)

    def test_the_mirror_image_is_taken_from_the_other_side(self):
        recipe = micro("model.side_information={columns: [side]}")
        embedder = build_embedder(recipe, build_towers(recipe), [("left",), ("right",)])
        torch.nn.init.normal_(embedder.backbone.side_information.vectors)
        photos, left, right = torch.from_numpy(bytes_for(2)), torch.tensor([0, 0]), torch.tensor([1, 1])
        found = embedder.embed(photos, left, flip_tta=True)
        assert torch.allclose(found, embedder.embed(photos.flip(-1), right, flip_tta=True), atol=1e-5)
        assert not torch.allclose(found, embedder.embed(photos.flip(-1), left, flip_tta=True), atol=1e-3)

    def test_takes_pixels_and_conditions_and_no_labels(self):
        """Trap 5: the test photo's own label reaches its embedding."""
        assert list(inspect.signature(Embedder.embed).parameters) == ["self", "photos", "conditions", "flip_tta"]
        assert list(inspect.signature(Backbone.forward).parameters) == ["self", "photos", "conditions"]
        embedder, photos = (
            told_embedder(),
            torch.from_numpy(bytes_for(3)),
        )  # labels are for training
        with torch.no_grad():
            told = embedder(photos, labels=torch.tensor([0, 1, 2])).after
            untold = embedder(photos).after
        assert all(torch.equal(told[name], untold[name]) for name in told)

    def test_conditions_are_of_the_named_columns_alone(self, cameras: Path):
        """Trap 5 again: whatever else the manifest says of a photo may change."""
        table = manifest.read(cameras).table
        others = [name for name in table.columns if name not in ("camera", "lens_mm")]
        shuffled = table.with_columns(table.select(others).reverse())
        found, same = (side_information_of(told_embedder(), one)[0] for one in (table, shuffled))
        assert found.tolist() == same.tolist()
        assert len(set(found.tolist())) == 4


def noting(function: Callable[..., Any]) -> Any:
    """The function, which keeps the conditions that it was given."""

    def noted(*arguments: Any, **options: Any) -> Any:
        noted.conditions.append(options["conditions"])
        return function(*arguments, **options)

    noted.conditions = []
    return noted


class TestARun:
    def test_training_photos_come_with_the_conditions_of_their_rows(
        self, cameras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        material, seen = load_dataset(micro(SIDE), cameras), []
        step = FineTuneModule.training_step

        def noted(module, batch, index):
            seen.extend(zip(batch.rows.tolist(), batch.conditions.tolist(), strict=True))
            return step(module, batch, index)

        monkeypatch.setattr(FineTuneModule, "training_step", noted)
        run = train(
            micro(SIDE, "stages.0.epochs=1", "stages.0.chirality=mirror_as_new_identity"), cameras, tmp_path / "r"
        )
        combinations = Embedder.load(run.model).backbone.side_information.combinations
        rows = material.manifest.table[material.split.train].select("camera", "lens_mm").rows()
        seen = seen[-2 * len(rows) :]  # before them come the few of the checks
        assert all(combinations[condition] == tuple(map(str, rows[row])) for row, condition in seen)
        assert len(set(seen)) == len(rows)

    def test_every_vector_of_a_training_photo_has_moved(self, run: Run, cameras: Path):
        recipe, material = run.recipe, load_dataset(run.recipe, cameras)
        combinations = seen_combinations(recipe, material)
        before = build_embedder(recipe, build_towers(recipe), combinations).backbone.side_information.vectors
        after = Embedder.load(run.stage(0, "fine_tune") / "last.safetensors").backbone.side_information.vectors
        assert len(before) == len(combinations) > 2
        assert not (before == after).all(dim=1).any()

    def test_validation_and_wise_ft_are_told(self, cameras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        told, walked = noting(embed_photos), noting(interpolation_curve)
        monkeypatch.setattr(photo_data, "embed_photos", told)
        monkeypatch.setattr(stage, "interpolation_curve", walked)
        run = train(micro(SIDE, "stages.0.epochs=1", "stages.0.wise_ft={alphas: [0.5]}"), cameras, tmp_path / "run")
        material = load_dataset(run.recipe, cameras)
        draws = material.split.validation
        rows = np.unique(np.concatenate([part for draw in draws for part in (draw.gallery, draw.query)]))
        for seen, of in ((told.conditions, rows), (walked.conditions, material.split.train)):
            expected = side_information_of(Embedder.load(run.model), material.manifest.table[of])[0]
            assert seen[0].tolist() == expected.tolist()
            assert len(set(seen[0].tolist())) > 1

    def test_the_evaluation_and_its_words_are_told(self, run: Run, cameras: Path, monkeypatch: pytest.MonkeyPatch):
        told, named = noting(embed_photos), noting(joint_features)
        monkeypatch.setattr(inference, "embed_photos", told)
        monkeypatch.setattr("handreid.evaluation.sections.zero_shot.joint_features", named)
        recipe, material = micro(SIDE, "evaluate.prompts={}"), load_dataset(run.recipe, cameras)
        seen = material.manifest.table.with_columns(aspect=pl.lit("dorsal"), side=pl.lit("left"))
        material = replace(material, manifest=replace(material.manifest, table=seen))
        assess._assess(run, recipe, material, [], [], NullProgress())
        rows = evaluated_rows(material.split)
        expected = side_information_of(Embedder.load(run.model), seen[rows])[0].tolist()
        assert len(set(expected)) > 1
        assert told.conditions[0].tolist() == named.conditions[0].tolist() == expected

    def test_the_test_and_the_table_of_embeddings_are_told(self, run: Run, cameras: Path, tmp_path: Path):
        found = embed(open_run(run.folder), tmp_path / "e.parquet")
        embedder, material = Embedder.load(run.model), load_dataset(run.recipe, cameras)
        job = stage.Job(
            run, run.recipe, stage.Handover(embedder, build_towers(run.recipe).text), material, NullProgress()
        )
        rows = np.arange(len(material.manifest))
        right, without = (embed_photos(embedder, job.decoded(rows), conditions=c) for c in (job.conditions(rows), None))
        assert np.allclose(np.array(found["embedding"].to_list()), right, atol=1e-4)
        assert not np.allclose(right, without, atol=1e-4)

    def test_on_a_manifest_without_the_columns_all_are_unknown_and_that_is_said_once(
        self, run: Run, photos: Path, cameras: Path
    ):
        _, own = evaluated(open_run(run.folder))
        _, other = evaluated(open_run(run.folder), data=photos)
        (note,) = [note for note in other["notes"] if note.startswith("side information")]
        assert note.endswith("photos get the mean, as the manifest gives no camera and no lens")
        assert not [note for note in own["notes"] if note.startswith("side information")]
        one = embed(open_run(run.folder), run.folder / "e.parquet", data=photos)["embedding"].to_list()
        told = embed(open_run(run.folder), run.folder / "f.parquet")["embedding"].to_list()
        assert not np.allclose(one, told, atol=1e-4)

    def test_statistics_for_wise_ft_are_of_features_that_were_told(self):
        embedder, photos = told_embedder(), bytes_for(9)
        conditions = np.array([0, 0, 0, 1, 1, 1, 3, 3, UNKNOWN])
        recompute_batchnorm(embedder, photos, conditions=conditions, batch_size=4)
        with torch.no_grad():
            pooled = embedder(torch.from_numpy(photos), torch.from_numpy(conditions)).features.pooled
        assert torch.allclose(embedder.head.necks["pooled"].running_mean, pooled.mean(dim=0), atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize("column", ["subject", "path", "split", "draw", "origin", "caption"])
    def test_columns_that_say_who_it_is(self, column: str):
        with pytest.raises(RecipeError, match=f"columns {column} would reveal who is on a photo"):
            micro(f"model.side_information={{columns: [camera, {column}]}}")

    def test_a_column_named_twice(self):
        with pytest.raises(RecipeError, match="must not repeat a name"):
            micro("model.side_information={columns: [camera, camera]}")

    @pytest.mark.parametrize("chirality", ["flip", "mirror_as_new_identity"])
    def test_a_side_that_the_mirror_changes(self, chirality: str):
        side = "model.side_information={columns: [%s]}"
        with pytest.raises(RecipeError, match=f"chirality '{chirality}' mirrors right hands into left ones"):
            micro(side % "camera, side", f"stages.0.chirality={chirality}")
        micro(side % "camera", f"stages.0.chirality={chirality}")
        micro(side % "side")

    def test_photos_mixed_of_two(self):
        with pytest.raises(RecipeError, match=r"stages\.0\.mix mixes two photos"):
            micro(SIDE, "stages.0.mix={kind: mixup}")

    def test_without_a_stage_to_learn_in(self):
        with pytest.raises(RecipeError, match=r"model\.side_information starts from random weights"):
            micro(SIDE, "stages=[]")

    def test_a_manifest_that_lacks_a_column_names_those_it_has(self, photos: Path, tmp_path: Path):
        with pytest.raises(
            RecipeError, match=r"the manifest has no camera and no lens of the training photos; its columns .* path"
        ):
            train(micro(SIDE), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_column_with_a_value_of_its_own_for_each_person(self, cameras: Path, tmp_path: Path):
        """Trap 5 by another name: `id` beside `subject`, or a session per person."""
        made = manifest.read(cameras)
        copied = made.table.with_columns(id=pl.col("subject") + "-s1")
        replace(made, table=copied).write(tmp_path / "m.parquet")
        with pytest.raises(RecipeError, match=r"each value of id \(.* and \d+ more\) occurs with one person only"):
            train(micro("model.side_information={columns: [id]}"), tmp_path / "m.parquet", tmp_path / "run")
        assert not (tmp_path / "run").exists()
