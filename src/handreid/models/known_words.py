"""Which words a text tower knows: one with a cut vocabulary has no embeddings for words that it never learned from."""

import string
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from handreid.models.text import TextEncoder

_AT_ONCE = 10_000  # texts that are tokenised at a time


def tokens_in(text: TextEncoder, sentences: Sequence[str]) -> Bool[Tensor, " vocabulary"]:
    """Marks the tokens that the tower reads of the sentences, start and end included."""
    found = torch.zeros(len(text.vocabulary), dtype=torch.bool)
    for start in range(0, len(sentences), _AT_ONCE):
        found[text.read_tokens(text.tokenizer(list(sentences[start : start + _AT_ONCE])))] = True
    return found


def unknown_words(text: TextEncoder, sentences: Iterable[str]) -> list[str]:
    """Words of the sentences, sorted, of which the tower has never learned some token; punctuation is not a word."""
    if text.seen is None:
        return []
    words = {word.strip(string.punctuation).lower() for sentence in sentences for word in sentence.split()} - {""}
    return sorted(word for word in words if not bool(text.seen[text.pieces(word)].all()))
