"""Sentences with room for learned embeddings: tokens, where the room is, and where each sentence ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from handreid.errors import RecipeError
from handreid.models.text import TextEncoder

CONTEXT = "{context}"


@dataclass(frozen=True)
class Sentences:
    """`tokens` are padded with zeros behind the end-of-text tokens, at `ends`; those at `places` stand for contexts."""

    tokens: Int[Tensor, "texts length"]
    places: Int[Tensor, "texts context"]
    ends: Int[Tensor, " texts"]

    def __len__(self) -> int:
        return len(self.ends)

    def some(self, which: Int[Tensor, " some"]) -> "Sentences":
        """A part of them, in this order."""
        return Sentences(self.tokens[which], self.places[which], self.ends[which])

    def to(self, device: torch.device) -> "Sentences":
        return Sentences(self.tokens.to(device), self.places.to(device), self.ends.to(device))

    def encode(self, text: TextEncoder, contexts: Float[Tensor, "texts context width"]) -> Float[Tensor, "texts joint"]:
        """Features with these embeddings in the places; gradients reach the contexts.

        Raises ValueError when there are more or fewer embeddings than places.
        """
        if contexts.shape[:2] != self.places.shape:
            raise ValueError(f"contexts of {tuple(contexts.shape[:2])} for places of {tuple(self.places.shape)}")
        embedded = text.embed(self.tokens)
        places = self.places[:, :, None].expand(-1, -1, embedded.shape[2])
        return text.encode_embedded(embedded.scatter(1, places, contexts.to(embedded.dtype)), self.ends)


def make_sentences(text: TextEncoder, templates: Sequence[str], tokens: int) -> Sentences:
    """Each template with `tokens` tokens of room where it says `{context}`.

    Raises RecipeError when a template has not exactly one such place, or does not fit into the tower.
    """
    start, end = text.ends
    rows, places = [], []
    for template in templates:
        before, *others = template.split(CONTEXT)
        if len(others) != 1:
            raise RecipeError(f"template {template!r} must contain {CONTEXT} once, the place of the learned context")
        begin = [start, *text.pieces(before)]
        row = [*begin, *[0] * tokens, *text.pieces(others[0]), end]
        if len(row) > text.length:
            raise RecipeError(
                f"template {template!r} with {tokens} tokens of context has {len(row)} tokens, but the text tower "
                f"reads {text.length}: use fewer tokens or a shorter template"
            )
        rows.append(row)
        places.append(range(len(begin), len(begin) + tokens))
    length = max(map(len, rows))
    padded = [[*row, *[0] * (length - len(row))] for row in rows]
    at = torch.tensor([list(of) for of in places], dtype=torch.long).reshape(len(rows), tokens)
    return Sentences(torch.tensor(padded), at, torch.tensor([len(row) - 1 for row in rows]))
