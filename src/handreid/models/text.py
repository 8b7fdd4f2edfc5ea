"""The text tower: words, or embeddings in the place of words, to the joint space.

In a causal tower the feature at the end-of-text token does not depend on the tokens after it. So sentences of
embeddings are cut after the last end-of-text token: 16 tokens instead of CLIP's 77 are five times faster.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from open_clip import SimpleTokenizer
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from handreid.errors import RecipeError, WeightsError
from handreid.models.sealed import load_sealed, save_sealed

FORMAT = 1
_KEY = "handreid-text"  # of the file's metadata


class TextEncoder(nn.Module):
    """Words to the joint space; equal to open_clip's `encode_text`.

    The members below `check_promptable` need a tower that passes it: CLIP's own, causal, with CLIP's tokenizer.

    `seen` marks the tokens that the tower learned from, and only these have a meaning; None: all of them, or unknown.
    """

    seen: Bool[Tensor, " vocabulary"] | None

    def __init__(self, clip: Any, tokenizer: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.seen = None

    def forward(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts joint"]:
        features: Tensor = self.clip.encode_text(tokens)
        return features

    def encode(self, texts: list[str]) -> Float[Tensor, "texts joint"]:
        features: Tensor = self(self.tokenizer(texts).to(self.device))
        return features

    def save(self, path: Path, *, before: Callable[[Path], object] | None = None) -> None:
        """Writes the tower's weights; `before` as in `write_atomic`. Raises OutputError."""
        save_sealed(path, self.state_dict(), _KEY, {"format": FORMAT, **self.seen_facts}, before=before)

    def read(self, path: Path) -> None:
        """Loads the weights of a file that `save` wrote, of a tower of the same shapes. Raises WeightsError."""
        facts, state = load_sealed(path, _KEY, "text tower", FORMAT)
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise WeightsError(f"{path} is of another text tower than this backbone has: {reason}") from None
        self.seen = seen_tokens(facts)

    @property
    def seen_facts(self) -> dict[str, Any]:
        """`seen` for the metadata of a file, as `seen_tokens` reads it; empty if it is not known."""
        if self.seen is None:
            return {}
        return {"vocabulary": len(self.seen), "seen": self.seen.nonzero()[:, 0].tolist()}

    def note_seen(self, tokens: Int[Tensor, "texts length"]) -> None:
        """Marks the tokens of texts that the tower now learns from, up to the end of each."""
        if self.seen is not None:
            seen = self.seen.clone()
            seen[self.read_tokens(tokens)] = True
            self.seen = seen

    def read_tokens(self, tokens: Int[Tensor, "texts length"]) -> Int[Tensor, " tokens"]:
        """Those tokens of texts that a causal tower reads: not the padding after the end."""
        ended = (tokens == self.ends[1]).int()
        return tokens[(ended.cumsum(dim=1) - ended) == 0]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def check_promptable(self) -> None:
        """Raises RecipeError when learned embeddings cannot replace words."""
        tower, pooling = self._tower_and_pooling()
        if not isinstance(self.tokenizer, SimpleTokenizer) or pooling not in ("argmax", "eos"):
            raise RecipeError(
                "prompts need CLIP's own text tower and tokenizer, pooled at the end of the text, but this backbone "
                "has others: use another model.backbone.name"
            )
        if tower.attn_mask is None or getattr(tower, "cls_emb", None) is not None:
            raise RecipeError(
                "prompts need a causal text tower, but this one is not causal: use another model.backbone.name"
            )

    @property
    def width(self) -> int:
        """Width of a token's embedding."""
        return self.vocabulary.shape[1]

    @property
    def length(self) -> int:
        """The largest number of tokens, start and end included."""
        positions: Tensor = self._tower.positional_embedding
        return positions.shape[0]

    @property
    def vocabulary(self) -> Float[Tensor, "vocabulary width"]:
        """Embeddings of all tokens."""
        weight: Tensor = self._tower.token_embedding.weight
        return weight

    @property
    def known_vocabulary(self) -> Float[Tensor, "known width"]:
        """Embeddings of the tokens that have a meaning; of all tokens if none or one has."""
        table = self.vocabulary
        return table if self.seen is None or self.seen.sum() < 2 else table[self.seen.to(table.device)]

    @property
    def ends(self) -> tuple[int, int]:
        """The tokens that start and end every sentence."""
        return int(self._words.sot_token_id), int(self._words.eot_token_id)

    def pieces(self, text: str) -> list[int]:
        """Tokens of the text, without those of start and end."""
        return [int(token) for token in self._words.encode(text)]

    def word(self, token: int) -> str:
        """A token as text; one that ends a word has a space after it."""
        return str(self._words.decode([token]))

    def embed(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts length width"]:
        embedded: Tensor = self._tower.token_embedding(tokens)
        return embedded

    def encode_embedded(
        self, embedded: Float[Tensor, "texts length width"], ends: Int[Tensor, " texts"]
    ) -> Float[Tensor, "texts joint"]:
        """As `forward` for tokens with these embeddings; `ends` are the positions of the end-of-text tokens.

        Raises ValueError for sentences that are longer than the tower reads.
        """
        tower, length = self._tower, embedded.shape[1]
        if length > self.length:
            raise ValueError(f"sentences of {length} tokens, but the text tower reads {self.length}")
        positions: Tensor = tower.positional_embedding[:length]
        hidden = tower.transformer(embedded + positions, attn_mask=tower.attn_mask[:length, :length])
        final: Tensor = tower.ln_final(hidden)[torch.arange(len(ends), device=ends.device), ends]
        project = tower.text_projection
        if project is None:
            return final
        projected: Tensor = project(final) if isinstance(project, nn.Linear) else final @ project
        return projected

    @property
    def _tower(self) -> Any:
        return self._tower_and_pooling()[0]

    @property
    def _words(self) -> SimpleTokenizer:
        if not isinstance(self.tokenizer, SimpleTokenizer):
            raise TypeError("not CLIP's tokenizer; see check_promptable")
        return self.tokenizer

    def _tower_and_pooling(self) -> tuple[Any, str]:
        """CLIP has its text tower's parts as attributes, CustomTextCLIP has a tower; others may be anything."""
        if isinstance(self.clip, CLIP):
            return self.clip, self.clip.text_pool_type
        if isinstance(self.clip, CustomTextCLIP) and isinstance(self.clip.text, TextTransformer):
            return self.clip.text, self.clip.text.pool_type
        return self.clip, "of another kind"


def seen_tokens(facts: Mapping[str, Any]) -> Bool[Tensor, " vocabulary"] | None:
    """What `TextEncoder.seen_facts` gave; None for a file without it. Raises WeightsError."""
    if "seen" not in facts:
        return None
    try:
        seen = torch.zeros(int(facts["vocabulary"]), dtype=torch.bool)
        seen[torch.tensor(facts["seen"], dtype=torch.long)] = True
    except (LookupError, TypeError, ValueError, RuntimeError):
        raise WeightsError("the tokens that the text tower learned from are not as handreid writes them") from None
    return seen
