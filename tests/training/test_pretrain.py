"""Pre-training: terms are their definitions, collapse is named, nothing leaks, towers are handed on."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from handreid.build import build_embedder, build_towers
from handreid.data.manifest import read
from handreid.errors import CheckError, ProtocolError, RecipeError, RunError, WeightsError
from handreid.evaluation.evaluate import evaluate
from handreid.models.embedder import Embedder
from handreid.objectives.momentum_contrast import momentum_contrast
from handreid.objectives.supcon import supervised_contrast
from handreid.recipe import Recipe, load_recipe, parse_recipe
from handreid.recipe.pretrain_terms import Collapse
from handreid.report.figures.training import _ORDER
from handreid.report.figures.training_series import training_series
from handreid.report.page.summary_text import describe_run
from handreid.runs.folder import Run
from handreid.runs.pretrained_weights import towers_of
from handreid.training.stages.pretrain.captions import Captions
from handreid.training.stages.pretrain.measured import measured_numbers
from handreid.training.stages.pretrain.module import PretrainModule
from handreid.training.stages.pretrain.statistics import Spread, signs_of_collapse
from handreid.training.stages.pretrain.terms import CrossEntropy, ImageText, Measurements, Moco, SupCon
from handreid.training.stages.pretrain.terms.base import Encoded
from handreid.training.train import train
from handreid.types import Features
from handreid.workflows.export_towers import export_towers
from tests.conftest import MICRO_RECIPE
from tests.training.resumed import whole_and_resumed
from tests.training.test_train import history

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

COMMON = "optimizer: {kind: adamw, lr: 1.0e-3, schedule: {kind: cosine}}, augment: [{kind: crop, enlarge: 1.25}]"
SMALL = "hidden: 32, width: 16"
QUEUE = f"{{kind: moco, queue: 12, momentum: 0.9, {SMALL}}}"
BY_PHOTO = f"{{kind: supcon, labels: photo, weight: 0.5, {SMALL}}}"
PK = "sampler: {kind: pk, identities: 4}"
SUPCON = f"{{kind: pretrain, epochs: 1, terms: [{{kind: supcon, {SMALL}}}], {PK}, {COMMON}}}"
MOCO = f"{{kind: pretrain, epochs: 2, batch_size: 8, terms: [{QUEUE}], {COMMON}}}"
TERMS = f"{QUEUE}, {BY_PHOTO}, {{kind: image_text, weight: 2}}"
ALL = f"{{kind: pretrain, epochs: 2, batch_size: 8, learns: both, terms: [{TERMS}], {COMMON}}}"
LABELLED = (
    "{kind: cross_entropy, weight: 0.5}, {kind: supcon, views: 1, projected: false}, "
    "{kind: measurements, columns: [length, sizes]}"
)
IDENTITIES = f"{{kind: pretrain, epochs: 2, terms: [{LABELLED}], {PK}, {COMMON}}}"
LIT = (
    f"{{kind: pretrain, epochs: 1, batch_size: 8, learns: text, terms: [{{kind: image_text, loss: siglip}}], {COMMON}}}"
)


def recipe_of(*stages: str, **keys: object) -> Recipe:
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in keys.items()]
    return parse_recipe(MICRO_RECIPE, "micro", [f"stages=[{', '.join(stages)}]", *overrides])


@pytest.fixture(scope="module")
def captioned(photos: Path) -> Path:
    """The photos, with one or two wordings each."""
    made = read(photos)
    names = [chr(97 + row // 4) for row in range(len(made))]
    words = [f"a photo of hand {name}" + (f" | hand {name}" if row % 2 else "") for row, name in enumerate(names)]
    path = made.root / "captioned.parquet"
    replace(made, table=made.table.with_columns(pl.Series("caption", words))).write(path)
    return path


@pytest.fixture(scope="module")
def unlabelled(photos: Path) -> Path:
    made = read(photos)
    path = made.root / "unlabelled.parquet"
    replace(made, table=made.table.with_columns(pl.lit(None, pl.String).alias("subject"))).write(path)
    return path


@pytest.fixture(scope="module")
def measured(photos: Path) -> Path:
    """The photos, with two columns of numbers that depend on the subject."""
    made = read(photos)
    subjects = made.table["subject"].rank("dense").to_list()
    lengths = [value / 2 for value in subjects]
    sizes = [f"{value % 3} 7 {-value}" for value in subjects]
    path = made.root / "measured.parquet"
    columns = (pl.Series("length", lengths), pl.Series("sizes", sizes))
    replace(made, table=made.table.with_columns(*columns)).write(path)
    return path


@pytest.fixture(scope="module")
def runs(captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run with all terms and both towers, and the same resumed after its first epoch."""
    return whole_and_resumed(recipe_of(ALL), captioned, tmp_path_factory.mktemp("all"), epoch=1)


@pytest.mark.parametrize("name", ["pretrain-supcon", "pretrain-moco", "pretrain-image-text", "lit"])
def test_built_in_recipes_train(name: str, captioned: Path, tmp_path: Path):
    micro = parse_recipe(MICRO_RECIPE, "micro")
    stage = load_recipe(name).stages[0]
    small = ["init_from=null", f"model.backbone={micro.model.backbone.model_dump_json()}", "stages.0.epochs=1"]
    small += ["stages.0.optimizer.schedule.warmup_epochs=0", "stages.0.validate_every=1"]
    small += [f"stages.0.terms.{n}.queue=12" for n, term in enumerate(stage.terms) if term.kind == "moco"]
    small += ["stages.0.batch_size=8"] if stage.batch_size else []
    run = train(load_recipe(name, small), captioned, tmp_path / name)
    (epoch,) = history(run.folder)
    assert math.isfinite(epoch["loss"])
    assert run.text.exists() == (stage.learns != "image")


def test_the_recipe_of_the_embedded_weights_draws_its_photos_and_ends_with_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    small = ["data.rendered={identities: 10, photos: 8, size: 32, seed: 3}", "data.test_share=0.2"]
    small += ["data.validation_share=0.2", "model.backbone.image_size=32", "stages.0.sampler.identities=8"]
    small += [f"stages.{n}.{key}" for n in (0, 1) for key in ("epochs=1", "optimizer.schedule.warmup_epochs=0")]
    run = train(load_recipe("pretrain-tiny", small), None, tmp_path / "run")
    assert [epoch["stage"] for epoch in history(run.folder)] == [0, 1]
    assert all(math.isfinite(epoch["loss"]) for epoch in history(run.folder))
    exported = tmp_path / "towers.safetensors"
    export_towers(run, exported)
    start = ["data.seed=0", f"model.backbone.weights={exported}", "model.backbone.image_size=32"]
    towers = build_towers(load_recipe("small-zero-shot", start))
    own = load_file(run.towers)["visual.conv1.weight"]
    assert torch.allclose(towers.image.conv1.weight, own, atol=1e-3)


def encoded(joint: Tensor, labels: list[int], measured: Tensor | None = None) -> Encoded:
    features = Features(joint, joint, joint, joint[:, None, None])
    numbers = torch.tensor(labels)
    return Encoded([], [features], numbers, numbers, measured=measured)


def unit(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


class TestDefinitions:
    def test_momentum_contrast_is_its_definition_and_leaves_out_keys_of_the_same_photo(self):
        queries, keys, queue = unit(3), unit(3, seed=1), unit(6, seed=2)
        same = torch.zeros(3, 6, dtype=torch.bool)
        same[1, 4] = True
        loss, accuracy = momentum_contrast(queries, keys, queue, same, 0.2)
        terms, hits = [], 0
        for i in range(3):
            own = math.exp(float(queries[i] @ keys[i]) / 0.2)
            others = [math.exp(float(queries[i] @ queue[k]) / 0.2) for k in range(6) if not same[i, k]]
            terms.append(-math.log(own / (own + sum(others))))
            hits += own > max(others)
        assert math.isclose(float(loss), sum(terms) / 3, rel_tol=1e-5)
        assert float(accuracy) == pytest.approx(hits / 3)

    @pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 0, 1, 0, 0, 1]], ids=["simclr", "supcon"])
    def test_supervised_contrast_of_two_views_is_its_definition(self, labels: list[int]):
        views, terms = unit(6), []
        for i in range(6):
            others = [a for a in range(6) if a != i]
            total = sum(math.exp(float(views[i] @ views[a]) / 0.1) for a in others)
            positives = [p for p in others if labels[p] == labels[i]]
            logs = [math.log(math.exp(float(views[i] @ views[p]) / 0.1) / total) for p in positives]
            terms.append(-sum(logs) / len(positives))
        loss = supervised_contrast(3 * views, torch.tensor(labels), 0.1)
        assert math.isclose(float(loss), sum(terms) / 6, rel_tol=1e-5)

    @pytest.mark.parametrize("kind", ["clip", "siglip"])
    def test_photos_and_captions_are_compared_as_defined(self, kind: Any):
        text = build_towers(recipe_of()).text
        term = ImageText(text, loss=kind, temperature=0.2, learns="both")
        photos, captions = unit(3), unit(3, seed=1)
        logits = [
            [float(photos[i] @ captions[k]) / 0.2 + (term.bias or torch.zeros(())).item() for k in range(3)]
            for i in range(3)
        ]
        if kind == "clip":
            rows = [-math.log(math.exp(logits[i][i]) / sum(math.exp(v) for v in logits[i])) for i in range(3)]
            cols = [-math.log(math.exp(logits[i][i]) / sum(math.exp(row[i]) for row in logits)) for i in range(3)]
            expected = (sum(rows) + sum(cols)) / 6
        else:
            pairs = [(logits[i][k], 1 if i == k else -1) for i in range(3) for k in range(3)]
            expected = sum(math.log(1 + math.exp(-sign * value)) for value, sign in pairs) / 3
        assert term._loss(photos, captions, text.clip.logit_scale.exp()).item() == pytest.approx(expected, rel=1e-5)

    def test_effective_rank_and_spread(self):
        spread = Spread()
        for part in torch.eye(4).repeat(3, 1).split(5):
            spread.add(part)
        assert spread.spread() == pytest.approx(math.sqrt(0.75))
        assert spread.effective_rank() == pytest.approx(3)  # four directions around their mean
        alike = Spread()
        alike.add(torch.ones(6, 4))
        assert (alike.spread(), alike.effective_rank()) == pytest.approx((0, 1), abs=1e-3)

    def test_cross_entropy_of_a_batch_norm_and_a_classifier_is_its_definition(self):
        term = CrossEntropy(4, 3, feature="joint", label_smoothing=0.1).train()
        torch.nn.init.normal_(term.classifier.weight)
        joint, labels = unit(5, 4), [0, 2, 1, 0, 2]
        result = term(encoded(joint, labels))
        deviations = (joint.var(dim=0, unbiased=False) + 1e-5).sqrt()
        logits = ((joint - joint.mean(dim=0)) / deviations @ term.classifier.weight.T).tolist()
        total = 0.0
        for row, label in zip(logits, labels, strict=True):
            norm = math.log(sum(math.exp(value) for value in row))
            total -= sum((0.9 * (k == label) + 0.1 / 3) * (value - norm) for k, value in enumerate(row))
        assert result.loss.item() == pytest.approx(total / 5, rel=1e-4)
        right = sum(max(range(3), key=row.__getitem__) == label for row, label in zip(logits, labels, strict=True))
        assert float(result.numbers["accuracy"]) == pytest.approx(right / 5)

    def test_one_view_is_compared_without_a_projection(self):
        arguments = {"feature": "joint", "by_photo": False, "temperature": 0.1, "hidden": 8, "width": 4}
        term = SupCon(5, views=1, projected=False, **arguments)
        joint, labels = unit(4), [0, 1, 0, 1]
        assert term(encoded(joint, labels)).loss == supervised_contrast(joint, torch.tensor(labels), 0.1)
        assert term.new_layers() == []

    def test_numbers_are_scaled_and_those_that_are_equal_left_out(self):
        photos = pl.DataFrame({"path": ["a", "b", "c"], "length": [1, 2, 3], "sizes": ["0 7 5.5", "0 7 5", "3 7 4.5"]})
        numbers = measured_numbers(photos, ["length", "sizes"])
        root = math.sqrt(1.5)
        expected = [[-root, -math.sqrt(0.5), root], [0, -math.sqrt(0.5), 0], [root, math.sqrt(2), -root]]
        torch.testing.assert_close(numbers, torch.tensor(expected))
        term = Measurements(5, 3, feature="joint")
        joint = unit(3)
        error = (term.predictor(joint) - numbers).square()
        result = term(encoded(joint, [0, 1, 2], numbers))
        torch.testing.assert_close(result.loss, error.mean())
        torch.testing.assert_close(result.numbers["smallest_error"], error.mean(dim=0).min())

    def test_a_wording_is_drawn_by_the_photos_seed(self):
        captions = Captions(torch.tensor([[1, 2], [3, 4], [5, 6]]), ((0,), (1, 2)))
        assert captions.drawn([(0, 7), (1, 8), (1, 9)]).tolist() == [[1, 2], [3, 4], [5, 6]]


class TestMoco:
    @pytest.fixture
    def term(self) -> Moco:
        recipe = recipe_of()
        backbone = build_embedder(recipe, build_towers(recipe)).backbone
        options: dict[str, Any] = {"feature": "joint", "version": "queue", "hidden": 8, "width": 4}
        return Moco(backbone, queue=5, momentum=0.9, temperature=0.2, **options)

    def test_the_queue_replaces_its_oldest_keys(self, term: Moco):
        keys = unit(9, 4)
        for places in ([0, 1], [2, 3], [4, 5]):
            term._enqueue(keys[places], torch.tensor(places))
        assert term.queue_places.tolist() == [5, 1, 2, 3, 4]
        assert torch.equal(term.queue, keys[[5, 1, 2, 3, 4]])
        assert int(term.queue_next) == 1
        term._enqueue(keys[:7], torch.arange(7))
        assert sorted(term.queue_places.tolist()) == [2, 3, 4, 5, 6]

    def test_the_key_encoder_follows_by_its_momentum(self, term: Moco):
        recipe = recipe_of(seed=1)
        other = build_embedder(recipe, build_towers(recipe)).backbone
        before = term.key_backbone.visual.conv1.weight.clone()
        term.after_step(other)
        expected = 0.9 * before + 0.1 * other.visual.conv1.weight
        assert torch.allclose(term.key_backbone.visual.conv1.weight, expected)


class TestARun:
    def test_it_resumes_to_the_same_bits_queue_and_key_encoder_included(self, runs: tuple[Run, Run]):
        whole, resumed = runs
        assert whole.model.read_bytes() == resumed.model.read_bytes()
        assert whole.towers.read_bytes() == resumed.towers.read_bytes()
        states = [torch.load(run.folder / "stages/0-pretrain/last.ckpt")["state_dict"] for run in runs]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert bool((states[0]["terms.0_moco.queue_places"] >= 0).all())

    def test_what_is_logged_and_checked(self, runs: tuple[Run, Run]):
        entry = history(runs[0].folder)[-1]
        assert entry["loss"] == pytest.approx(
            entry["0_moco"] + 0.5 * entry["1_supcon"] + 2 * entry["2_image_text"], rel=1e-5
        )
        watched = {"moco", "supcon", "image_text_photos", "image_text_captions"}
        assert {f"features_{name}_{what}" for name in watched for what in ("spread", "effective_rank")} <= entry.keys()
        assert {"features_moco_queue_accuracy", "features_image_text_temperature"} <= entry.keys()
        panels = {panel.name: panel for stage in training_series(runs[0]) for panel in stage.panels}
        assert panels.keys() <= set(_ORDER)
        assert "captions spread" in [line.name for line in panels["features"].series]
        checks = json.loads((runs[0].folder / "stages/0-pretrain/checks.json").read_text())["checks"]
        assert {"views", "queue", "key_encoder", "preprocessing", "frozen"} <= {check["name"] for check in checks}
        assert "both towers are trained for 2 epochs" in describe_run(runs[0].recipe, None)

    def test_both_towers_start_any_recipe(self, runs: tuple[Run, Run], captioned: Path, tmp_path: Path):
        run, _ = runs
        child = train(recipe_of(model__backbone__weights=run.folder), captioned, tmp_path / "child")
        trained, started = towers_of(run).text, towers_of(child).text
        assert all(torch.equal(value, started.state_dict()[name]) for name, value in trained.state_dict().items())
        stored = load_file(run.towers)
        assert torch.equal(stored["visual.conv1.weight"], load_file(child.model)["backbone.visual.conv1.weight"])
        assert not torch.equal(stored["visual.conv1.weight"], build_towers(recipe_of()).image.conv1.weight)
        exposures = json.loads((child.folder / "training-photos.json").read_text())["exposures"]
        assert [len(exposure["photos"]["path"]) > 0 for exposure in exposures] == [False, True]
        other = recipe_of(model__backbone__weights=run.towers, data__seed=5)
        with pytest.raises(ProtocolError, match=r"model.backbone.weights: .* was trained or chosen with"):
            train(other, captioned, tmp_path / "leaks")
        with pytest.raises(WeightsError, match=r"has no towers\.safetensors"):
            train(recipe_of(model__backbone__weights=child.folder), captioned, tmp_path / "none")

    def test_the_text_tower_alone_learns_for_a_frozen_image_tower(self, captioned: Path, tmp_path: Path):
        run = train(
            recipe_of(LIT, evaluate__prompts="{}", evaluate__draws=1, evaluate__resamples=100),
            captioned,
            tmp_path / "lit",
        )
        before, after = build_towers(recipe_of()), load_file(run.towers)
        assert all(torch.equal(value, after[f"visual.{name}"]) for name, value in before.image.state_dict().items())
        assert not torch.equal(before.text.clip.text_projection, after["text_projection"])
        assert run.text.exists()
        assert evaluate(run)[1].metrics["map"].value > 0

    def test_photos_without_subjects_are_enough_where_no_label_is_read(self, unlabelled: Path, tmp_path: Path):
        run = train(
            recipe_of(MOCO.replace("queue: 12", "version: v3").replace("epochs: 2", "epochs: 1")),
            unlabelled,
            tmp_path / "run",
        )
        assert any("no photo has a subject: 48 photos to train on" in note for note in run.facts["notes"])
        with pytest.raises(ProtocolError, match="nothing can be tested: give photos of known people"):
            evaluate(run)
        with pytest.raises(ProtocolError, match="none of the 48 photos has a subject"):
            train(recipe_of(SUPCON), unlabelled, tmp_path / "labels")

    def test_a_collapsed_run_ends_with_its_sign(self, photos: Path, tmp_path: Path):
        """A weight decay so large that nothing is left of the weights, and all features are the same."""
        recipe = recipe_of(
            SUPCON.replace("epochs: 1", "epochs: 4").replace(
                "lr: 1.0e-3", "lr: 1.0e-3, new_layers: 1, weight_decay: 999"
            ),
            stages__0__optimizer__schedule="{kind: constant}",
        )
        with pytest.raises(
            RunError, match=r"collapsed in epoch 2 of 4: supcon_spread .* all features are nearly equal"
        ):
            train(recipe, photos, tmp_path / "run")
        assert len(history(tmp_path / "run")) == 2

    def test_views_that_are_the_same_are_refused(self, photos: Path, tmp_path: Path):
        same = MOCO.replace("{kind: crop, enlarge: 1.25}", "{kind: crop, enlarge: 1}")
        with pytest.raises(CheckError, match=r"views: both views of .* photos are the same, byte for byte"):
            train(recipe_of(same), photos, tmp_path / "run")

    def test_a_key_encoder_that_takes_a_gradient_is_refused(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        made = PretrainModule.__init__

        def leaking(self: PretrainModule, *arguments: Any, **named: Any) -> None:
            made(self, *arguments, **named)
            for parameter in next(iter(self.terms.values())).key_projection.parameters():
                parameter.requires_grad_(True)

        monkeypatch.setattr(PretrainModule, "__init__", leaking)
        with pytest.raises(CheckError, match=r"key_encoder: 4 parameters of 0_moco's key encoder take a gradient"):
            train(recipe_of(MOCO), photos, tmp_path / "run")


def test_identities_and_measurements_teach_and_resume_to_the_same_bits(measured: Path, tmp_path: Path):
    whole, resumed = whole_and_resumed(recipe_of(IDENTITIES), measured, tmp_path, epoch=1)
    assert whole.model.read_bytes() == resumed.model.read_bytes()
    first, last = history(whole.folder)
    assert {"cross_entropy", "supcon", "measurements"} <= {name.split("_", 1)[1] for name in last if name[0].isdigit()}
    assert last["2_measurements"] < first["2_measurements"]
    assert {"features_cross_entropy_accuracy", "features_measurements_smallest_error"} <= last.keys()
    embedder = build_embedder(recipe_of(IDENTITIES), build_towers(recipe_of(IDENTITIES)))
    assert Embedder.load(whole.model).state_dict().keys() == embedder.state_dict().keys()  # no classifier, no predictor


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("span", 1.0, r"reads the column 'length', but the manifest has .*; rendered hands have `anatomy`"),
        ("length", "1 two", r"needs 2 finite number\(s\) in 'length' for every training photo, but .* has '1 two'"),
        ("length", math.inf, r"needs 1 finite number\(s\) in 'length' .* has 'inf'"),
        ("length", 4.0, r"measurements: length is the same for all 2 training photos"),
    ],
)
def test_columns_that_hold_no_measurements_are_named(column: str, value: object, message: str):
    photos = pl.DataFrame({"path": ["a.jpg", "b.jpg"], column: [value, value]})
    with pytest.raises(RecipeError, match=message):
        measured_numbers(photos, ["length"])


def test_signs_of_collapse():
    limits = Collapse()
    good = {"features_moco_spread": 0.5, "features_moco_effective_rank": 9.0, "features_image_text_temperature": 0.07}
    assert signs_of_collapse(good, limits) == []
    bad = {"features_moco_effective_rank": 1.1, "features_image_text_temperature": 0.95}
    assert [sign.split(" is ")[0] for sign in signs_of_collapse(bad, limits)] == [
        "moco_effective_rank 1.1",
        "image_text_temperature 0.95",
    ]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (SUPCON.replace("kind: pk, identities: 4", "kind: random"), "use sampler: {kind: pk}, or labels: photo"),
        (MOCO.replace("batch_size: 8", "sampler: {kind: pk}"), "no term reads identities"),
        (MOCO.replace("batch_size: 8", "learns: text"), "moco trains the image tower"),
        (MOCO.replace("batch_size: 8", "learns: both"), "no term reads captions"),
        (LIT.replace("batch_size: 8", "chirality: flip"), "its caption would still say right"),
        (MOCO.replace("enlarge: 1.25", "enlarge: 2}, {kind: affine"), "21% of a photo in a view"),
        (MOCO.replace("{kind: crop, enlarge: 1.25}", ""), "both views of a photo would be the same"),
        (MOCO.replace("terms: [", "terms: [{kind: moco}, "), "moco more than once"),
        (MOCO.replace(QUEUE, "{kind: supcon, labels: photo, views: 1}"), "the only positive is the photo's other view"),
        (LIT.replace("batch_size: 8", "keep: best"), "no epoch changes the identification"),
        (f"{{kind: learn_prompts}}, {LIT}", "put it after the pre-training"),
    ],
)
def test_recipes_that_cannot_work_are_refused(stage: str, message: str):
    with pytest.raises(RecipeError, match=message.replace("{", r"\{")):
        recipe_of(stage)


def test_photos_without_a_caption_are_named(photos: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"20 of 20 have none in the manifest's column `caption` \(such as p"):
        train(recipe_of(LIT), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()
