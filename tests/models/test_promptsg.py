"""PromptSG: words that differ by photo, a text tower that never learns, attention that stays within a photo."""

import inspect
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from handreid.build import build_embedder, build_towers
from handreid.data.splits import evaluated_rows
from handreid.errors import RecipeError
from handreid.evaluation.embedding_cache import read_cache
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.sections.inference_modes import compare_modes, inference_mode, parameters, time_modes
from handreid.files import file_hash
from handreid.inference import load_embedder
from handreid.models.cross_attention import Block, Interaction
from handreid.models.embedder import Embedder
from handreid.models.pseudo_words import FrozenText, PseudoWordEncoder
from handreid.models.text import TextEncoder
from handreid.objectives.symmetric_contrast import SymmetricContrast
from handreid.progress import NullProgress
from handreid.recipe import Recipe, load_recipe
from handreid.runs.dataset import load_dataset
from handreid.runs.results import InferenceModes
from handreid.training.epoch_callback import EpochCallback
from handreid.training.train import train
from handreid.types import Features, Outputs, Targets
from tests.plain_results import evaluated, plain
from tests.training.test_train import fit, micro, module_of

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

HEAD = "model.head={kind: promptsg}"
PARTS = "model.test_feature={features: [pooled, parts], neck: after}"
TERMS = "stages.0.objectives=[{kind: cross_entropy, features: [pooled, parts]}, {kind: symmetric_contrast}]"


def promptsg(*overrides: str) -> Recipe:
    return micro(HEAD, PARTS, TERMS, *overrides)


def embedder_of(*overrides: str) -> Embedder:
    recipe = promptsg(*overrides)
    return build_embedder(recipe, build_towers(recipe))


def photos_of(count: int = 6) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def tower() -> TextEncoder:
    return build_towers(micro()).text


class TestWords:
    def words(self, tokens: int = 1, template: str = "A photo of a {context} hand.") -> PseudoWordEncoder:
        torch.manual_seed(0)
        return PseudoWordEncoder(tower(), 32, template=template, tokens=tokens, hidden=16)

    @pytest.mark.parametrize("tokens", [1, 3])
    def test_two_photos_have_two_texts(self, tokens: int):
        """Trap 1: read at the start of a causal tower, all would be alike."""
        features = self.words(tokens)(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)))
        distances = torch.cdist(features, features) + torch.eye(4)
        assert distances.min() > 1e-3

    @pytest.mark.parametrize("template", ["A photo of a {context} hand.", "{context} hand", "a hand, {context}"])
    def test_the_feature_is_that_of_the_sentence_with_these_words(self, template: str):
        """With the embeddings of real tokens in the place it is what the tower makes of the sentence in words."""
        words = self.words(template=template)
        (token,) = words.text.tower.pieces("pale")
        contexts = words.text.tower.vocabulary[token].expand(2, 1, -1)
        wanted = words.text.tower.encode([template.format(context="pale")])
        torch.testing.assert_close(words.read(contexts), wanted.expand(2, -1), rtol=1e-4, atol=1e-5)

    def test_the_feature_is_read_where_the_text_ends(self):
        words = self.words()
        called = []
        real = words.text.tower.encode_embedded
        words.text.tower.encode_embedded = lambda embedded, ends: (
            called.append((embedded, ends)) or real(embedded, ends)
        )
        words(torch.randn(3, 32))
        ((embedded, ends),) = called
        end = words.text.tower.vocabulary[words.text.tower.ends[1]]
        assert torch.equal(embedded[torch.arange(3), ends], end.expand(3, -1))

    def test_words_begin_as_long_as_those_of_the_vocabulary(self):
        words = self.words(tokens=4)
        made = words.inversion(torch.randn(256, 32))
        assert 0.5 < made.std() / words.text.tower.vocabulary.std() < 2

    def test_the_gradient_goes_through_the_tower_to_the_network_and_leaves_the_tower_alone(self):
        words = self.words()
        assert words.train().text.tower.training is False
        joint = torch.randn(4, 32, requires_grad=True)
        words(joint)[:, 0].sum().backward()
        assert joint.grad is not None
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in words.inversion.parameters())
        assert all(p.grad is None and not p.requires_grad for p in words.text.tower.parameters())

    def test_a_tower_that_cannot_be_prompted_is_refused(self):
        text = TextEncoder(tower().clip, lambda texts: torch.zeros(len(texts), 8, dtype=torch.long))
        with pytest.raises(RecipeError, match="prompts need CLIP's own text tower"):
            FrozenText(text)

    def test_the_tower_follows_to_other_devices_and_types(self):
        words = self.words().to("meta")
        assert {p.device.type for p in words.text.tower.parameters()} == {"meta"}


class TestInteraction:
    def interaction(self, **arguments: Any) -> Interaction:
        torch.manual_seed(0)
        return Interaction(16, 24, heads=4, dropout=0.0, projection=None, **arguments)

    def inputs(self, count: int = 4, side: int = 3) -> tuple[Tensor, Tensor, Tensor]:
        draw = torch.Generator().manual_seed(3)
        shapes = ((count, 16), (count, 16), (count, side, side, 24))
        return tuple(torch.randn(shape, generator=draw) for shape in shapes)

    def test_the_text_asks(self):
        """Trap 11: the output ignores its query."""
        text, image, patches = self.inputs()
        changed = self.interaction()(text.flip(0), image, patches)
        assert (changed - self.interaction()(text, image, patches)).norm(dim=1).min() > 1e-2

    def test_even_where_there_is_one_place_to_look_at(self):
        """A softmax over one key is 1 whatever the query: only the residual brings it on."""
        torch.manual_seed(0)
        block, key = Block(16, 4, 0.0), torch.randn(2, 1, 16)
        first, second = torch.randn(2, 1, 16), torch.randn(2, 1, 16)
        alone = [block.attention(query, key, key, need_weights=False)[0] for query in (first, second)]
        assert torch.allclose(*alone)
        assert not torch.allclose(block(first, key), block(second, key), atol=1e-3)

    @pytest.mark.parametrize("which", [1, 2])
    def test_the_class_token_and_every_patch_are_seen(self, which: int):
        inputs = self.inputs()
        image, patches = inputs[1].requires_grad_(), inputs[2].requires_grad_()
        (self.interaction()(*inputs) ** 3).sum().backward()
        grad = (image, patches)[which - 1].grad
        assert grad.ne(0).any(dim=-1).all()

    def test_other_photos_of_the_batch_are_not_seen(self):
        """Trap 11: attention across the batch."""
        text, image, patches = self.inputs()
        together = self.interaction()(text, image, patches)
        others = [torch.cat([one[:1], 5 - one[1:].flip(0)]) for one in (text, image, patches)]
        torch.testing.assert_close(self.interaction()(*others)[0], together[0])
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(self.interaction()(text[order], image[order], patches[order]), together[order])

    def test_patches_begin_where_the_towers_projection_puts_them(self):
        embedder = embedder_of()
        assert torch.equal(embedder.head.interaction.project.weight, embedder.backbone.visual.proj.T)
        assert embedder.head.interaction.project.weight.data_ptr() != embedder.backbone.visual.proj.data_ptr()

    def test_heads_must_divide_the_joint_width(self):
        with pytest.raises(RecipeError, match=r"heads is 5, which does not divide 32, .* one of 1, 2, 4, 8, 16"):
            embedder_of("model.head.heads=5")

    def test_a_resnet_has_a_projection_of_its_own(self):
        vision = "{image_size: 64, layers: [1, 1, 1, 1], width: 4, patch_size: null, head_width: 32}"
        embedder = embedder_of(f"model.backbone.config.vision_cfg={vision}")
        photos = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        assert embedder.embed(photos).shape == (2, embedder.dim)


class TestHead:
    def test_one_part_beside_the_features_and_a_text_for_every_photo(self):
        embedder = embedder_of().train()
        outputs = embedder(photos_of())
        assert embedder.head.parts == ("semantic",)
        assert set(outputs.before) == {"joint", "pooled", "semantic"}
        assert set(outputs.after) == {"pooled", "semantic"}
        assert outputs.texts.shape == outputs.features.joint.shape

    def test_other_heads_have_none_and_hold_no_tower(self):
        embedder = build_embedder(micro(), build_towers(micro()))
        assert embedder(photos_of()).texts is None
        assert embedder.head.frozen() == {}

    def test_embedding_takes_no_labels(self):
        """Trap 5."""
        assert set(inspect.signature(Embedder.embed).parameters) == {"self", "photos", "conditions", "flip_tta"}

    @pytest.mark.parametrize("mode", ["composed", "fixed"])
    def test_an_embedding_is_of_its_photo_alone(self, mode: str):
        """Traps 5 and 11: neither labels nor other photos of the batch."""
        embedder, photos = embedder_of(f"model.head.inference={mode}"), photos_of()
        together = embedder.embed(photos)
        others = torch.cat([photos[:1], photos[1:].flip(0).bitwise_not()])
        torch.testing.assert_close(embedder.embed(others)[0], together[0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together[0], together[1], atol=1e-4)
        with torch.no_grad():
            for labels in (torch.zeros(6, dtype=torch.long), torch.arange(6)):
                assert torch.equal(
                    embedder(photos, labels=labels).before["semantic"], embedder(photos).before["semantic"]
                )

    def test_the_part_depends_on_the_words(self):
        embedder, photos = embedder_of(), photos_of()
        with torch.no_grad():
            before = embedder(photos).before["semantic"]
            embedder.head.words.inversion[-1].bias.add_(torch.randn(32, generator=torch.Generator().manual_seed(0)))
            assert not torch.allclose(embedder(photos).before["semantic"], before, atol=1e-3)

    def test_training_composes_whatever_the_test_does(self):
        embedder = embedder_of("model.head.inference=fixed")
        assert embedder.eval()(photos_of()).texts is None
        assert embedder.train()(photos_of()).texts is not None

    def test_the_fixed_sentence_is_cached_and_the_tower_does_not_run(self):
        embedder = embedder_of()
        runs = []
        embedder.head.words.text.tower.clip.transformer.register_forward_hook(lambda *_: runs.append(1))
        embedder.embed(photos_of())
        assert len(runs) == 1
        with inference_mode(embedder, "fixed"):
            fixed = embedder.embed(photos_of())
        assert len(runs) == 1
        assert not torch.allclose(fixed, embedder.embed(photos_of()), atol=1e-4)
        wanted = embedder.head.words.text.tower.encode(["A photo of a hand."])[0]
        torch.testing.assert_close(embedder.head.fixed, wanted)


@pytest.fixture(scope="module")
def trained() -> tuple[Any, dict[str, Tensor]]:
    module = module_of(promptsg("stages.0.averaging={kind: ema}", "stages.0.epochs=1"))
    before = deepcopy(module.embedder.head.words.text.tower.state_dict())
    fit(module)
    return module, before


class TestTraining:
    def test_the_tower_stays_as_it_is_to_the_bit_and_out_of_optimizer_and_checkpoint(self, trained: Any):
        """Trap 3."""
        module, before = trained
        towers = [module.embedder.head.words.text.tower, module.averaging.result.head.words.text.tower]
        for text in towers:
            assert all(torch.equal(value, before[name]) for name, value in text.state_dict().items())
        optimised = {id(p) for group in module.groups() for p in group["params"]}
        assert optimised == {id(p) for p in module.parameters() if p.requires_grad}
        assert not optimised & {id(p) for text in towers for p in text.parameters()}
        held = {value.data_ptr() for text in towers for value in text.state_dict().values()}
        assert not [name for name, value in module.state_dict().items() if value.data_ptr() in held]

    def test_everything_of_the_head_learns(self, trained: Any):
        module, _ = trained
        fresh = module_of(promptsg()).embedder.head
        same = {
            name
            for (name, old), new in zip(fresh.named_parameters(), module.embedder.head.parameters(), strict=True)
            if torch.equal(old, new) and old.requires_grad
        }
        assert not same

    def test_the_contrast_reaches_the_encoder_and_the_inversion_network(self):
        """Trap 2, and its part in the logged loss."""
        gradients = []
        for terms in ("[{kind: cross_entropy, features: [parts]}]", TERMS.partition("=")[2]):
            module = module_of(micro(HEAD, PARTS, f"stages.0.objectives={terms}"))
            module.training_step(module.photos[next(iter(module._batches(0)))], 0).backward()
            first = module.embedder.head.words.inversion[1].weight.grad
            gradients.append((first.clone(), module.embedder.backbone.visual.conv1.weight.grad.clone()))
        assert not any(torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in zip(*gradients, strict=True))
        means = module.epoch_means()
        assert means["loss"] == pytest.approx(means["0_cross_entropy"] + 0.5 * means["1_symmetric_contrast"], rel=1e-5)


class TestSaved:
    @pytest.mark.parametrize("kind", ["promptsg", "promptsg_graph"])
    @pytest.mark.parametrize("mode", ["composed", "fixed"])
    def test_a_saved_model_gives_the_same_embeddings_in_both_modes(self, kind: str, mode: str, tmp_path: Path):
        embedder = embedder_of(f"model.head={{kind: {kind}, inference: {mode}}}")
        embedder.head.set_identities(3)
        with torch.no_grad():
            embedder.train()(photos_of(), labels=torch.tensor([0, 1, 2, 0, 1, 2]))
        embedder.save(tmp_path / "model.safetensors")
        loaded = Embedder.load(tmp_path / "model.safetensors")
        assert loaded.head.inference == mode
        for each in ("composed", "fixed"):
            with inference_mode(embedder, each), inference_mode(loaded, each):
                assert torch.equal(loaded.embed(photos_of()), embedder.embed(photos_of()))

    def test_the_file_has_the_tower_without_its_vocabulary(self, tmp_path: Path):
        embedder_of().save(tmp_path / "model.safetensors")
        with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
            names = set(file.keys())
        assert "frozen.positional_embedding" in names
        assert not [name for name in names if "token_embedding" in name]

    def test_without_words_it_is_smaller_and_knows_the_fixed_sentence_alone(self, tmp_path: Path):
        embedder = embedder_of("model.head={kind: promptsg_graph, inference: fixed}")
        wanted = embedder.embed(photos_of())
        embedder.save(tmp_path / "whole.safetensors")
        embedder.save(tmp_path / "slim.safetensors", words=False)
        slim = Embedder.load(tmp_path / "slim.safetensors")
        assert torch.equal(slim.embed(photos_of()), wanted)
        assert sum(p.numel() for p in slim.parameters()) == parameters(embedder) - embedder.head.composing
        sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("slim", "whole")]
        assert sizes[0] + 4 * embedder.head.composing < sizes[1]
        with pytest.raises(RecipeError, match="was saved without its text tower"), inference_mode(slim, "composed"):
            slim.embed(photos_of())

    def test_without_words_it_cannot_compose(self, tmp_path: Path):
        with pytest.raises(RecipeError, match="composed needs the text tower"):
            embedder_of().save(tmp_path / "slim.safetensors", words=False)

    def test_checkpoints_hold_no_tower(self, found: Any):
        run, _ = found
        content = torch.load(run.stage(0, "fine_tune") / "last.ckpt", weights_only=True)
        assert not [name for name in content["state_dict"] if ".text." in name or name.startswith("frozen")]


@pytest.fixture(scope="module")
def found(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    run = train(promptsg("stages.0.epochs=1"), photos, tmp_path_factory.mktemp("promptsg") / "run")
    return run, evaluated(run)[1]


class TestEvaluation:
    def test_both_modes_are_scored_with_their_difference(self, found: Any):
        _, content = found
        modes = json.loads(json.dumps(content["inference"]))
        assert modes["chosen"] == "composed"
        assert modes["composed"]["metrics"] == content["metrics"]
        assert set(modes["fixed"]["metrics"]["map"]) == {"value", "low", "high"}
        for name, one in modes["difference"].items():
            values = [modes[mode]["metrics"][name]["value"] for mode in ("composed", "fixed")]
            assert one["value"] == pytest.approx(values[0] - values[1], abs=1e-9)
            assert one["low"] <= one["value"] <= one["high"]

    def test_the_difference_is_of_composed_to_fixed(self, photos: Path):
        recipe = promptsg()
        split, embedder = load_dataset(recipe, photos).split, embedder_of()
        rows = evaluated_rows(split)
        numbers = np.unique([split.identities[row] for row in rows], return_inverse=True)[1]
        right, wrong = np.eye(numbers.max() + 1)[numbers], np.ones((len(rows), 2))
        pixels = np.zeros((4, 3, 32, 32), np.uint8)
        modes = plain(compare_modes(embedder, pixels, lambda: wrong, right, rows, split, recipe.evaluate))
        assert modes["composed"]["metrics"]["rank1"]["value"] == 1
        assert modes["fixed"]["metrics"]["rank1"]["value"] == 0
        assert modes["difference"]["rank1"]["value"] == 1
        assert modes["difference"]["rank1"]["verdict"] == "better"

    def test_the_recipes_mode_is_the_primary_one(self, found: Any, monkeypatch: pytest.MonkeyPatch):
        run, content = found
        embedder = load_embedder(run)
        embedder.head.inference = "fixed"
        monkeypatch.setattr("handreid.evaluation.evaluate.load_embedder", lambda _: embedder)
        _, other = evaluated(run)
        assert other["inference"]["chosen"] == "fixed"
        assert other["metrics"] == content["inference"]["fixed"]["metrics"]
        assert other["inference"]["composed"]["metrics"] == content["metrics"]

    def test_embeddings_of_one_mode_are_never_taken_for_the_others(self, found: Any, monkeypatch: pytest.MonkeyPatch):
        run, _ = found
        evaluate(run)
        kept = read_cache(run, file_hash(run.model), NullProgress())
        by_mode = {
            mode: {key.file: one for key, one in zip(kept.keys, kept.embeddings, strict=True) if key.inference == mode}
            for mode in ("composed", "fixed")
        }
        assert by_mode["composed"].keys() == by_mode["fixed"].keys() != set()
        assert not any(np.allclose(by_mode["fixed"][file], one) for file, one in by_mode["composed"].items())
        monkeypatch.setattr("handreid.inference.embed_rows", None)  # nothing is left to be embedded
        evaluate(run)

    def test_costs_are_told(self, found: Any):
        run, content = found
        embedder = Embedder.load(run.model)
        cost = {mode: content["inference"][mode]["cost"] for mode in ("composed", "fixed")}
        assert cost["composed"]["parameters"] - cost["fixed"]["parameters"] == embedder.head.composing
        assert embedder.head.composing > embedder.head.words.text.size > 0
        assert all(one["milliseconds_per_photo"] > 0 for one in cost.values())

    def test_the_clock_is_of_the_mode(self, monkeypatch: pytest.MonkeyPatch):
        embedder, now = embedder_of(), [0.0]
        seconds = {"composed": 8.0, "fixed": 2.0}

        def pretend(embedder: Embedder, photos: Tensor, **_: Any) -> None:
            now[0] += seconds[embedder.head.inference]

        monkeypatch.setattr("handreid.evaluation.sections.inference_modes.embed_photos", pretend)
        monkeypatch.setattr("handreid.evaluation.sections.inference_modes.time.perf_counter", lambda: now[0])
        assert time_modes(embedder, photos_of(4).numpy(), batch_size=2) == {"composed": 2000.0, "fixed": 500.0}

    def test_they_are_printed(self, found: Any, capsys: pytest.CaptureFixture[str]):
        from handreid.cli.tables import _print_modes

        _print_modes(InferenceModes.model_validate(found[1]["inference"]))
        printed = capsys.readouterr().out
        assert "composed (the recipe)" in printed
        assert "composed against fixed, rank-1:" in printed

    def test_other_heads_have_one_mode(self, photos: Path, tmp_path: Path):
        run = train(micro("stages.0.epochs=1"), photos, tmp_path / "run")
        assert "inference" not in evaluated(run)[1]


class TestSymmetricContrast:
    def outputs(self, photos: Tensor, texts: Tensor | None) -> Outputs:
        return Outputs(Features(photos, photos, photos, photos[:, None, None]), {"joint": photos}, {}, texts)

    @pytest.mark.parametrize("normalise", [False, True])
    @pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]])
    def test_it_is_its_definition(self, labels: list[int], normalise: bool):
        draw = torch.Generator().manual_seed(0)
        photos, texts = (torch.randn(5, 3, generator=draw).double().requires_grad_() for _ in range(2))
        term = SymmetricContrast(("joint",), temperature=0.7, normalise=normalise)
        loss = term(self.outputs(photos, texts), Targets(torch.tensor(labels)))
        v, t = (one / one.norm(dim=1, keepdim=True) if normalise else one for one in (photos, texts))
        loop = []
        for anchors, others in ((v, t), (t, v)):
            for i in range(5):
                positives = [p for p in range(5) if labels[p] == labels[i]]
                below = sum(torch.exp(anchors[i] @ others[a] / 0.7) for a in range(5))
                shares = [torch.exp(anchors[i] @ others[p] / 0.7) / below for p in positives]
                loop.append(-sum(share.log() for share in shares) / len(positives))
        torch.testing.assert_close(loss, sum(loop) / 10)
        loss.backward()
        assert photos.grad.isfinite().all()
        assert texts.grad.isfinite().all()

    def test_half_precision_does_not_overflow(self):
        photos = torch.full((4, 8), 200.0, dtype=torch.float16)
        loss = SymmetricContrast(("joint",))(self.outputs(photos, photos), Targets(torch.tensor([0, 0, 1, 1])))
        assert loss.isfinite()

    def test_a_head_without_sentences_is_refused(self):
        with pytest.raises(RecipeError, match=r"objectives\.0 \(symmetric_contrast\) .* 'bnneck' has none"):
            micro("stages.0.objectives=[{kind: symmetric_contrast}]")
        with pytest.raises(ValueError, match="needs the texts of a head"):
            SymmetricContrast(("joint",))(self.outputs(torch.zeros(2, 2), None), Targets(torch.tensor([0, 1])))

    def test_mixed_photos_are_refused(self):
        with pytest.raises(RecipeError, match=r"symmetric_contrast.*two"):
            promptsg("stages.0.mix={kind: mixup}")


class TestRecipe:
    @pytest.mark.parametrize("template", ["A photo of a hand.", "{context} and {context}"])
    def test_a_template_has_one_place(self, template: str):
        with pytest.raises(RecipeError, match=r"must contain \{context\} once"):
            promptsg(f"model.head.template={template!r}")

    def test_the_fixed_sentence_has_none(self):
        with pytest.raises(RecipeError, match="one sentence for all photos"):
            promptsg("model.head.fixed='a {context} hand'")

    def test_a_sentence_that_does_not_fit_leaves_no_run_behind(self, photos: Path, tmp_path: Path):
        with pytest.raises(RecipeError, match="the text tower reads 24"):
            train(promptsg("model.head={kind: promptsg_graph, tokens: 30}"), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_the_builtin_recipe_is_the_papers(self):
        stage = load_recipe("promptsg").stages[0]
        assert (stage.optimizer.lr, stage.optimizer.new_layers, stage.epochs) == (5e-6, 10, 60)
        weights = {term.kind: term.weight for term in stage.objectives}
        assert weights == {"cross_entropy": 1.0, "triplet": 1.0, "symmetric_contrast": 0.5}


def test_validation_while_training_is_in_the_recipes_mode(photos: Path, tmp_path: Path, monkeypatch: Any):
    seen: list[Any] = []
    validated = EpochCallback._checked
    monkeypatch.setattr(
        EpochCallback, "_checked", lambda self, t, m: seen.append(m.result.head.inference) or validated(self, t, m)
    )
    train(promptsg("stages.0.epochs=1", "model.head.inference=fixed"), photos, tmp_path / "run")
    assert seen == ["fixed"]


def test_gradients_do_not_come_back_from_the_neck_alone():
    """No parameter of the head is undone by the batch norm behind it; see tests/models/test_heads.py."""
    head = embedder_of().train().head
    assert head.interaction.norm.bias is None
    assert isinstance(head.necks["semantic"], nn.BatchNorm1d)
