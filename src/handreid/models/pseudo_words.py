"""Pseudo-words: a photo's feature becomes words of a sentence, which a frozen text tower encodes.

* The gradient passes through the tower to the network that makes the words; the tower itself is in no optimizer and no
  checkpoint.
* The feature is read at the end-of-text token. At the start a causal tower has seen nothing of the sentence, and every
  photo would have the same feature.
* A saved model holds the tower without its vocabulary: the embeddings of the sentence are stored instead.
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import WeightsError
from handreid.models.sentences import make_sentences
from handreid.models.text import TextEncoder

_VOCABULARY = "token_embedding.weight"


class FrozenText(nn.Module):
    """A text tower that is never trained.

    It is not registered as a submodule: no optimizer, average, checkpoint or count of parameters includes it, and
    `train` does not change it. It moves with its owner between devices. Raises RecipeError when the tower cannot read
    embeddings.
    """

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        text.check_promptable()
        self._held = (text.eval().requires_grad_(False),)  # a tuple: torch would register a plain module as a submodule

    @property
    def tower(self) -> TextEncoder:
        return self._held[0]

    @property
    def size(self) -> int:
        """Number of parameters without those of the vocabulary."""
        return sum(value.numel() for value in self.stored_state().values())

    def stored_state(self) -> dict[str, Tensor]:
        """What a saved model needs of the tower: its state without the vocabulary."""
        state: dict[str, Tensor] = self.tower.clip.state_dict()
        return {name: value for name, value in state.items() if not name.endswith(_VOCABULARY)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Loads what `stored_state` gave. Raises WeightsError when it is of another tower."""
        if {name: value.shape for name, value in self.stored_state().items()} != {n: v.shape for n, v in state.items()}:
            raise WeightsError("the text tower in the model does not match its configuration: the file is damaged")
        self.tower.clip.load_state_dict(state, strict=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenText":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tower._apply(fn)  # type: ignore[no-untyped-call]
        return self


class PseudoWordEncoder(nn.Module):
    """A vector of the joint space to pseudo-words, and the sentence with them to its feature in the joint space.

    The inversion network is an MLP of three layers, as in PromptSG (Yang et al. 2024, there for one word). Our choices
    are its widths, the ReLUs, the normalised input, and the initialisation: at first words have the norm of those of
    the vocabulary, since CLIP's position embeddings would dominate shorter ones.
    """

    def __init__(self, text: TextEncoder, width: int, *, template: str, tokens: int, hidden: int) -> None:
        super().__init__()
        self.text = FrozenText(text)
        sentence = make_sentences(text, [template], tokens)
        self.tokens = tokens
        self.begin = int(sentence.places[0, 0])
        self.end = int(sentence.ends[0])
        self.inversion = _inversion(width, hidden, tokens * text.width, float(text.known_vocabulary.detach().std()))
        self.embedded: Tensor
        self.register_buffer("embedded", text.embed(sentence.tokens).detach()[0])

    def forward(self, vectors: Float[Tensor, "batch joint"]) -> Float[Tensor, "batch joint"]:
        contexts = self.inversion(vectors).unflatten(1, (self.tokens, -1))
        return self.read(contexts)

    def read(self, contexts: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch joint"]:
        """The feature of the sentence with these words in its place."""
        sentences = self.embedded.expand(len(contexts), -1, -1)
        before, after = sentences[:, : self.begin], sentences[:, self.begin + self.tokens :]
        filled = torch.cat([before, contexts.to(sentences.dtype), after], dim=1)
        ends = torch.full((len(contexts),), self.end, device=contexts.device)
        return self.text.tower.encode_embedded(filled, ends)


def sentence_feature(text: TextEncoder, sentences: list[str]) -> Float[Tensor, "texts joint"]:
    """Features of whole sentences, without gradient."""
    with torch.no_grad():
        return text.encode(sentences).detach()


def _inversion(inputs: int, hidden: int, outputs: int, spread: float) -> nn.Sequential:
    """Outputs begin with a standard deviation of `spread`."""
    first, second, last = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(last.weight, std=spread / math.sqrt(hidden))
    for layer in (first, second, last):
        nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.LayerNorm(inputs, elementwise_affine=False), first, nn.ReLU(), second, nn.ReLU(), last)
