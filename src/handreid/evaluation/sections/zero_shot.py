"""Zero-shot view classification with text prompts.

A photo is assigned the view whose text feature is nearest to its joint feature. Several templates form an ensemble:
their normalised text features are averaged and normalised again (Radford et al. 2021, section 3.1.4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from handreid.data.prompt_text import SURFACES, VIEWS
from handreid.evaluation.sections.context import EvaluationContext
from handreid.metrics.intervals import intervals
from handreid.models.extraction import joint_features
from handreid.recipe import Prompts
from handreid.runs.pretrained_weights import towers_of
from handreid.runs.results import Metric, PromptResult
from handreid.runs.unknown_words import unknown_words_note


class ZeroShotSection:
    name = "prompts"

    def __call__(self, context: EvaluationContext) -> list[PromptResult] | None:
        """None without `evaluate.prompts` in the recipe; no entries where no photo's view is known."""
        prompts = context.recipe.evaluate.prompts
        return None if prompts is None else score_prompts(context, prompts)


@dataclass(frozen=True)
class PromptScore:
    """Whether each photo was classified correctly by one template, or by the ensemble of all (`template` is None)."""

    template: str | None
    view: Bool[np.ndarray, " photos"]  # one of four; chance 25 %
    aspect: Bool[np.ndarray, " photos"]  # dorsal or palmar, whatever the side; chance 50 %
    side: Bool[np.ndarray, " photos"]  # left or right, whatever the aspect; chance 50 %


def view_index(aspects: Sequence[str | None], sides: Sequence[str | None]) -> Int[np.ndarray, " photos"]:
    """Position of each photo's view in VIEWS; -1 where aspect or side are not known."""
    return np.array([VIEWS.index(view) if view in VIEWS else -1 for view in zip(aspects, sides, strict=True)], np.int64)


def classify(
    images: Float[np.ndarray, "photos joint"],
    views: Int[np.ndarray, " photos"],
    templates: Sequence[str],
    encode: Callable[[list[str]], Tensor],
) -> list[PromptScore]:
    """A score per template, and of the ensemble when there are several. `encode` gives the texts' joint features."""
    images = _unit(images)
    texts = np.stack([_unit(encode(_sentences(template)).float().cpu().numpy()) for template in templates])
    scores = [_score(template, images @ text.T, views) for template, text in zip(templates, texts, strict=True)]
    if len(templates) > 1:
        scores.append(_score(None, images @ _unit(texts.mean(axis=0)).T, views))
    return scores


def _sentences(template: str) -> list[str]:
    return [template.format(aspect=aspect, side=side, surface=SURFACES[aspect]) for aspect, side in VIEWS]


def _score(
    template: str | None, similarity: Float[np.ndarray, "photos views"], views: Int[np.ndarray, " photos"]
) -> PromptScore:
    """The two-way answers use the better similarity over the other factor: of both sides, or of both aspects."""
    aspect = np.stack([similarity[:, :2].max(axis=1), similarity[:, 2:].max(axis=1)], axis=1).argmax(axis=1)
    side = np.stack([similarity[:, 0::2].max(axis=1), similarity[:, 1::2].max(axis=1)], axis=1).argmax(axis=1)
    return PromptScore(template, similarity.argmax(axis=1) == views, aspect == views // 2, side == views % 2)


def _unit(features: Float[np.ndarray, "*batch joint"]) -> Float[np.ndarray, "*batch joint"]:
    unit: Float[np.ndarray, "*batch joint"] = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return unit


def score_prompts(context: EvaluationContext, prompts: Prompts) -> list[PromptResult]:
    """Accuracies with intervals over subjects, per template and of the ensemble; each photo's content once."""
    table, recipe, distinct = context.manifest.table, context.recipe, context.distinct
    rows = context.rows[distinct]
    views = view_index(table["aspect"].gather(rows).to_list(), table["side"].gather(rows).to_list())
    labelled = views >= 0
    if not labelled.any():
        return []
    conditions = None if context.conditions is None else context.conditions[distinct]
    text = towers_of(context.run, recipe).text.eval()
    sentences = [sentence for template in prompts.templates for sentence in _sentences(template)]
    context.notes += unknown_words_note(text, sentences, "evaluate.prompts")
    with torch.inference_mode():
        size = recipe.evaluate.batch_size
        images = joint_features(
            context.embedder, context.photos, conditions=conditions, batch_size=size, progress=context.progress
        )
        scores = classify(images[labelled], views[labelled], prompts.templates, text.encode)
    owner = np.unique(table["subject"].gather(rows[labelled]).to_list(), return_inverse=True)[1]
    entries = []
    for score in scores:
        values = {"view": score.view, "aspect": score.aspect, "side": score.side}
        bounds = intervals({k: v.astype(float) for k, v in values.items()}, owner, resamples=recipe.evaluate.resamples)
        accuracy = {k: Metric(value=b.value, low=b.low, high=b.high) for k, b in bounds.items()}
        entries.append(PromptResult(template=score.template, photos=int(labelled.sum()), accuracy=accuracy))
    return entries
