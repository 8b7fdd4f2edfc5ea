"""What words lie near to what was learned in the place of words. They are neighbours, and no explanation.

A learned embedding lies where no word is; the nearest one may be far, and say nothing of the hand (Zhou et al.,
"Learning to Prompt for Vision-Language Models", 2022, section 4.4). So distances are given, beside how near words are
to words.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from handreid.errors import RunError
from handreid.models.prompts import LearnedPrompts, whole_words
from handreid.runs.folder import Run
from handreid.runs.pretrained_weights import towers_of
from handreid.training.stages.learn_prompts.stage import load_prompts

WARNING = (
    "These words are the nearest ones of the vocabulary, not an explanation: a learned embedding lies between words, "
    "and its effect in the sentence need not be what its neighbours mean."
)


@dataclass(frozen=True)
class Explained:
    """Nearest words to each embedding of one context, with Euclidean distances; `identity` is None for a shared one."""

    identity: str | None
    prompt: int  # of the ensemble, from 0
    sentence: str
    tokens: tuple[tuple[tuple[str, float], ...], ...]


def explain(run: Run, *, identities: int = 5, words: int = 3) -> tuple[list[Explained], float]:
    """The contexts of the first so many identities, shared ones before, of the run's latest prompts.

    With them the median distance from a word of the vocabulary to its nearest other: what "near" means. Raises RunError
    for a run without prompts.
    """
    prompts = _latest(run)
    text = towers_of(run).text
    tokens = torch.tensor(whole_words(text))
    with torch.no_grad():
        vocabulary = text.vocabulary[tokens]
    named = [text.word(int(token)).strip() for token in tokens]
    found = []
    for kind in ("shared", "identity"):
        for prompt, of_prompt in enumerate(prompts.contexts.get(kind, torch.zeros(0))):
            for number, context in enumerate(of_prompt[: identities if kind == "identity" else 1]):
                near = _nearest(context, vocabulary, named, words)
                name = prompts.identities[number] if kind == "identity" else None
                found.append(Explained(name, prompt, prompts.sentences[prompt][number], near))
    return sorted(found, key=lambda one: (one.identity is not None, one.identity or "", one.prompt)), _usual(vocabulary)


def content(found: list[Explained], usual: float) -> dict[str, Any]:
    """The same as JSON."""
    entries = [
        {
            "identity": one.identity,
            "prompt": one.prompt,
            "sentence": one.sentence,
            "tokens": [[{"word": word, "distance": distance} for word, distance in near] for near in one.tokens],
        }
        for one in found
    ]
    return {"warning": WARNING, "distance_between_words": usual, "contexts": entries}


def _latest(run: Run) -> LearnedPrompts:
    stages = run.recipe.stages
    numbers = [number for number, stage in enumerate(stages) if stage.learns_texts]
    if not numbers:
        raise RunError(f"{run.folder} learned no prompts: its recipe {run.recipe.name!r} has no stage learn_prompts")
    folder = run.stage(numbers[-1], stages[numbers[-1]].kind)
    if not (folder / "last.safetensors").exists():
        raise RunError(f"{run.folder} has not finished learning prompts; continue with `handreid train --resume --out`")
    return load_prompts(folder)


def _nearest(
    context: Float[Tensor, "tokens width"], vocabulary: Float[Tensor, "words width"], named: list[str], words: int
) -> tuple[tuple[tuple[str, float], ...], ...]:
    near = torch.cdist(context, vocabulary).topk(words, dim=1, largest=False)
    rows = zip(near.indices.tolist(), near.values.tolist(), strict=True)
    return tuple(tuple((named[at], distance) for at, distance in zip(*row, strict=True)) for row in rows)


def _usual(vocabulary: Float[Tensor, "words width"], sample: int = 500) -> float:
    """Median distance of a sample of words to the nearest other word."""
    some: Int[Tensor, " sample"] = torch.linspace(0, len(vocabulary) - 1, min(sample, len(vocabulary))).long()
    distances = torch.cdist(vocabulary[some], vocabulary).topk(2, dim=1, largest=False).values[:, 1]
    return distances.median().item()
