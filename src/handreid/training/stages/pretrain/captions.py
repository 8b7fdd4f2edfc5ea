"""Captions of photos as tokens: all wordings of the manifest's column `caption`, of which a photo's seed draws one."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from handreid.data.captions import split_wordings
from handreid.data.sampling import Drawn
from handreid.errors import RecipeError
from handreid.models.text import TextEncoder


@dataclass(frozen=True, eq=False)
class Captions:
    """`tokens` of all different wordings, and for each photo the wordings it has."""

    tokens: Int[Tensor, "wordings length"]
    of_photo: tuple[tuple[int, ...], ...]

    def drawn(self, drawn: Sequence[Drawn]) -> Int[Tensor, "batch length"]:
        """A wording of each photo, chosen by its seed."""
        rows = [self.of_photo[place][seed % len(self.of_photo[place])] for place, seed in drawn]
        return self.tokens[torch.tensor(rows)]


def wordings(photos: pl.DataFrame) -> list[tuple[str, ...]]:
    """The wordings of each photo. Raises RecipeError for photos without any."""
    split = [split_wordings(cell) for cell in photos["caption"]]
    without = [name for name, parts in zip(photos["path"].to_list(), split, strict=True) if not parts]
    if without:
        raise RecipeError(
            f"image_text needs a caption for every training photo, but {len(without):,} of {len(split):,} have none in "
            f"the manifest's column `caption` (such as {without[0]}): fill it in (`handreid data caption`), or leave "
            "these photos out"
        )
    return split


def tokenise(texts: Sequence[tuple[str, ...]], text: TextEncoder) -> tuple[Captions, list[str]]:
    """The captions as tokens, and notes on those that are longer than the text tower reads."""
    names = sorted({wording for parts in texts for wording in parts})
    numbers = {name: number for number, name in enumerate(names)}
    tokens = text.tokenizer(names)
    cut = int((tokens[:, -1] != 0).sum())
    notes = []
    if cut:
        notes.append(f"{cut:,} of {len(names):,} wordings of captions are cut to {tokens.shape[1]} tokens")
    return Captions(tokens, tuple(tuple(numbers[wording] for wording in parts) for parts in texts)), notes
