"""Learned words: sentences with room in them, contexts, the losses that teach them, and what a stage leaves behind."""

import json
import math
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import open_clip
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from handreid.build import build_embedder, build_towers
from handreid.cli.commands import app
from handreid.data.prompt_text import attribute_phrases, fill_templates
from handreid.errors import RecipeError, RunError, WeightsError
from handreid.models import prompts
from handreid.models.clip import load_clip
from handreid.models.embedder import Embedder
from handreid.models.prompts import (
    ContextInit,
    LearnedPrompts,
    PromptLearner,
    diversity,
    nearest_words,
    whole_words,
    word_embeddings,
)
from handreid.models.sentences import make_sentences
from handreid.models.text import TextEncoder
from handreid.objectives.contrast import contrast
from handreid.objectives.image_to_text import ImageToText
from handreid.objectives.text_to_image import TextToImage
from handreid.recipe import LearnPrompts, Recipe, load_recipe, parse_recipe
from handreid.training.stages.learn_prompts.module import LearnPromptsModule
from handreid.training.stages.learn_prompts.stage import load_prompts
from handreid.training.train import train
from handreid.types import Features, Mixed, Outputs, Targets
from tests.conftest import MICRO_RECIPE
from tests.training.resumed import whole_and_resumed
from tests.training.test_train import history

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

LEARN = "{kind: learn_prompts, epochs: 12, batch_size: 8, tokens: 2, validate_every: 4, optimizer: {lr: 0.01}}"
TUNE = (
    "{kind: fine_tune, epochs: 2, sampler: {kind: pk, identities: 4, images: 2}, optimizer: {kind: adamw, lr: 1.0e-3, "
    "schedule: {kind: cosine}}, objectives: [{kind: cross_entropy}, {kind: image_to_text}, {kind: text_to_image}]}"
)


def _embedder(recipe: Recipe) -> Embedder:
    return build_embedder(recipe, build_towers(recipe))


TEMPLATES = ["A photo of a {context} hand.", "A photo of a {context} foot."]


def recipe_of(*stages: str, **changes: str) -> Recipe:
    return parse_recipe(
        MICRO_RECIPE, "micro", [f"stages=[{', '.join(stages)}]", *(f"{k}={v}" for k, v in changes.items())]
    )


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return build_towers(recipe_of()).text.requires_grad_(False)


def learner_of(text: TextEncoder, **arguments: object) -> PromptLearner:
    torch.manual_seed(0)
    places = 4 if arguments.get("contexts") == "both" else 2
    sentences = make_sentences(text, TEMPLATES * int(arguments.get("prompts", 1)), places)
    return PromptLearner(sentences, text.width, tokens=2, **arguments)


VISION = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}}
WORDS = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


class TestTheTextTower:
    @pytest.mark.parametrize("custom", [False, True])
    def test_embeddings_of_words_give_what_the_words_give(self, custom: bool):
        text = load_clip("any", config={**VISION, "custom_text": custom, "text_cfg": WORDS}).text
        text.check_promptable()
        tokens = text.tokenizer(["a photo of a dorsal hand.", "hand"])
        ends = tokens.argmax(dim=1)
        whole, cut = text.embed(tokens), text.embed(tokens[:, : int(ends.max()) + 1])
        assert torch.allclose(text.encode_embedded(whole, ends), text(tokens), atol=1e-5)
        assert torch.allclose(text.encode_embedded(cut, ends), text(tokens), atol=1e-5)

    def test_sentences_longer_than_the_tower_reads_are_refused(self, text: TextEncoder):
        with pytest.raises(ValueError, match="25 tokens, but the text tower reads 24"):
            text.encode_embedded(torch.zeros(1, 25, text.width), torch.tensor([3]))

    def test_towers_that_cannot_read_contexts_are_named(self):
        for words in ({"pool_type": "last"}, {"no_causal_mask": True}):
            config = {**VISION, "custom_text": True, "text_cfg": {**WORDS, **words}}
            with pytest.raises(RecipeError, match=r"use another model\.backbone\.name"):
                load_clip("odd", config=config).text.check_promptable()


class TestSentences:
    def test_the_context_stands_where_the_template_says(self, text: TextEncoder):
        sentences = make_sentences(text, ["a {context} hand.", "{context} a long dorsal hand"], 3)
        start, end = text.ends
        assert sentences.places.tolist() == [[2, 3, 4], [1, 2, 3]]
        assert [int(row[at]) for row, at in zip(sentences.tokens, sentences.ends, strict=True)] == [end, end]
        assert sentences.tokens[0].tolist()[:2] == [start, *text.pieces("a")]
        assert sentences.tokens[0].tolist()[5 : sentences.ends[0]] == text.pieces("hand.")

    def test_words_in_the_places_give_what_the_whole_sentence_gives(self, text: TextEncoder):
        sentences = make_sentences(text, ["a photo of a {context} hand.", "{context}"], 2)
        context = text.embed(torch.tensor([text.pieces("long fingers")] * 2))
        expected = text.encode(["a photo of a long fingers hand.", "long fingers"])
        assert torch.allclose(sentences.encode(text, context), expected, atol=1e-5)

    def test_texts_of_two_contexts_differ_and_all_of_the_sentence_is_read(self, text: TextEncoder):
        """Trap 1: a feature read at position 0 of a causal tower is the same for all."""
        sentences = make_sentences(text, ["a {context} hand.", "a {context} hand.", "a {context} foot."], 1)
        contexts = torch.randn(3, 1, text.width)
        contexts[2] = contexts[1]
        features = F.normalize(sentences.encode(text, contexts), dim=1)
        assert (features[0] - features[1]).norm() > 0.05  # another context
        assert (features[1] - features[2]).norm() > 0.01  # another word behind it

    def test_what_does_not_fit_is_refused(self, text: TextEncoder):
        with pytest.raises(RecipeError, match="has 27 tokens, but the text tower reads 24"):
            make_sentences(text, ["a photo of a {context} hand."], 19)
        with pytest.raises(RecipeError, match=r"must contain \{context\} once"):
            make_sentences(text, ["a hand"], 1)


class TestWords:
    PHOTOS = pl.DataFrame(
        {
            "aspect": ["dorsal", "dorsal", "palmar", None],
            "side": ["left", "right", "left", "left"],
            "skin_color": ["fair", "fair", "dark", "dark"],
            "age": [27, 27, 40, 40],
            "scar": [True, True, False, False],
        }
    )
    LABELS = np.array([0, 0, 1, 1])

    def test_places_are_filled_with_what_all_photos_of_an_identity_say(self):
        filled, notes = fill_templates(
            ["a {context} {surface} of a {side} hand, {skin} .", "{context}"], self.PHOTOS, self.LABELS
        )
        assert filled == [["a {context} back of a hand, fair.", "a {context} of a left hand, dark."], ["{context}"] * 2]
        assert len(notes) == 2
        assert notes[0].startswith("{surface} is left out of the prompts of 1 of 2 identities")

    def test_a_place_that_nothing_fills_is_refused_with_what_there_is(self):
        with pytest.raises(RecipeError, match=r"\{lens\}: the manifest has no such column; .*aspect, side, skin_color"):
            fill_templates(["a {context} {lens} hand"], self.PHOTOS, self.LABELS)

    def test_attributes_become_phrases(self):
        columns = ("skin", "age", "nails", "scar", "side")
        assert attribute_phrases(columns, self.PHOTOS, self.LABELS) == [
            "fair skin, 27 years old, scar",
            "dark skin, 40 years old, no scar, left side",
        ]
        with pytest.raises(RecipeError, match="the manifest has none of these"):
            attribute_phrases(("lens",), self.PHOTOS, self.LABELS)


class TestContexts:
    def test_only_those_of_the_identities_learn_and_the_text_tower_does_not(self, text: TextEncoder):
        learner = learner_of(text)
        learner(text, torch.tensor([1])).square().sum().backward()
        gradient = learner.contexts["identity"].grad
        assert not gradient[:, 0].any()
        assert gradient[:, 1].abs().sum(dim=2).all()
        assert all(p.grad is None for p in text.parameters())

    @pytest.mark.parametrize(("contexts", "parameters"), [("identity", 2 * 2), ("shared", 2), ("both", 2 * 2 + 2)])
    def test_they_are_of_an_identity_or_shared_or_both(self, text: TextEncoder, contexts: str, parameters: int):
        learner = learner_of(text, contexts=contexts)
        assert sum(p.numel() for p in learner.parameters()) == parameters * text.width
        features = learner(text, torch.tensor([0, 1, 0]))
        assert torch.allclose(features[:, 0], features[:, 2], atol=1e-6)
        features.sum().backward()
        assert all(p.grad.any() for p in learner.parameters())

    def test_each_stands_in_the_sentence_of_its_identity(self, text: TextEncoder):
        learner = learner_of(text, prompts=2)
        features = learner(text, torch.tensor([1, 0]))
        for prompt, row, identity in ((0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0)):
            sentence = make_sentences(text, [TEMPLATES[identity]], 2)
            alone = sentence.encode(text, learner.contexts["identity"][prompt, identity : identity + 1])
            assert torch.allclose(features[prompt, row], alone[0], atol=1e-5)

    def test_the_shared_context_comes_first(self, text: TextEncoder):
        learner = learner_of(text, contexts="both")
        rows = learner._contexts(torch.tensor([1]))
        assert torch.equal(rows[0], torch.cat([learner.contexts["shared"][0, 0], learner.contexts["identity"][0, 1]]))

    def test_dropout_is_for_training_alone(self, text: TextEncoder):
        learner, which = learner_of(text, dropout=0.5), torch.tensor([0])
        assert not torch.equal(learner(text, which), learner(text, which))
        texts = learner.texts(text)
        assert torch.equal(texts, learner.texts(text))
        assert learner.training

    def test_several_prompts_are_averaged_before_or_after_they_are_of_unit_length(self, text: TextEncoder):
        learner, which = learner_of(text, prompts=3), torch.tensor([1, 0])
        features = learner(text, which)
        assert features.shape == (3, 2, 32)
        for one, other in combinations(range(3), 2):
            assert not torch.allclose(features[one], features[other], atol=1e-4)
        assert torch.equal(learner.mean(features), features.mean(dim=0))
        learner.average = "after"
        assert torch.equal(learner.mean(features), F.normalize(features, dim=2).mean(dim=0))
        assert torch.equal(learner.mean(features[:1]), features[0])  # one prompt keeps its length

    def test_diversity_is_the_mean_squared_cosine_of_pairs(self):
        features = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
        cosines = [
            F.cosine_similarity(features[a, i], features[b, i], dim=0).item() ** 2
            for i in range(4)
            for a, b in combinations(range(3), 2)
        ]
        assert math.isclose(diversity(features).item(), sum(cosines) / len(cosines), rel_tol=1e-5)

    def test_they_begin_as_noise_or_as_words_and_no_two_alike(self, text: TextEncoder):
        torch.manual_seed(0)
        noise = ContextInit(0.02).drawn(2, 50, 4, 32)
        assert abs(noise.std().item() - 0.02) < 0.001
        words = word_embeddings(text, "hand with long fingers", 6)
        assert torch.equal(words[4:], words[:2])  # four tokens, over again
        assert torch.equal(words[0], text.vocabulary[text.pieces("hand")[0]])
        begun = ContextInit(0.02, words.expand(3, -1, -1)).drawn(2, 3, 6, 32)
        assert abs((begun - words).std().item() - 0.002) < 0.0002
        assert len({tuple(context.flatten().tolist()) for context in begun.flatten(0, 1)}) == 6

    def test_nearest_words_are_those_whose_texts_are_nearest_once_means_are_away(
        self, text: TextEncoder, monkeypatch: pytest.MonkeyPatch
    ):
        every = whole_words(text)
        assert text.word(every[0]).endswith(" ")
        assert {len(text.word(token)) > 3 for token in every} == {True}
        tokens = every[::10]  # encoding all 32,258 as sentences takes 20 seconds
        monkeypatch.setattr(prompts, "whole_words", lambda _: tokens)
        images = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
        found = nearest_words(text, images, 2)
        sentences = [text.word(token) for token in tokens]
        features = torch.cat([text.encode(sentences[at : at + 1000]) for at in range(0, len(sentences), 1000)])
        kept = [n for n, token in enumerate(tokens) if text.pieces(text.word(token)) == [token]]
        centred = F.normalize(features - features.mean(dim=0), dim=1)
        similar = F.normalize(images - images.mean(dim=0), dim=1) @ centred.T
        best = similar.max(dim=1).values
        mine = similar[torch.arange(3), torch.tensor([tokens.index(int(token)) for token in found[:, 0]])]
        assert len(kept) > 0.95 * len(tokens)
        assert torch.allclose(mine, best, atol=0.02)


def module_of(text: TextEncoder, **changes: object) -> LearnPromptsModule:
    stage = LearnPrompts.model_validate({"batch_size": 8, "tokens": 2, "epochs": 5, **changes})
    prompts = stage.prompts
    sentences = make_sentences(text, ["A {context} hand."] * 3 * prompts, 2)
    torch.manual_seed(0)
    learner = PromptLearner(sentences, text.width, tokens=2, prompts=prompts, average=stage.average)
    features = torch.randn(12, 32, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(12) % 3
    return LearnPromptsModule(
        learner, text, stage, features, labels, names=["a", "b", "c"], sentences=[["s"] * 3] * prompts, seed=0
    )


class TestTheLosses:
    def test_contrast_is_its_definition_and_counts_are_repetitions(self):
        torch.manual_seed(0)
        logits, positive = torch.randn(4, 3), torch.rand(4, 3) > 0.5
        positive[0] = False
        counts = torch.tensor([1, 3, 2])
        expected = []
        for row, right in zip(logits, positive, strict=True):
            everything = sum(math.exp(value) * n for value, n in zip(row.tolist(), counts.tolist(), strict=True))
            terms = [-math.log(math.exp(value) / everything) for value, p in zip(row.tolist(), right, strict=True) if p]
            expected.append(sum(terms) / len(terms) if terms else 0.0)
        assert contrast(logits, positive, counts.float()).tolist() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("normalise", [False, True])
    def test_those_of_the_stage_are_clip_reids_sums_over_the_batch(self, text: TextEncoder, normalise: bool):
        """Every photo has a text of its own in the paper's sums, so an identity's text stands there as often as it has
        photos in the batch; here it is computed once.
        """
        module = module_of(text, normalise=normalise, temperature=0.5)
        batch = torch.tensor([0, 3, 1, 6, 4, 9])  # three, two and no photos of the identities
        photos, labels = module.features[batch], module.labels[batch].tolist()
        texts = module.learner(text, module.labels[batch])[0]
        if normalise:
            photos, texts = F.normalize(photos, dim=1), F.normalize(texts, dim=1)
        similar = (photos @ texts.T / 0.5).tolist()
        size = range(len(labels))
        to_text = [-math.log(math.exp(similar[i][i]) / sum(math.exp(similar[i][a]) for a in size)) for i in size]
        to_image = []
        for i in size:
            positives = [p for p in size if labels[p] == labels[i]]
            everything = sum(math.exp(similar[a][i]) for a in size)
            to_image.append(-sum(math.log(math.exp(similar[p][i]) / everything) for p in positives) / len(positives))
        found = module.losses(batch)
        assert found["image_to_text"].item() == pytest.approx(sum(to_text) / 6, rel=1e-4)
        assert found["text_to_image"].item() == pytest.approx(sum(to_image) / 6, rel=1e-4)

    def test_every_weight_of_the_stage_changes_the_gradient(self, text: TextEncoder):
        """Trap 2."""
        gradients = []
        for weights in ((1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)):
            names = ("image_to_text", "text_to_image", "diversity")
            module = module_of(text, ensemble=2, **dict(zip(names, weights, strict=True)))
            module.training_step(torch.arange(8), 0).backward()
            gradients.append(module.learner.contexts["identity"].grad)
        assert all(not torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in combinations(gradients, 2))

    def test_what_learns_is_what_is_optimised_and_the_text_tower_is_not_in_the_checkpoint(self, text: TextEncoder):
        """Trap 3."""
        module = module_of(text)
        assert [id(p) for group in module.groups() for p in group["params"]] == [id(p) for p in module.parameters()]
        assert set(module.state_dict()) == {"learner.contexts.identity"}

    def test_a_step_moves_contexts_and_not_one_bit_of_the_text_tower(self):
        text = build_towers(recipe_of()).text.train()  # nothing is frozen yet
        before = {name: value.clone() for name, value in text.state_dict().items()}
        module = module_of(text)
        begun = module.learner.contexts["identity"].detach().clone()
        optimizer = module.configure_optimizers()["optimizer"]
        module.training_step(torch.arange(8), 0).backward()
        optimizer.step()
        assert not torch.equal(module.learner.contexts["identity"], begun)
        assert all(torch.equal(before[name], value) for name, value in text.state_dict().items())
        assert not text.training
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in text.parameters())

    def test_the_text_tower_runs_once_per_identity_of_the_batch(self, text: TextEncoder):
        module, seen = module_of(text, ensemble=2), []
        handle = text.clip.ln_final.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        module.losses(torch.tensor([0, 3, 6, 9, 1, 4]))
        handle.remove()
        assert seen == [2 * 2]  # two identities, two prompts each


def outputs_of(photos: torch.Tensor) -> Outputs:
    return Outputs(Features(photos, photos, photos, photos[:, None, None]), {}, {})


class TestTheTermsOfFineTuning:
    TEXTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    PHOTOS = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    LABELS = torch.tensor([0, 2, 2, 3, 0])

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_image_to_text_is_cross_entropy_over_all_identities(self, smoothing: float):
        photos = self.PHOTOS.clone().requires_grad_()
        term = ImageToText(self.TEXTS, label_smoothing=smoothing, temperature=2.0)
        loss = term(outputs_of(photos), Targets(self.LABELS))
        expected = []
        for photo, label in zip(self.PHOTOS, self.LABELS.tolist(), strict=True):
            logits = [float(photo @ text) / 2 for text in self.TEXTS]
            everything = math.log(sum(map(math.exp, logits)))
            share = [smoothing / 4 + (1 - smoothing) * (k == label) for k in range(4)]
            expected.append(sum(q * (everything - logit) for q, logit in zip(share, logits, strict=True)))
        assert loss.item() == pytest.approx(sum(expected) / 5, rel=1e-5)
        loss.backward()
        assert photos.grad.abs().sum(dim=1).all()

    def test_it_takes_photos_of_two_identities_by_their_shares(self):
        mixed = Mixed(self.LABELS.flip(0), torch.full((5,), 0.3))
        term = ImageToText(self.TEXTS)
        own, other = (term(outputs_of(self.PHOTOS), Targets(labels)) for labels in (self.LABELS, mixed.partners))
        both = term(outputs_of(self.PHOTOS), Targets(self.LABELS, mixed))
        assert both.item() == pytest.approx(0.3 * own.item() + 0.7 * other.item(), rel=1e-5)

    def test_text_to_image_finds_the_photos_of_an_identity_in_the_batch(self):
        photos = self.PHOTOS.clone().requires_grad_()
        loss = TextToImage(self.TEXTS, normalise=True)(outputs_of(photos), Targets(self.LABELS))
        unit, texts = F.normalize(self.PHOTOS, dim=1), F.normalize(self.TEXTS, dim=1)
        expected = []
        for label in self.LABELS.tolist():
            logits = [float(photo @ texts[label]) for photo in unit]
            everything = math.log(sum(map(math.exp, logits)))
            right = [everything - logits[p] for p in range(5) if self.LABELS[p] == label]
            expected.append(sum(right) / len(right))
        assert loss.item() == pytest.approx(sum(expected) / 5, rel=1e-5)
        loss.backward()
        assert photos.grad.isfinite().all()

    def test_texts_are_fixed_and_in_no_checkpoint(self):
        term = ImageToText(self.TEXTS)
        assert not list(term.parameters())
        assert not term.state_dict()


class TestTheRecipe:
    def test_defaults_are_clip_reids(self):
        stage = LearnPrompts()
        rates = stage.optimizer
        assert (stage.epochs, stage.batch_size, stage.tokens, stage.normalise, stage.temperature) == (
            120,
            64,
            4,
            False,
            1,
        )
        assert (rates.kind, rates.lr, rates.weight_decay) == ("adam", 3.5e-4, 1e-4)
        assert rates.lr * rates.schedule.warmup_factor == pytest.approx(1e-5)
        assert rates.lr * rates.schedule.final_factor == pytest.approx(1e-6)

    @pytest.mark.parametrize(
        ("stage", "message"),
        [
            ("{kind: learn_prompts, templates: ['a hand']}", "must contain {context} once"),
            ("{kind: learn_prompts, templates: ['a {context} {a b} hand']}", "write places as {name}"),
            ("{kind: learn_prompts, tokens: 33}", "less than or equal to 32"),
            ("{kind: learn_prompts, diversity: 0.1}", "diversity needs several prompts, but there is only one"),
            ("{kind: learn_prompts, image_to_text: 0, text_to_image: 0}", "nothing would be learned"),
            ("{kind: learn_prompts, init: ' '}", "init is empty"),
            (
                "{kind: learn_prompts, init: {kind: nearset}}",
                r"^micro line \d+: stages\.0\.init\.kind 'nearset' is not one of nearest, attributes; did you mean",
            ),
            (
                "{kind: learn_prompts, init: {kind: nearest, words: 3}}",
                r"^micro line 13: unknown key 'stages\.0\.init\.words'",
            ),
            ("{kind: learn_prompts, epochs: 3}", "warmup_epochs 5 is longer than epochs 3"),
            ("{kind: learn_promts}", "did you mean 'learn_prompts'"),
            (TUNE, "reads the texts of identities, but no earlier stage learns them"),
            (
                f"{LEARN}, {TUNE[:-1]}, chirality: mirror_as_new_identity}}",
                "no texts for the identities of mirrored photos",
            ),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, stage: str, message: str):
        with pytest.raises(RecipeError, match=message):
            recipe_of(stage)

    @pytest.mark.parametrize(("name", "dim"), [("clip-reid-vit", 768 + 512), ("clip-reid-rn50", 2048 + 1024)])
    def test_clip_reids_test_feature_is_before_the_neck_and_as_wide_as_published(self, name: str, dim: int):
        recipe = load_recipe(name)
        vision = open_clip.get_model_config(recipe.model.backbone.name)
        pooled = vision["vision_cfg"]["width"] * (32 if "rn50" in name else 1)
        assert recipe.model.test_feature.features == ("pooled", "joint")
        assert recipe.model.test_feature.neck == "before"
        assert pooled + vision["embed_dim"] == dim
        micro = parse_recipe(MICRO_RECIPE, "micro").model.backbone.model_dump_json()
        embedder = _embedder(load_recipe(name, [f"model.backbone={micro}", "model.preprocess.align=none"]))
        assert embedder.dim == embedder.backbone.widths["pooled"] + embedder.backbone.widths["joint"] == 64 + 32

    @pytest.mark.parametrize(
        ("position", "placed"),
        [
            ("front", "{context} A photo of a {aspect} hand."),
            ("middle", "A photo of a {context} {aspect} hand."),
            ("end", "A photo of a {aspect} hand {context}."),
        ],
    )
    def test_the_context_goes_to_the_front_the_middle_or_the_end(self, position: str, placed: str):
        assert LearnPrompts(position=position).placed == (placed,)
        assert LearnPrompts(position=position, ensemble=3).placed == (placed,) * 3


class TestTheStage:
    def test_the_towers_are_bit_identical_afterwards_and_prompts_learn_whose_photo_it_is(
        self, photos: Path, tmp_path: Path
    ):
        recipe = recipe_of(LEARN.replace("epochs: 12", "epochs: 40"))
        run = train(recipe, photos, tmp_path / "run")
        before = build_embedder(recipe, build_towers(recipe)).state_dict()
        after = Embedder.load(run.model).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        lines = history(run.folder)
        assert lines[-1]["loss"] < lines[0]["loss"]
        assert lines[-1]["prompts_rank1"] > 2 / 5  # five identities
        assert {"image_to_text", "text_to_image", "lr, contexts, decayed"} <= lines[0].keys()
        assert "prompts_rank1" not in lines[0]

    def test_texts_of_the_identities_differ_and_belong_to_their_names(self, photos: Path, tmp_path: Path):
        run = train(recipe_of(LEARN), photos, tmp_path / "run")
        prompts = load_prompts(run.stage(0, "learn_prompts"))
        assert list(prompts.identities) == sorted(prompts.identities)
        assert prompts.texts.shape == (5, 32)
        unit = F.normalize(prompts.texts, dim=1)
        assert (unit @ unit.T).fill_diagonal_(0).max() < 0.9999
        assert prompts.sentences == (("A photo of a {context} hand.",) * 5,)
        assert prompts.contexts["identity"].shape == (1, 5, 2, 32)

    @pytest.mark.parametrize(
        "extra",
        ["", ", ensemble: 2, diversity: 0.1, average: after, dropout: 0.2, contexts: both, position: end"],
    )
    def test_a_stage_that_is_stopped_and_resumed_ends_the_same(self, extra: str, photos: Path, tmp_path: Path):
        recipe = recipe_of(LEARN[:-1] + extra + "}", TUNE)
        whole, stopped = whole_and_resumed(recipe, photos, tmp_path, epoch=6)
        assert history(whole.folder) == history(stopped.folder)
        assert whole.model.read_bytes() == stopped.model.read_bytes()
        prompts = [run.stage(0, "learn_prompts") / "last.safetensors" for run in (whole, stopped)]
        assert prompts[0].read_bytes() == prompts[1].read_bytes()

    @pytest.mark.parametrize("learning", [[LEARN], [LEARN, LEARN.replace("tokens: 2", "tokens: 3")]])
    def test_the_encoder_is_guided_by_the_texts_that_were_learned_last(
        self, learning: list[str], photos: Path, tmp_path: Path
    ):
        from handreid.training.stages.fine_tune import stage

        given = []
        original = stage.build_objectives
        recipe = recipe_of(*learning, TUNE)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stage, "build_objectives", lambda *a: given.append(a[4]) or original(*a))
            run = train(recipe, photos, tmp_path / "run")
        assert torch.equal(given[-1], load_prompts(run.stage(len(learning) - 1, "learn_prompts")).texts)
        lines = history(run.folder)
        assert {"1_image_to_text", "2_text_to_image"} <= lines[-1].keys()
        assert lines[-1]["loss"] == pytest.approx(
            sum(lines[-1][name] for name in ("0_cross_entropy", "1_image_to_text", "2_text_to_image")), rel=1e-5
        )

    @pytest.mark.parametrize(
        "init", ["hand with long fingers", "{kind: nearest}", "{kind: attributes, columns: [split]}"]
    )
    def test_contexts_may_begin_as_words(self, init: str, photos: Path, tmp_path: Path):
        manifest = tmp_path / "photos.parquet"
        shutil.copytree(photos.parent, tmp_path, dirs_exist_ok=True)
        from handreid.data.manifest import read

        table = read(tmp_path / photos.name)
        said = pl.Series("texture", [f"kind{subject}" for subject in table.table["subject"]])
        type(table)(table.table.with_columns(said), tmp_path).write(manifest)
        init = init.replace("split", "texture")
        stage = LEARN[:-1].replace("epochs: 12", "epochs: 5") + f", init: {init}" + "}"
        run = train(recipe_of(stage), manifest, tmp_path / "run")
        assert load_prompts(run.stage(0, "learn_prompts")).texts.isfinite().all()

    def test_shared_contexts_alone_are_refused_where_all_would_have_the_same_prompt(self, photos: Path, tmp_path: Path):
        with pytest.raises(RecipeError, match=r"every identity has the prompt 'A photo of a \{context\} hand\.'"):
            train(recipe_of(LEARN[:-1] + ", contexts: shared}"), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_template_that_does_not_fit_is_known_before_there_is_a_folder(self, photos: Path, tmp_path: Path):
        with pytest.raises(RecipeError, match="but the text tower reads 24"):
            train(recipe_of(LEARN.replace("tokens: 2", "tokens: 30")), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestTheFile:
    def test_it_comes_back_whole(self, tmp_path: Path):
        prompts = LearnedPrompts(("a", "b"), torch.randn(2, 3), {"identity": torch.randn(1, 2, 4, 5)}, (("x", "y"),))
        prompts.save(tmp_path / "p.safetensors")
        again = LearnedPrompts.load(tmp_path / "p.safetensors")
        assert (again.identities, again.sentences) == (prompts.identities, prompts.sentences)
        assert torch.equal(again.texts, prompts.texts)
        assert torch.equal(again.contexts["identity"], prompts.contexts["identity"])
        assert not list(tmp_path.glob(".*"))

    def test_another_file_is_named(self, tmp_path: Path):
        (tmp_path / "x").write_bytes(b"no")
        with pytest.raises(WeightsError, match="cannot be read"):
            LearnedPrompts.load(tmp_path / "x")
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, tmp_path / "y")
        with pytest.raises(WeightsError, match="not a file of learned prompts of format 2"):
            LearnedPrompts.load(tmp_path / "y")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = LEARN[:-1].replace("epochs: 12", "epochs: 5") + ", contexts: both}"
    return train(recipe_of(stage), photos, tmp_path_factory.mktemp("explained") / "run").folder


class TestExplain:
    def test_it_names_the_nearest_words_with_distances_and_warns(self, run: Path):
        result = CliRunner().invoke(
            app, ["prompts", "explain", str(run), "--identities", "2", "--words", "2", "--json"]
        )
        found = json.loads(result.stdout)
        assert "not an explanation" in found["warning"]
        assert found["contexts"][0]["identity"] is None
        assert len(found["contexts"]) == 3
        prompts = load_prompts(run / "stages" / "0-learn_prompts")
        text = build_towers(recipe_of()).text
        entry = found["contexts"][1]
        context = prompts.contexts["identity"][0, prompts.identities.index(entry["identity"])]
        word, distance = entry["tokens"][0][0].values()
        (token,) = text.pieces(word)
        assert (context[0] - text.vocabulary[token]).norm().item() == pytest.approx(distance, rel=1e-3)
        distances = (context[0] - text.vocabulary[torch.tensor(whole_words(text))]).norm(dim=1)
        assert distance == pytest.approx(distances.min().item(), rel=1e-3)

    def test_people_get_a_table(self, run: Path):
        result = CliRunner().invoke(app, ["prompts", "explain", str(run)])
        assert result.exit_code == 0
        assert "shared by all" in result.stdout
        assert "not an explanation" in result.stdout

    def test_a_run_without_prompts_says_so(self, photos: Path, tmp_path: Path):
        from handreid.report.nearest_words import explain

        run = train(parse_recipe(MICRO_RECIPE, "micro", ["stages=[]"]), photos, tmp_path / "run")
        with pytest.raises(RunError, match="learned no prompts"):
            explain(run)
