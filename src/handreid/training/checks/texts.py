"""Text features must carry information: those of two identities, two photos or two sentences differ.

At its first token a causal text tower has not read the sentence yet: features taken there are the same for everyone,
the loss decreases nevertheless, and the result is noise. So sentences that differ only in their last word must have
different features, and features must be read at the end-of-text token.
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

ROUNDING = 1e-5  # rounding error of the distance of two features, relative to their length
ADVICE = "read the feature at the end-of-text token: at the start, a causal tower has not read the sentence"
TWINS = ("a photo of a hand on the left", "a photo of a hand on the right")


def texts_of_prompts(learner: PromptLearner, text: TextEncoder, *, shared: bool) -> CheckResult:
    """Texts of the first identities with initial contexts, and two sentences that differ in the last word.

    With `shared` contexts only, identities with different sentences are used.
    """
    sentences = learner.sentences
    distinct = _distinct(learner, shared=shared)
    wrong = _sentence_end_unread(text)
    end = text.ends[1]
    places = sentences.tokens[torch.arange(len(sentences)), sentences.ends]
    if not bool((places == end).all()):
        wrong.append(f"{int((places != end).sum())} sentences do not have the end-of-text token where they are read")
    with torch.no_grad():
        features = learner.mean(learner(text, torch.tensor(distinct)))
    apart = spread(features)
    if apart <= ROUNDING:
        wrong.append(f"the texts of {len(distinct)} identities are all the same, to {apart:.1e} of their length")
    summary = f"texts of {len(distinct)} identities are {apart:.2g} of their length apart; the end of the text is read"
    return verdict("texts", wrong, summary, ADVICE)


def texts_of_objectives(objectives: Mapping[str, nn.Module], composed: Tensor | None) -> CheckResult | None:
    """Texts used by objectives, and sentences `composed` by a head; None where there are neither."""
    wrong: list[str] = []
    summaries: list[str] = []
    for name, objective in objectives.items():
        if isinstance(objective, ImageToText | TextToImage):
            _compare(f"texts of {name}", objective.texts[:64], "identities", wrong, summaries)
    if composed is not None:
        _compare("composed sentences", composed, "photos", wrong, summaries)
    return verdict("texts", wrong, ", ".join(summaries), ADVICE) if wrong or summaries else None


def texts_of_evaluation(recipe: Recipe, text: TextEncoder) -> CheckResult | None:
    """Sentences of the recipe's zero-shot evaluation for the four views; None where it has none."""
    prompts = recipe.evaluate.prompts
    if prompts is None:
        return None
    wrong: list[str] = []
    summaries: list[str] = []
    sentences = [prompts.templates[0].format(aspect=a, side=s, surface=SURFACES[a]) for a, s in VIEWS]
    with torch.no_grad():
        features = text.encode(sentences)
    near = min(float((a - b).norm() / b.norm()) for n, a in enumerate(features) for b in features[:n])
    if near <= ROUNDING:
        wrong.append(f"sentences for two views have the same feature, to {near:.1e} of its length")
    summaries.append(f"sentences for {len(sentences)} views are at least {near:.2g} of their length apart")
    return verdict("texts", wrong, summaries[0], ADVICE)


def spread(features: Tensor) -> float:
    """The largest distance of any feature to the first, relative to the first's length."""
    features = features.detach().float()
    return float((features - features[0]).norm(dim=1).max() / features[0].norm().clamp(min=1e-12))


def _compare(what: str, features: Tensor, unit: str, wrong: list[str], summaries: list[str]) -> None:
    apart = spread(features)
    if not apart > ROUNDING:
        wrong.append(f"{what} are all the same for {len(features)} {unit}, to {apart:.1e} of their length")
    summaries.append(f"{what} are {apart:.2g} of their length apart over {len(features)} {unit}")


def _distinct(learner: PromptLearner, *, shared: bool, limit: int = 4) -> list[int]:
    """The first identities; with shared contexts only, the first with different sentences."""
    identities = range(learner.identities)
    if not shared:
        return list(identities[:limit])
    rows: dict[tuple[int, ...], int] = {}
    for identity in identities:
        rows.setdefault(tuple(learner.sentences.tokens[identity].tolist()), identity)
    return list(rows.values())[:limit]


def _sentence_end_unread(text: TextEncoder) -> list[str]:
    features = _read(text, TWINS)
    apart = spread(features)
    if apart > ROUNDING:
        return []
    return [f"{TWINS[0]!r} and {TWINS[1]!r} have the same feature, to {apart:.1e} of its length"]


def _read(text: TextEncoder, sentences: Sequence[str]) -> Tensor:
    """Features computed from token embeddings, as for learned contexts."""
    start, end = text.ends
    rows = [[start, *text.pieces(sentence), end] for sentence in sentences]
    ends = torch.tensor([len(row) - 1 for row in rows])
    padded = torch.tensor([[*row, *[0] * (max(map(len, rows)) - len(row))] for row in rows])
    with torch.no_grad():
        return text.encode_embedded(text.embed(padded), ends)
