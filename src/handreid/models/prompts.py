"""Prompt learning: learned contexts in sentences, one per training identity or shared, and their text features.

* The frozen text tower reads a context in the place of words.
* Several prompts of an identity are an ensemble; the identity's text feature is their mean.
* The text tower is passed in; it is never stored here and never trained.
* A file of learned prompts holds the features too, so that no text tower is needed to use them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from handreid.errors import RecipeError, WeightsError
from handreid.models.sealed import load_sealed, save_sealed
from handreid.models.sentences import Sentences
from handreid.models.text import TextEncoder

FORMAT = 2
_KEY = "handreid-prompts"  # of the file's metadata
Contexts = Literal["identity", "shared", "both"]


@dataclass(frozen=True)
class ContextInit:
    """Initial contexts: `words` per identity (embeddings), or only noise of standard deviation `std`.

    A tenth of the noise is added to words.
    """

    std: float = 0.02
    words: Float[Tensor, "identities tokens width"] | None = None

    def drawn(self, prompts: int, identities: int, tokens: int, width: int) -> Float[Tensor, "prompts identities t w"]:
        noise = torch.randn(prompts, identities, tokens, width) * self.std
        return noise if self.words is None else self.words + noise / 10

    @property
    def shared(self) -> "ContextInit":
        """The initial context shared by all identities: the mean of their words."""
        return self if self.words is None else ContextInit(self.std, self.words.mean(dim=0, keepdim=True))


class PromptLearner(nn.Module):
    """Contexts of all identities, and their text features.

    `sentences` are those of all identities for the first prompt, then for the next. A context has `tokens` learned
    embeddings; with `contexts` "both" a shared one comes before the identity's own. `dropout` is the share of a
    context's values that are zeroed in training.
    """

    def __init__(
        self,
        sentences: Sentences,
        width: int,
        *,
        tokens: int,
        prompts: int = 1,
        contexts: Contexts = "identity",
        beginning: ContextInit | None = None,
        dropout: float = 0.0,
        average: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__()
        beginning = beginning or ContextInit()
        self.sentences = sentences
        self.prompts = prompts
        self.identities = len(sentences) // prompts
        self.average = average
        self.dropout = nn.Dropout(dropout)
        self.contexts = nn.ParameterDict()
        if contexts != "identity":
            self.contexts["shared"] = nn.Parameter(beginning.shared.drawn(prompts, 1, tokens, width))
        if contexts != "shared":
            self.contexts["identity"] = nn.Parameter(beginning.drawn(prompts, self.identities, tokens, width))

    def forward(self, text: TextEncoder, which: Int[Tensor, " some"]) -> Float[Tensor, "prompts some joint"]:
        """Text features of these identities, for each prompt; the text tower runs once over all of them."""
        offsets = self.identities * torch.arange(self.prompts, device=which.device)
        sentences = self.sentences.to(which.device).select((offsets[:, None] + which).flatten())
        features = sentences.encode(text, self.dropout(self._contexts(which)))
        return features.reshape(self.prompts, len(which), -1)

    def mean(self, features: Float[Tensor, "prompts some joint"]) -> Float[Tensor, "some joint"]:
        """An identity's text feature from those of its prompts; the feature of a single prompt is unchanged."""
        if self.average == "after" and len(features) > 1:
            features = F.normalize(features, dim=2)
        return features.mean(dim=0)

    @torch.no_grad()
    def texts(self, text: TextEncoder, *, batch_size: int = 256) -> Float[Tensor, "identities joint"]:
        """The text feature of every identity, in eval mode and fp32."""
        training = self.training
        self.eval()
        device = next(self.parameters()).device
        parts = torch.split(torch.arange(self.identities, device=device), batch_size)
        texts = torch.cat([self.mean(self(text, part)).float() for part in parts])
        self.train(training)
        return texts

    def _contexts(self, which: Int[Tensor, " some"]) -> Float[Tensor, "prompts_x_some context width"]:
        parts = []
        if "shared" in self.contexts:
            parts.append(self.contexts["shared"].expand(-1, len(which), -1, -1))
        if "identity" in self.contexts:
            parts.append(self.contexts["identity"][:, which])
        return torch.cat(parts, dim=2).flatten(0, 1)


def diversity(features: Float[Tensor, "prompts some joint"]) -> Float[Tensor, ""]:
    """Mean squared cosine between two prompts of an identity, in [0, 1]; low is diverse. Needs two prompts.

    Squared, so that its minimum is at right angles and not at opposite directions. Ours: Lu et al., "Prompt
    Distribution Learning" (2022), equation 8 does the same for prompts before and after the words.
    """
    unit = F.normalize(features, dim=2)
    cosines = torch.einsum("psj,qsj->spq", unit, unit)
    pairs = torch.triu(torch.ones_like(cosines[0]), diagonal=1)
    return (cosines.square() * pairs).sum() / (pairs.sum() * len(cosines))


@dataclass(frozen=True)
class LearnedPrompts:
    """The result of a stage of prompt learning. `texts` are the text features, in the order of `identities`.

    `sentences` are the templates as filled in for each prompt and identity, `contexts` the learned embeddings.
    """

    identities: tuple[str, ...]
    texts: Float[Tensor, "identities joint"]
    contexts: dict[str, Tensor] = field(default_factory=dict)
    sentences: tuple[tuple[str, ...], ...] = ()

    def save(self, path: Path, *, before: Callable[[Path], object] | None = None) -> None:
        """Writes the file atomically; `before` as in `write_atomic`."""
        facts = {"format": FORMAT, "identities": self.identities, "sentences": self.sentences}
        tensors = {"texts": self.texts, **{f"contexts.{name}": value for name, value in self.contexts.items()}}
        save_sealed(path, tensors, _KEY, facts, before=before)

    @classmethod
    def load(cls, path: Path) -> "LearnedPrompts":
        """Raises WeightsError when the file was not written by `save`, or was changed since."""
        facts, tensors = load_sealed(path, _KEY, "file of learned prompts", FORMAT)
        try:
            stored = _Stored.model_validate(facts)
        except ValidationError:
            stored = None
        texts = tensors.get("texts")
        if stored is None or texts is None or texts.shape[:-1] != (len(stored.identities),):
            raise WeightsError(f"{path} holds no learned prompts that handreid wrote; train the stage again")
        contexts = {k.removeprefix("contexts."): v for k, v in tensors.items() if k.startswith("contexts.")}
        return cls(stored.identities, texts, contexts, stored.sentences)


class _Stored(BaseModel):
    """The metadata of a file of learned prompts."""

    identities: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]


def nearest_words(
    text: TextEncoder, images: Float[Tensor, "identities joint"], count: int, *, batch_size: int = 512
) -> Int[Tensor, "identities count"]:
    """Tokens of the `count` words of the vocabulary whose text features are nearest to each of the images' features.

    Cosine after subtraction of the mean of all images and the mean of all words: photos and texts lie in different
    regions (Liang et al., "Mind the Gap", 2022), and otherwise a few words would be the nearest of every photo. The
    nearest comes first. Raises RecipeError if the tower knows fewer words.
    """
    words = words_to_rank(text, count)
    start, end = text.ends
    with torch.no_grad():
        parts = []
        for part in torch.split(words, batch_size):
            tokens = torch.stack([torch.full_like(part, start), part, torch.full_like(part, end)], dim=1)
            parts.append(text.encode_embedded(text.embed(tokens), torch.full_like(part, 2)))
        features = torch.cat(parts)
    similar = _centred(images.to(text.device)) @ _centred(features).T
    nearest: Tensor = words[similar.topk(count, dim=1).indices]
    return nearest


def words_to_rank(text: TextEncoder, count: int) -> Int[Tensor, " words"]:
    """What `whole_words` gives. Raises RecipeError if there are fewer than `count`."""
    words = torch.tensor(whole_words(text), dtype=torch.long, device=text.device)
    if len(words) < count:
        raise RecipeError(
            f"init by the nearest {count} words: the text tower knows only {len(words)}; use fewer tokens, or words"
        )
    return words


def whole_words(text: TextEncoder) -> list[int]:
    """Tokens that are a word of three letters or more by themselves, and known to the tower."""
    size = min(len(text.vocabulary), text.ends[0])
    known = range(size) if text.seen is None else text.seen[:size].nonzero()[:, 0].tolist()
    words = ((token, text.word(token)) for token in known)
    return [token for token, word in words if word.endswith(" ") and len(word) > 3 and word[:-1].isalpha()]


def word_embeddings(text: TextEncoder, words: str, tokens: int) -> Float[Tensor, "tokens width"]:
    """Embeddings of the words' first `tokens` tokens, repeated if there are fewer."""
    pieces = text.pieces(words)
    cycled = [pieces[place % len(pieces)] for place in range(tokens)]
    return text.embed(torch.tensor([cycled], device=text.device))[0].detach()


def _centred(features: Float[Tensor, "some joint"]) -> Float[Tensor, "some joint"]:
    return F.normalize(features - features.mean(dim=0), dim=1)
