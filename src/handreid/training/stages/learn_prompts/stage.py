"""A stage in which words for identities are learned, the encoder left as it is."""

from pathlib import Path

import torch
from torch import Tensor

from handreid.data.prompt_text import attribute_phrases, fill
from handreid.errors import RecipeError
from handreid.models.feature_cache import cached_joint_features
from handreid.models.prompts import Beginning, LearnedPrompts, PromptLearner, nearest_words, word_embeddings
from handreid.models.sentences import make_sentences
from handreid.models.text import TextEncoder
from handreid.recipe import LearnPrompts, Recipe
from handreid.recipe.prompts import AttributeWords, NearestWords
from handreid.runs.dataset import Material
from handreid.runs.stage_weights import checked
from handreid.training.checks import before_stage
from handreid.training.context import Job, labels_of
from handreid.training.epoch_callback import Check
from handreid.training.parameter_counts import note_parameters
from handreid.training.stages.learn_prompts.module import LearnPromptsModule
from handreid.training.trainer import fit, unfinished


def check_learn_prompts(recipe: Recipe, number: int, text: TextEncoder, material: Material) -> None:
    """Raises what building the stage would."""
    stage = _stage(recipe, number)
    text.check_promptable()
    filled, _ = _sentences(stage, material)
    make_sentences(text, [sentence for of in filled for sentence in of], _places(stage))
    if stage.contexts == "shared" and all(len(set(of)) == 1 for of in filled):
        raise RecipeError(
            f"stages.{number}: with shared contexts only, every identity has the prompt {filled[0][0]!r}, so none can "
            "be told from another: use contexts: identity or both, or {places} in which identities differ"
        )
    if isinstance(stage.init, AttributeWords):
        _phrases(stage.init, material)


def learn_prompts(job: Job, number: int) -> None:
    """Learns what is left of a stage; its prompts are then in its folder, and the embedder is as it was."""
    if unfinished(job, number):
        module = prompts_module(job, number)
        contexts = sum(own.numel() for own in module.parameters())
        towers = sum(own.numel() for part in (job.embedder, job.text) for own in part.parameters())
        note_parameters(job.folder(number), {"contexts": contexts}, contexts + towers, job.progress.say)
        every = _stage(job.recipe, number).validate_every
        check = Check(module.sanity, every, name="prompts", monitor=None, quiet=True)
        before_stage(job, number, module)
        fit(job, number, module, check)


def learned(folder: Path) -> LearnedPrompts:
    """The prompts of a stage that is finished. Raises RunError, and WeightsError."""
    return LearnedPrompts.load(checked(folder / "last.safetensors"))


def _stage(recipe: Recipe, number: int) -> LearnPrompts:
    stage = recipe.stages[number]
    assert isinstance(stage, LearnPrompts)  # noqa: S101 - for the type checker
    return stage


def prompts_module(job: Job, number: int) -> LearnPromptsModule:
    """The stage as it begins; photos' features are computed for it, or found."""
    stage, material = _stage(job.recipe, number), job.material
    photos, conditions = job.decoded(material.split.train), job.conditions(material.split.train)
    size = job.recipe.evaluate.batch_size
    features = torch.from_numpy(
        cached_joint_features(job.embedder, photos, conditions=conditions, batch_size=size, progress=job.progress)
    )
    labels = labels_of(material)
    filled, notes = _sentences(stage, material)
    for note in notes:
        job.progress.say(f"note: {note}")
    sentences = make_sentences(job.text, [sentence for of in filled for sentence in of], _places(stage))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed(number))
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


def _sentences(stage: LearnPrompts, material: Material) -> tuple[list[list[str]], list[str]]:
    return fill(stage.placed, material.manifest.table[material.split.train], labels_of(material))


def _places(stage: LearnPrompts) -> int:
    return stage.tokens * (2 if stage.contexts == "both" else 1)


def _beginning(stage: LearnPrompts, text: TextEncoder, material: Material, means: Tensor) -> Beginning:
    match stage.init:
        case None:
            return Beginning(stage.std)
        case NearestWords():
            words = text.embed(nearest_words(text, means, stage.tokens)).detach()
        case AttributeWords():
            phrases = _phrases(stage.init, material)
            words = torch.stack([word_embeddings(text, phrase or "person", stage.tokens) for phrase in phrases])
        case str():
            words = word_embeddings(text, stage.init, stage.tokens).expand(len(means), -1, -1)
    return Beginning(stage.std, words)


def _phrases(init: AttributeWords, material: Material) -> list[str]:
    return attribute_phrases(init.columns, material.manifest.table[material.split.train], labels_of(material))


def _means(features: Tensor, labels: Tensor) -> Tensor:
    """Mean feature of each identity."""
    members = torch.nn.functional.one_hot(labels).T.to(features.dtype)
    return members @ features / members.sum(dim=1, keepdim=True)
