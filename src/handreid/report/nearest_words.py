"""The words nearest to learned prompt embeddings. They are neighbours, not an explanation.

A learned embedding is not at a word; the nearest word may be far away and unrelated to the hand (Zhou et al., "Learning
to Prompt for Vision-Language Models", 2022, section 4.4). So distances are given, and for comparison the typical
distance between words.
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
    """Nearest words to each embedding of one context, with Euclidean distances; a shared context has no `identity`."""

    identity: str | None
    prompt: int  # number in the ensemble, from 0
    sentence: str
    tokens: tuple[tuple[tuple[str, float], ...], ...]


def explain(run: Run, *, identities: int = 5, words: int = 3) -> tuple[list[Explained], float]:
    """The shared contexts and those of the first `identities` identities, of the run's latest prompts; and the median
    distance between a word of the vocabulary and its nearest other word, for comparison.

    Raises RunError for a run without prompts, and for one whose text tower knows fewer words.
    """
    prompts = _latest(run)
    text = towers_of(run).text
    tokens = torch.tensor(whole_words(text), dtype=torch.long)
    if len(tokens) < max(words, 2):
        raise RunError(f"{run.folder}: its text tower knows {len(tokens)} words, too few to show the nearest {words}")
    with torch.no_grad():
        vocabulary = text.vocabulary[tokens]
    vocabulary_words = [text.word(int(token)).strip() for token in tokens]
    explained = []
    for kind in ("shared", "identity"):
        for prompt, of_prompt in enumerate(prompts.contexts.get(kind, torch.zeros(0))):
            for number, context in enumerate(of_prompt[: identities if kind == "identity" else 1]):
                near = _nearest(context, vocabulary, vocabulary_words, words)
                name = prompts.identities[number] if kind == "identity" else None
                explained.append(Explained(name, prompt, prompts.sentences[prompt][number], near))
    return sorted(
        explained, key=lambda entry: (entry.identity is not None, entry.identity or "", entry.prompt)
    ), _usual(vocabulary)


def content(explained: list[Explained], usual: float) -> dict[str, Any]:
    """The result of `explain` as JSON."""
    entries = [
        {
            "identity": entry.identity,
            "prompt": entry.prompt,
            "sentence": entry.sentence,
            "tokens": [[{"word": word, "distance": distance} for word, distance in near] for near in entry.tokens],
        }
        for entry in explained
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
    context: Float[Tensor, "tokens width"],
    vocabulary: Float[Tensor, "words width"],
    vocabulary_words: list[str],
    words: int,
) -> tuple[tuple[tuple[str, float], ...], ...]:
    near = torch.cdist(context, vocabulary).topk(words, dim=1, largest=False)
    rows = zip(near.indices.tolist(), near.values.tolist(), strict=True)
    return tuple(
        tuple((vocabulary_words[index], distance) for index, distance in zip(*row, strict=True)) for row in rows
    )


def _usual(vocabulary: Float[Tensor, "words width"], sample: int = 500) -> float:
    """Median distance of a sample of words to the nearest other word."""
    sampled: Int[Tensor, " sample"] = torch.linspace(0, len(vocabulary) - 1, min(sample, len(vocabulary))).long()
    distances = torch.cdist(vocabulary[sampled], vocabulary).topk(2, dim=1, largest=False).values[:, 1]
    return distances.median().item()
