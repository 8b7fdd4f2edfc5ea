"""Zero-shot aspect classification: how well do words name what a photo shows?

A photo is given the view whose text feature is nearest to its joint feature. Several templates are an ensemble: their
normalised text features are averaged and normalised again (Radford et al. 2021, section 3.1.4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from handreid.data.words import SURFACES

VIEWS = (("dorsal", "right"), ("dorsal", "left"), ("palmar", "right"), ("palmar", "left"))


@dataclass(frozen=True)
class PromptScore:
    """Whether each photo was named rightly by one template, or by the ensemble of all (`template` is None)."""

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
    """The two-way answers sum over what is not asked for: the better of both sides, of both aspects."""
    aspect = np.stack([similarity[:, :2].max(axis=1), similarity[:, 2:].max(axis=1)], axis=1).argmax(axis=1)
    side = np.stack([similarity[:, 0::2].max(axis=1), similarity[:, 1::2].max(axis=1)], axis=1).argmax(axis=1)
    return PromptScore(template, similarity.argmax(axis=1) == views, aspect == views // 2, side == views % 2)


def _unit(features: Float[np.ndarray, "*batch joint"]) -> Float[np.ndarray, "*batch joint"]:
    unit: Float[np.ndarray, "*batch joint"] = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return unit
