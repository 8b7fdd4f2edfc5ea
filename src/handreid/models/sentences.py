"""Sentences with places for learned embeddings: tokens, the places, and the end of each sentence."""

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
    """`tokens` are padded with zeros after the end-of-text token at `ends`; contexts replace those at `places`."""

    tokens: Int[Tensor, "texts length"]
    places: Int[Tensor, "texts context"]
    ends: Int[Tensor, " texts"]

    def __len__(self) -> int:
        return len(self.ends)

    def select(self, which: Int[Tensor, " some"]) -> "Sentences":
        """These sentences, in this order."""
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
    """Each template with `tokens` placeholder tokens in the place of `{context}`.

    Raises RecipeError when a template has not exactly one such place, or is too long for the tower.
    """
    start, end = text.ends
    rows, places = [], []
    for template in templates:
        before, *rest = template.split(CONTEXT)
        if len(rest) != 1:
            raise RecipeError(f"template {template!r} must contain {CONTEXT} once, the place of the learned context")
        begin = [start, *text.pieces(before)]
        row = [*begin, *[0] * tokens, *text.pieces(rest[0]), end]
        if len(row) > text.length:
            raise RecipeError(
                f"template {template!r} with {tokens} tokens of context has {len(row)} tokens, but the text tower "
                f"reads {text.length}: use fewer tokens or a shorter template"
            )
        rows.append(row)
        places.append(range(len(begin), len(begin) + tokens))
    length = max(map(len, rows))
    padded = [[*row, *[0] * (length - len(row))] for row in rows]
    positions = torch.tensor([list(span) for span in places], dtype=torch.long).reshape(len(rows), tokens)
    return Sentences(torch.tensor(padded), positions, torch.tensor([len(row) - 1 for row in rows]))
