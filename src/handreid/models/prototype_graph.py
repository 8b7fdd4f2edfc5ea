"""A graph of semantic prototypes, to which each photo is added as a node. Ours: the PromptSG paper has no graph.

* Nodes are identities of the training photos (running means of their joint features, of length 1) and attributes
  (text features of phrases such as "the palm of a hand"). They come from features and manifest, not from an optimizer.
* Edges lead from a node to the `neighbours` identities that are nearest by cosine, and between identities and
  the attributes that the manifest states for their photos.
* A photo is inductive, both at test and in training: it is joined to its nearest identities, and to attributes by the
  similarity of its feature to their phrases. The manifest's values for the photo are never used.
* At test a photo's own identity is not in the graph. So in training each photo has the graph without its own identity,
  which contributes neither to its neighbours nor to the attributes. Otherwise the prototype would reveal the label.
* A photo needs only its neighbours' neighbours, so the graph without one identity is computed for every photo.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

PHRASE_TEMPERATURE = 0.01  # CLIP's own, between a photo and texts

Hidden = Bool[Tensor, "batch identities"]


class Graph(nn.Module):
    """Joint features to vectors of the joint space with information on similar identities and attributes.

    With h a node's state, kept at length sqrt(width), and r its relations, layer by layer

        h' = h + sum over r of W_r m_r,    m_r = sum over the nodes j at its edges of w_j h_j,    made of that length.

    An identity's and a photo's relation to identities has w = softmax(cosine / temperature) over the nearest. An
    identity's relation to attributes has the share of its photos that have each; a photo's has, for every column,
    the softmax of cosine / 0.01 over its phrases; both are divided by the number of columns. An attribute's relation
    to identities has w in proportion to those shares. W of identities are shared by photos and identities.

    The state before the first layer is the feature. `attributes` are pairs of column and phrase, sorted by column;
    with `edges` "identity" there are none.
    """

    def __init__(
        self,
        width: int,
        *,
        edges: Literal["identity", "attributes"],
        neighbours: int,
        layers: int,
        temperature: float,
        decay: float,
        identities: int = 0,
        attributes: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__()
        self.edges = edges
        self.neighbours = neighbours
        self.temperature = temperature
        self.decay = decay
        self.layers = nn.ModuleList(_layer(width, edges, last=n + 1 == layers) for n in range(layers))
        self.prototypes: Tensor
        self.counts: Tensor
        self.phrases: Tensor
        self.shares: Tensor
        self.register_buffer("prototypes", torch.zeros(identities, width))
        self.register_buffer("counts", torch.zeros(identities))  # photos seen; floats, so that averages can be taken
        self.register_buffer("phrases", torch.zeros(len(attributes), width))
        self.register_buffer("shares", torch.zeros(identities, len(attributes)))
        self._name(attributes)

    @property
    def facts(self) -> dict[str, Any]:
        """Arguments that come from the data."""
        return {"identities": len(self.prototypes), "attributes": self.attributes}

    def set_identities(self, identities: int) -> None:
        """Sets the number of identities: new ones have no prototype and no attributes yet."""
        more = max(0, identities - len(self.prototypes))
        for name in ("prototypes", "counts", "shares"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(more, *old.shape[1:])]))

    def describe(
        self,
        attributes: Sequence[tuple[str, str]],
        phrases: Float[Tensor, "attributes joint"],
        shares: Float[Tensor, "identities attributes"],
    ) -> None:
        """Column and phrase of each attribute, the phrases' features, and the share of each identity's photos."""
        self.set_identities(len(shares))
        self._name(attributes)
        self.phrases, self.shares = _unit(phrases).to(self.phrases), shares.to(self.shares)

    @torch.no_grad()
    def update_prototypes(self, features: Float[Tensor, "batch joint"], labels: Int[Tensor, " batch"]) -> None:
        """Prototypes move to the mean of their identities' photos: fully at first, then by 1 - `decay`.

        Sums are products with a membership matrix: their order, and so the result, is always the same.
        """
        members = F.one_hot(labels, len(self.prototypes)).to(self.prototypes)
        counts = members.sum(dim=0)
        means = members.T @ _unit(features.to(self.prototypes)) / counts.clamp(min=1)[:, None]
        keep = self.decay * (self.counts > 0)[:, None]
        self.prototypes.copy_(
            torch.where(counts[:, None] > 0, keep * self.prototypes + (1 - keep) * means, self.prototypes)
        )
        self.counts += counts

    def forward(
        self, features: Float[Tensor, "batch joint"], exclude: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch joint"]:
        """In fp32. `exclude` is the identity that is left out of each photo's graph; None at test."""
        with torch.autocast(features.device.type, enabled=False):
            return self._forward(_unit(features.to(self.prototypes)), exclude)

    def _forward(self, photos: Tensor, exclude: Tensor | None) -> Tensor:
        identities = _unit(self.prototypes)
        hidden = self._hidden(len(photos), exclude)
        near, weights = nearest(photos[:, None], identities, hidden[:, None], self.neighbours, self.temperature)
        near, weights = near[:, 0], weights[:, 0]
        likeness = self._likeness(photos)
        state = _sized(photos)
        near_states, words = _sized(identities[near]), _sized(self.phrases).expand(len(photos), -1, -1)
        layer, *second = self._layers()
        state_after = layer.moved(state, _mixed(weights, near_states), _mixed(likeness, words))
        if not second:
            return state_after
        near_states_after = self._identities_after(layer, near, identities, hidden)
        words_after = self._words_after(layer, identities, exclude, len(photos))
        return second[0].moved(state_after, _mixed(weights, near_states_after), _mixed(likeness, words_after))

    def _identities_after(self, layer: "Layer", near: Tensor, identities: Tensor, hidden: Tensor) -> Tensor:
        """States after the first layer of each photo's neighbours, in the graph without the photo's identity."""
        itself = near[..., None] == torch.arange(len(identities), device=near.device)
        places = identities[near]
        indices, weights = nearest(places, identities, hidden[:, None] | itself, self.neighbours, self.temperature)
        words = _sized(self.phrases)
        mixed = _mixed(weights, _sized(identities[indices]))
        return layer.moved(_sized(places), mixed, self.shares[near] / max(1, len(self._sizes)) @ words)

    def _words_after(self, layer: "Layer", identities: Tensor, exclude: Tensor | None, photos: int) -> Tensor:
        """States after the first layer of the attributes, in the graph without each photo's identity."""
        words, shares = _sized(self.phrases), self.shares * (self.counts > 0)[:, None]
        sums, totals = (shares.T @ _sized(identities))[None], shares.sum(dim=0)[None]
        if exclude is not None:
            excluded = shares[exclude]
            sums = sums - excluded[..., None] * _sized(identities[exclude])[:, None]
            totals = totals - excluded
        means = sums / totals.clamp(min=1e-6)[..., None] * (totals > 1e-6)[..., None]
        return layer.attributes_moved(words[None], means).expand(photos, -1, -1)

    def _hidden(self, photos: int, exclude: Tensor | None) -> Hidden:
        """Identities that are left out of a photo's graph: its own, and those without a photo so far."""
        unseen = (self.counts == 0).expand(photos, -1)
        if exclude is None:
            return unseen
        return unseen | (exclude[:, None] == torch.arange(len(self.counts), device=exclude.device))

    def _likeness(self, photos: Float[Tensor, "batch joint"]) -> Float[Tensor, "batch attributes"]:
        logits = photos @ self.phrases.T / PHRASE_TEMPERATURE
        if not self._sizes:
            return logits
        columns = [F.softmax(part, dim=1) for part in torch.split(logits, self._sizes, dim=1)]
        return torch.cat(columns, dim=1) / len(columns)

    def _layers(self) -> list["Layer"]:
        return [cast(Layer, layer) for layer in self.layers]

    def _name(self, attributes: Sequence[tuple[str, str]]) -> None:
        self.attributes = attributes
        columns = [column for column, _ in self.attributes]
        self._sizes = [columns.count(column) for column in dict.fromkeys(columns)]


class Layer(nn.Module):
    """The maps W of one layer, by relation; those of attributes only where attributes exist and are read later."""

    def __init__(self, width: int, *, attributes: bool, last: bool) -> None:
        super().__init__()
        self.of_identities = _map(width)
        self.of_attributes = _map(width) if attributes else None
        self.to_attributes = _map(width) if attributes and not last else None

    def moved(self, states: Tensor, identities: Tensor, attributes: Tensor) -> Tensor:
        """Photos or identities after the layer, from the mixed states of their neighbours."""
        states = states + self.of_identities(identities)
        return _sized(states if self.of_attributes is None else states + self.of_attributes(attributes))

    def attributes_moved(self, states: Tensor, identities: Tensor) -> Tensor:
        return states if self.to_attributes is None else _sized(states + self.to_attributes(identities))


def nearest(
    places: Float[Tensor, "batch places joint"],
    identities: Float[Tensor, "identities joint"],
    hidden: Bool[Tensor, "batch places identities"],
    neighbours: int,
    temperature: float,
) -> tuple[Int[Tensor, "batch places near"], Float[Tensor, "batch places near"]]:
    """Which identities are nearest by cosine, and softmax(cosine / temperature) over them; hidden ones weigh 0.

    Everything is of length 1. The choice has no gradient, the weights have.
    """
    with torch.no_grad():
        cosines = (places @ identities.T).masked_fill(hidden, -2.0)
        values, indices = cosines.topk(min(neighbours, len(identities)), dim=-1)
    logits = (places[..., None, :] * identities[indices]).sum(dim=-1) / temperature
    visible = values > -1.5
    weights = F.softmax(logits.masked_fill(~visible, torch.finfo(logits.dtype).min), dim=-1)
    return indices, weights * visible


def _mixed(weights: Tensor, states: Tensor) -> Tensor:
    return (weights[..., None] * states).sum(dim=-2)


def _layer(width: int, edges: str, *, last: bool) -> Layer:
    return Layer(width, attributes=edges == "attributes", last=last)


def _map(width: int) -> nn.Linear:
    """Initialised so small that a message is a tenth of a node's state."""
    linear = nn.Linear(width, width, bias=False)
    nn.init.normal_(linear.weight, std=0.1 / math.sqrt(width))
    return linear


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def _sized(vectors: Tensor) -> Tensor:
    return math.sqrt(vectors.shape[-1]) * _unit(vectors)
