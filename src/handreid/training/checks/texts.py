"""Text features say something: those of two identities, two photos or two sentences differ.

A causal text tower has seen nothing of the sentence at its first token: read there, everyone has the same feature, a
loss goes down all the same, and what was learned is noise. So sentences that differ in their last word alone must
differ, and the end must be where the end-of-text token is.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from handreid.data.prompt_text import SURFACES, VIEWS
from handreid.models.prompts import PromptLearner
from handreid.models.text import TextEncoder
from handreid.objectives.image_to_text import ImageToText
from handreid.objectives.text_to_image import TextToImage
from handreid.recipe import Recipe
from handreid.training.checks.result import CheckResult, verdict

ROUNDING = 1e-5  # of two features' distance, by their length
ADVICE = "read the feature at the end-of-text token: at the start, a causal tower has not read the sentence"
TWINS = ("a photo of a hand on the left", "a photo of a hand on the right")


def texts_of_prompts(learner: PromptLearner, text: TextEncoder, *, shared: bool) -> CheckResult:
    """Texts of the first identities, as their contexts begin, and two sentences whose last word differs.

    With `shared` contexts alone, of those identities whose sentences differ.
    """
    sentences = learner.sentences
    distinct = _distinct(learner, shared=shared)
    wrong = _not_at_the_end(text)
    end = text.ends[1]
    places = sentences.tokens[torch.arange(len(sentences)), sentences.ends]
    if not bool((places == end).all()):
        wrong.append(f"{int((places != end).sum())} sentences do not have the end-of-text token where they are read")
    with torch.no_grad():
        features = learner.mean(learner(text, torch.tensor(distinct)))
    apart = spread(features)
    if apart <= ROUNDING:
        wrong.append(f"the texts of {len(distinct)} identities are all the same, to {apart:.1e} of their length")
    found = f"texts of {len(distinct)} identities are {apart:.2g} of their length apart; the end of the text is read"
    return verdict("texts", wrong, found, ADVICE)


def texts_of_objectives(objectives: Mapping[str, nn.Module], composed: Tensor | None) -> CheckResult | None:
    """Texts that objectives compare with, and sentences that a head `composed`; None where there are none."""
    wrong: list[str] = []
    found: list[str] = []
    for name, objective in objectives.items():
        if isinstance(objective, ImageToText | TextToImage):
            _compare(f"texts of {name}", objective.texts[:64], "identities", wrong, found)
    if composed is not None:
        _compare("composed sentences", composed, "photos", wrong, found)
    return verdict("texts", wrong, ", ".join(found), ADVICE) if wrong or found else None


def texts_of_evaluation(recipe: Recipe, text: TextEncoder) -> CheckResult | None:
    """Sentences for the four views, as the recipe's evaluation has them; None where it has none."""
    asked = recipe.evaluate.prompts
    if asked is None:
        return None
    wrong: list[str] = []
    found: list[str] = []
    sentences = [asked.templates[0].format(aspect=a, side=s, surface=SURFACES[a]) for a, s in VIEWS]
    with torch.no_grad():
        features = text.encode(sentences)
    near = min(float((a - b).norm() / b.norm()) for n, a in enumerate(features) for b in features[:n])
    if near <= ROUNDING:
        wrong.append(f"sentences for two views have the same feature, to {near:.1e} of its length")
    found.append(f"sentences for {len(sentences)} views are at least {near:.2g} of their length apart")
    return verdict("texts", wrong, found[0], ADVICE)


def spread(features: Tensor) -> float:
    """The largest distance of any feature to the first, by its length."""
    features = features.detach().float()
    return float((features - features[0]).norm(dim=1).max() / features[0].norm().clamp(min=1e-12))


def _compare(what: str, features: Tensor, of: str, wrong: list[str], found: list[str]) -> None:
    apart = spread(features)
    if not apart > ROUNDING:
        wrong.append(f"{what} are all the same for {len(features)} {of}, to {apart:.1e} of their length")
    found.append(f"{what} are {apart:.2g} of their length apart over {len(features)} {of}")


def _distinct(learner: PromptLearner, *, shared: bool, most: int = 4) -> list[int]:
    """The first identities, and with a shared context alone those whose sentences differ."""
    identities = range(learner.identities)
    if not shared:
        return list(identities[:most])
    rows: dict[tuple[int, ...], int] = {}
    for identity in identities:
        rows.setdefault(tuple(learner.sentences.tokens[identity].tolist()), identity)
    return list(rows.values())[:most]


def _not_at_the_end(text: TextEncoder) -> list[str]:
    features = _read(text, TWINS)
    apart = spread(features)
    if apart > ROUNDING:
        return []
    return [f"{TWINS[0]!r} and {TWINS[1]!r} have the same feature, to {apart:.1e} of its length"]


def _read(text: TextEncoder, sentences: Sequence[str]) -> Tensor:
    """Features by the way that learned embeddings take."""
    start, end = text.ends
    rows = [[start, *text.pieces(sentence), end] for sentence in sentences]
    ends = torch.tensor([len(row) - 1 for row in rows])
    padded = torch.tensor([[*row, *[0] * (max(map(len, rows)) - len(row))] for row in rows])
    with torch.no_grad():
        return text.encode_embedded(text.embed(padded), ends)
