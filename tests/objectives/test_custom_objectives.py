"""Losses that are not handreid's own: by name from a recipe, or as objects from Python."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handreid.build import build_objectives
from handreid.errors import CheckError, RecipeError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.models.heads import PlainHead
from handreid.objectives.table import OBJECTIVES
from handreid.objectives.triplet import Triplet
from handreid.progress import NullProgress
from handreid.recipe import FineTune, Recipe, dump_recipe, parse_recipe
from handreid.recipe.custom_term import CUSTOM, CustomTerm, fingerprint_of
from handreid.recipe.objectives import AnyTerm, CrossEntropy
from handreid.training.train import train
from handreid.types import Outputs, Targets
from tests.training.test_train import fit, history, micro, module_of

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

LOSSES = '''
import torch
from torch import nn

class Prototypes(nn.Module):
    """Squared distance to a learned place per identity."""

    def __init__(self, widths, identities, spread=0.1):
        super().__init__()
        drawn = {name: spread * torch.randn(identities, width) for name, width in widths.items()}
        self.places = nn.ParameterDict({name: nn.Parameter(places) for name, places in drawn.items()})
        self.register_buffer("batches", torch.zeros(()))
        self.epoch = 0.0

    def forward(self, outputs, targets):
        if self.training:
            self.batches += 1
        found = [outputs.before[k] - nn.functional.dropout(p)[targets.labels] for k, p in self.places.items()]
        return torch.stack([one.square().mean() for one in found]).sum() * (1 + self.epoch / 10)

    def undecayed(self):
        return list(self.places.parameters())

    def at_epoch(self, epoch):
        self.epoch = epoch

class Wrong(nn.Module):
    def __init__(self, give="vector"):
        super().__init__()
        self.give = give

    def forward(self, outputs, targets):
        return outputs.before["pooled"].mean(dim=1) if self.give == "vector" else outputs.before[self.give].mean()

def function(outputs, targets):
    return outputs.before["pooled"].mean()

class Outer:
    Inner = Prototypes
'''
FIRST = "{kind: cross_entropy, features: [joint]}"
BY_NAME = "{kind: 'hand_losses:Prototypes', weight: 0.5, lr: 0.02, arguments: {spread: 0.3}}"


class Spread(nn.Module):
    """With something to learn, and something that is drawn."""

    def __init__(self, strength: float = 1.0, features: Sequence[str] = ("pooled",)) -> None:
        super().__init__()
        self.strength = strength
        self.features = tuple(features)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        features = nn.functional.normalize(outputs.before[self.features[0]], dim=1)
        kept = features * torch.bernoulli(torch.full_like(features, 0.9))
        return self.strength * (self.scale**2 + (kept @ kept.T).exp().mean())


@pytest.fixture(autouse=True)
def hand_losses(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("losses")
    (folder / "hand_losses.py").write_text(LOSSES)
    (folder / "broken_losses.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "hand_losses", raising=False)


def by_name(*changes: str) -> Recipe:
    return micro(f"stages.0.objectives=[{FIRST}, {BY_NAME}]", *changes)


def with_object(module: nn.Module, **keys: object) -> Recipe:
    recipe = micro()
    (stage,) = recipe.stages
    terms = (CrossEntropy(features=("joint",)), CustomTerm(module=module, **keys))
    return recipe.model_copy(update={"stages": (stage.model_copy(update={"objectives": terms}),)})


class Said(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_every_kind_of_a_recipe_is_in_the_table_under_its_name():
    union = AnyTerm.__origin__.__args__  # type: ignore[attr-defined]
    kinds = {tag.tag: model for model, tag in ((one.__origin__, one.__metadata__[0]) for one in union)}
    assert kinds.pop(CUSTOM) is CustomTerm
    assert list(kinds) == list(OBJECTIVES)
    for kind, model in kinds.items():
        assert model.model_fields["kind"].default == kind
        assert OBJECTIVES[kind].__name__ == model.__name__


class TestByName:
    def test_it_is_a_term_as_any_other(self):
        module = module_of(by_name())
        own = module.objectives["1_Prototypes"].module
        assert own.places["pooled"].shape == (module.photos.identities, module.embedder.backbone.widths["pooled"])
        groups = {id(p): group for group in module.groups() for p in group["params"]}
        (places,) = own.places.parameters()
        assert groups[id(places)]["lr"] == 0.02
        assert groups[id(places)]["weight_decay"] == 0
        before = places.detach().clone()
        fit(module)
        assert not torch.equal(before, places)
        assert own.epoch > 2
        means = module_of(by_name()).training_step(module.photos[next(iter(module._batches(0)))], 0)
        assert means.isfinite()

    def test_it_is_logged_under_the_name_of_its_class_and_weighs_what_the_recipe_says(self):
        module = module_of(by_name())
        module.training_step(module.photos[next(iter(module._batches(0)))], 0)
        means = module.epoch_means()
        assert means["loss"] == pytest.approx(means["0_cross_entropy"] + 0.5 * means["1_Prototypes"], rel=1e-5)

    def test_it_begins_the_same_for_the_same_seed(self):
        states = [module_of(by_name(f"seed={seed}")).objectives.state_dict() for seed in (1, 1, 2)]
        name = "1_Prototypes.module.places.pooled"
        assert torch.equal(states[0][name], states[1][name])
        assert not torch.equal(states[0][name], states[2][name])

    def test_what_the_class_asks_for_is_filled_in_unless_it_is_given(self):
        stage = FineTune(
            objectives=[CustomTerm(kind="handreid.objectives.triplet:Triplet", features=("joint", "pooled"))]
        )
        made = build_objectives(stage, PlainHead({"joint": 4, "pooled": 8}, ()), 3, 0)["0_Triplet"]
        assert isinstance(made.module, Triplet)
        assert (made.module.features, made.module.neck) == (("joint", "pooled"), "before")
        stage = FineTune(objectives=[{"kind": "hand_losses:Outer.Inner", "arguments": {"identities": 7}}])
        made = build_objectives(stage, PlainHead({"pooled": 8}, ()), 3, 0)["0_Inner"]
        assert made.module.places["pooled"].shape == (7, 8)

    @pytest.mark.parametrize(
        ("term", "complaint"),
        [
            ("{kind: 'no_such_losses:X'}", "there is no module no_such_losses: install its package, or set PYTHONPATH"),
            ("{kind: 'hand_losses:Prototype'}", "hand_losses has no Prototype; did you mean Prototypes?"),
            ("{kind: 'hand_losses:function'}", "is no class of torch's nn.Module"),
            ("{kind: 'subprocess:Popen', arguments: {args: [touch, made]}}", "is no class of torch's nn.Module"),
            ("{kind: 'broken_losses:X'}", "importing broken_losses fails: ZeroDivisionError: division by zero"),
            ("{kind: 'hand_losses:Prototypes', arguments: {spraed: 1}}", "cannot be made of its arguments: .*spraed"),
            ("{kind: 'hand_losses:Prototypes', argument: {}}", "unknown key .*argument'; did you mean 'arguments'?"),
            ("{kind: './hand_losses.py:Wrong'}", "write package.module:Class as Python imports it"),
        ],
    )
    def test_what_is_wrong_is_said_before_there_is_a_folder(
        self, term: str, complaint: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RecipeError, match=complaint):
            train(micro(f"stages.0.objectives=[{term}]"), photos, tmp_path / "run")
        assert not list(tmp_path.iterdir())

    def test_a_file_that_lies_here_is_pointed_at(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "lying_losses.py").write_text(LOSSES)
        with pytest.raises(RecipeError, match=r"lying_losses\.py lies here, .* set PYTHONPATH=\."):
            module_of(micro("stages.0.objectives=[{kind: 'lying_losses:Wrong'}]"))

    @pytest.mark.parametrize(
        ("give", "complaint"),
        [
            ("vector", r"Wrong gave a tensor of torch.float32 of shape \(\d,\) .* one number"),
            ("penultimate", "looks for 'penultimate' and does"),
        ],
    )
    def test_what_a_loss_gives_wrongly_is_said(self, give: str, complaint: str, photos: Path, tmp_path: Path):
        term = f"{{kind: 'hand_losses:Wrong', arguments: {{give: {give}}}}}"
        recipe = micro(f"stages.0.objectives=[{FIRST}, {term}]")
        with pytest.raises(RecipeError, match=complaint):
            train(recipe, photos, tmp_path / "run")

    def test_photos_are_mixed_only_for_a_loss_that_says_that_it_knows_them(self):
        with pytest.raises(RecipeError, match=r"objectives.1 \(hand_losses:Prototypes\) compares identities"):
            by_name("stages.0.mix={kind: mixup}")
        assert by_name("stages.0.mix={kind: mixup}", "stages.0.objectives.1.mixed_photos=true").stages[0].mix
        with pytest.raises(RecipeError, match="rarely puts two in one"):
            by_name("stages.0.objectives.1.pairs=true")

    def test_training_says_what_it_imports_and_evaluating_imports_nothing(self, photos: Path, tmp_path: Path):
        said = Said()
        run = train(by_name("stages.0.epochs=1"), photos, tmp_path / "run", progress=said)
        assert "note: this recipe imports hand_losses, and runs the code in it" in said.lines
        del sys.modules["hand_losses"]
        evaluate(run)
        assert "hand_losses" not in sys.modules

    def test_a_recipe_is_written_and_read_without_its_module(self):
        recipe = micro("stages.0.objectives=[{kind: 'nowhere.at_all:Loss', arguments: {a: [1, 2]}}]")
        assert parse_recipe(dump_recipe(recipe), "again") == recipe
        assert recipe.stages[0].objectives[0].arguments == {"a": [1, 2]}


def stopped(recipe: Recipe, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from handreid.training.epoch_callback import EpochCallback

    checkpoint = EpochCallback._checkpoint

    def stop_after_the_second_epoch(self, trainer):
        checkpoint(self, trainer)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EpochCallback, "_checkpoint", stop_after_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, photos, out)


class TestResuming:
    @pytest.mark.parametrize("kind", ["name", "object"])
    def test_a_run_that_is_stopped_and_resumed_ends_the_same(
        self, kind: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def recipe() -> Recipe:
            return by_name() if kind == "name" else with_object(Spread(0.5), weight=0.3)

        whole = train(recipe(), photos, tmp_path / "elsewhere" / "whole")
        stopped(recipe(), photos, tmp_path / "stopped", monkeypatch)
        again = train(recipe(), photos, tmp_path / "stopped", resume=True)
        assert history(whole.folder) == history(again.folder)
        assert whole.model.read_bytes() == again.model.read_bytes()
        assert train(None, None, tmp_path / "stopped", resume=True) == again  # finished: nothing is imported

    def test_a_folder_alone_imports_nothing(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        out = tmp_path / "run"
        stopped(by_name(), photos, out, monkeypatch)
        del sys.modules["hand_losses"]
        with pytest.raises(RunError, match=f"handreid train {out}/recipe.yaml --resume --out {out}"):
            train(None, None, out, resume=True)
        assert "hand_losses" not in sys.modules
        assert train(parse_recipe((out / "recipe.yaml").read_text(), "its"), None, out, resume=True).finished

    def test_an_object_is_asked_for_again_and_must_be_the_same(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        out = tmp_path / "run"
        stopped(with_object(Spread(0.5)), photos, out, monkeypatch)
        with pytest.raises(RunError, match=r"objectives that are not handreid's own \(.*:Spread\).* from Python"):
            train(None, None, out, resume=True)
        with pytest.raises(RecipeError, match=r":Spread was given as an object from Python"):
            train(parse_recipe((out / "recipe.yaml").read_text(), "its"), None, out, resume=True)
        with pytest.raises(RunError, match=r"started with another recipe .*fingerprint.*settings"):
            train(with_object(Spread(0.6)), photos, out, resume=True)
        assert train(with_object(Spread(0.5)), photos, out, resume=True).finished

    def test_a_stage_beside_is_taken_over_only_with_the_same_object(self, photos: Path, tmp_path: Path):
        said = Said()
        first = train(with_object(Spread(0.5)), photos, tmp_path / "first")
        same = train(with_object(Spread(0.5)), photos, tmp_path / "same", progress=said)
        assert any("was copied from" in line for line in said.lines)
        other = train(with_object(Spread(5.0)), photos, tmp_path / "other")
        assert first.model.read_bytes() == same.model.read_bytes() != other.model.read_bytes()


class TestObjects:
    def test_an_object_stands_among_the_objectives(self):
        own = Spread(2.0, features=("joint",))
        stage = FineTune(objectives=[CrossEntropy(), own])
        term = stage.objectives[1]
        assert isinstance(term, CustomTerm)
        assert (term.kind, term.features) == ("tests.objectives.test_custom_objectives:Spread", ("joint",))
        assert FineTune(objectives=[{"module": own, "weight": 0.1}]).objectives[0].weight == 0.1

    def test_training_changes_a_copy(self):
        own = Spread()
        recipe = with_object(own)
        module = module_of(recipe)
        fit(module)
        trained = module.objectives["1_Spread"].module
        assert trained.scale.item() != 1
        assert own.scale.item() == recipe.stages[0].objectives[1].module.scale.item() == 1

    def test_what_is_done_to_it_after_the_recipe_changes_nothing(self):
        own = Spread(1.0)
        recipe = with_object(own)
        own.strength = 7.0
        assert module_of(recipe).objectives["1_Spread"].module.strength == 1.0

    def test_the_fingerprint_is_of_settings_and_weights(self):
        assert fingerprint_of(Spread(0.5)) == fingerprint_of(Spread(0.5))
        assert fingerprint_of(Spread(0.5)).split(", ")[0] != fingerprint_of(Spread(0.6)).split(", ")[0]
        moved = Spread(0.5)
        moved.scale.data += 1
        assert fingerprint_of(moved).split(", ")[0] == fingerprint_of(Spread(0.5)).split(", ")[0]
        assert fingerprint_of(moved) != fingerprint_of(Spread(0.5))
        assert fingerprint_of(nn.Sequential(nn.ReLU())) != fingerprint_of(nn.Sequential(nn.GELU()))

    @pytest.mark.parametrize(
        ("objectives", "complaint"),
        [
            ([Spread], r"FineTune: .*no object of nn.Module: give one"),
            ([{"module": Spread(), "kind": "a:B"}], "leave out kind and arguments"),
            ([{"module": 3}], "3 is no object of nn.Module"),
        ],
    )
    def test_what_is_no_object_is_refused(self, objectives: list[object], complaint: str):
        with pytest.raises(RecipeError, match=complaint):
            FineTune(objectives=objectives)

    def test_it_is_written_down_that_it_was_an_object(self):
        recipe = with_object(Spread())
        text = dump_recipe(recipe)
        assert "fingerprint: settings" in text
        assert dump_recipe(parse_recipe(text, "again")) == text

    def test_a_loss_that_leaves_the_photos_alone_fails_its_check(self, photos: Path, tmp_path: Path):
        class Idle(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(()))

            def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
                return self.weight + 0 * outputs.before["joint"].sum()

        with pytest.raises(CheckError, match="1_Idle has a gradient of zero at the features"):
            train(with_object(Idle()), photos, tmp_path / "run")
