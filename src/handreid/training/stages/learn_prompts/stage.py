"""The `learn_prompts` stage: words for identities are learned, the encoder stays unchanged."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from handreid.data.prompt_text import attribute_phrases, fill_templates
from handreid.errors import RecipeError
from handreid.models.feature_cache import cached_joint_features
from handreid.models.prompts import (
    ContextInit,
    LearnedPrompts,
    PromptLearner,
    nearest_words,
    word_embeddings,
    words_to_rank,
)
from handreid.models.sealed import digest_of
from handreid.models.sentences import CONTEXT, make_sentences
from handreid.models.text import TextEncoder
from handreid.recipe import LearnPrompts
from handreid.recipe.prompts import AttributeWords, NearestWords
from handreid.runs.dataset import RunDataset
from handreid.runs.stage_weights import checked
from handreid.runs.unknown_words import unknown_words_note
from handreid.training.context import Handover, Job, labels_of
from handreid.training.epoch_callback import ValidationSpec
from handreid.training.phrases import counted, rate
from handreid.training.stages.base import Stage
from handreid.training.stages.learn_prompts.module import LearnPromptsModule
from handreid.training.stages.learn_prompts.probe import LearnPromptsProbe


class LearnPromptsStage(Stage[LearnPrompts, LearnPromptsModule]):
    """Words for identities are learned; afterwards every identity has a text feature. The encoder is unchanged."""

    def check(self, handover: Handover, material: RunDataset) -> None:
        stage, text = self.settings, handover.text
        text.check_promptable()
        filled, _ = _sentences(stage, material)
        make_sentences(text, [sentence for sentences in filled for sentence in sentences], _places(stage))
        if stage.contexts == "shared" and all(len(set(sentences)) == 1 for sentences in filled):
            raise RecipeError(
                f"stages.{self.number}: with shared contexts only, every identity has the prompt {filled[0][0]!r}, so "
                "none can be told from another: use contexts: identity or both, or {places} in which identities differ"
            )
        if isinstance(stage.init, AttributeWords):
            _phrases(stage.init, material)
        if isinstance(stage.init, NearestWords) and self.number == 0:  # a stage before may teach words
            words_to_rank(text, stage.tokens)

    def module(self, job: Job) -> LearnPromptsModule:
        return prompts_module(job, self.number)

    def validation(self, job: Job, module: LearnPromptsModule) -> ValidationSpec:
        return ValidationSpec(module.sanity, self.settings.validate_every, name="prompts", monitor=None, quiet=True)

    def counts(self, job: Job, module: LearnPromptsModule) -> tuple[dict[str, int], int]:
        contexts = sum(parameter.numel() for parameter in module.parameters())
        towers = sum(parameter.numel() for part in (job.embedder, job.text) for parameter in part.parameters())
        return {"contexts": contexts}, contexts + towers

    def key(self, handover: Handover) -> bytes:
        return digest_of(handover.embedder.backbone.state_dict()) + digest_of(handover.text.state_dict())  # no head

    def load(self, folder: Path, handover: Handover) -> Handover:
        return replace(handover, texts=load_prompts(folder).texts)

    def probe(self, module: LearnPromptsModule) -> LearnPromptsProbe:
        return LearnPromptsProbe(module)

    def untrained(self, module: LearnPromptsModule, handover: Handover) -> Handover:
        return replace(handover, texts=module.learner.texts(handover.text))

    def describe(self) -> str:
        stage = self.settings
        contexts = {"identity": "each identity's", "shared": "shared", "both": "shared and each identity's"}
        return (
            f"both towers are frozen and {contexts[stage.contexts]} {counted(stage.tokens, 'embedding')} of a sentence "
            f"are learned for {counted(stage.epochs, 'epoch')} ({stage.optimizer.kind}, rate "
            f"{rate(stage.optimizer.lr)})"
        )


def load_prompts(folder: Path) -> LearnedPrompts:
    """The prompts of a finished stage. Raises RunError and WeightsError."""
    return LearnedPrompts.load(checked(folder / "last.safetensors"))


def prompts_module(job: Job, number: int) -> LearnPromptsModule:
    """The untrained stage; the photos' features are computed or read from the cache."""
    stage, material = LearnPromptsStage(job.recipe, number).settings, job.material
    photos, conditions = job.decoded(material.split.train), job.conditions(material.split.train)
    size = job.recipe.evaluate.batch_size
    features = torch.from_numpy(
        cached_joint_features(job.embedder, photos, conditions=conditions, batch_size=size, progress=job.progress)
    )
    labels = labels_of(material)
    filled, notes = _sentences(stage, material)
    texts = [sentence for sentences in filled for sentence in sentences]
    for note in [*notes, *unknown_words_note(job.text, _words(stage, material, texts), f"stages.{number}")]:
        job.progress.say(f"note: {note}")
    sentences = make_sentences(job.text, texts, _places(stage))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(job.seed(number))
        learner = PromptLearner(
            sentences,
            job.text.width,
            tokens=stage.tokens,
            prompts=stage.prompts,
            contexts=stage.contexts,
            beginning=_beginning(stage, job.text, material, _means(features, torch.from_numpy(labels))),
            dropout=stage.dropout,
            average=stage.average,
        )
    return LearnPromptsModule(
        learner,
        job.text,
        stage,
        features,
        torch.from_numpy(labels),
        names=material.split.train_identities(),
        sentences=filled,
        seed=job.seed(number),
    )


def _sentences(stage: LearnPrompts, material: RunDataset) -> tuple[list[list[str]], list[str]]:
    return fill_templates(stage.placed, material.manifest.table[material.split.train], labels_of(material))


def _words(stage: LearnPrompts, material: RunDataset, sentences: list[str]) -> list[str]:
    """Texts with all words that are read of the recipe: the sentences, and what contexts start from."""
    texts = [sentence.replace(CONTEXT, " ") for sentence in sentences]
    match stage.init:
        case AttributeWords():
            return [*texts, *_phrases(stage.init, material)]
        case str():
            return [*texts, stage.init]
        case _:
            return texts


def _places(stage: LearnPrompts) -> int:
    return stage.tokens * (2 if stage.contexts == "both" else 1)


def _beginning(stage: LearnPrompts, text: TextEncoder, material: RunDataset, means: Tensor) -> ContextInit:
    match stage.init:
        case None:
            return ContextInit(stage.std)
        case NearestWords():
            words = text.embed(nearest_words(text, means, stage.tokens)).detach()
        case AttributeWords():
            phrases = _phrases(stage.init, material)
            words = torch.stack([word_embeddings(text, phrase or "person", stage.tokens) for phrase in phrases])
        case str():
            words = word_embeddings(text, stage.init, stage.tokens).expand(len(means), -1, -1)
    return ContextInit(stage.std, words)


def _phrases(init: AttributeWords, material: RunDataset) -> list[str]:
    return attribute_phrases(init.columns, material.manifest.table[material.split.train], labels_of(material))


def _means(features: Tensor, labels: Tensor) -> Tensor:
    """Mean feature of each identity."""
    members = torch.nn.functional.one_hot(labels).T.to(features.dtype)
    return members @ features / members.sum(dim=1, keepdim=True)
