"""Heads: between the backbone's features and the objectives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.models.parts import AttentionPooling, Gem, Grid, Mgn, Parts, Pcb
from handreid.types import Features, Inference, Labels, Outputs

Named = dict[str, Tensor]


class Head(nn.Module, ABC):
    """Built from the widths of the backbone's features that go in, and the names of those that need a neck.

    `before` and `after` are the widths of the features that come out, by name, before and after the neck; `parts` the
    names among them that the head itself makes from the patch grid.
    """

    before: dict[str, int]
    after: dict[str, int]
    parts: tuple[str, ...] = ()
    inference: Inference | None = None  # for a head with sentences: fixed or composed at test

    @abstractmethod
    def forward(self, features: Features) -> tuple[Named, Named]:
        """Features before and after the neck."""

    def outputs(self, features: Features, labels: Labels | None = None) -> Outputs:
        """All outputs. `labels` are for a head that must exclude a photo's own identity in training."""
        return Outputs(features, *self(features))

    def set_identities(self, identities: int) -> None:
        """Called before training with the number of identities; for a head that stores something per identity."""

    @property
    def facts(self) -> dict[str, Any]:
        """Arguments of the head that come from the data, for the saved configuration."""
        return {}

    def frozen(self) -> dict[str, Tensor]:
        """State that never changes in training: part of a saved model, but not of checkpoints."""
        return {}

    def load_frozen(self, state: dict[str, Tensor]) -> None:
        """Loads what `frozen` gave."""

    def names(self, features: tuple[str, ...]) -> tuple[str, ...]:
        """The names, with `parts` replaced by the names of all parts."""
        return tuple(part for name in features for part in (self.parts if name == "parts" else (name,)))


class PlainHead(Head):
    """Features as they are."""

    def __init__(self, widths: dict[str, int], necked: tuple[str, ...]) -> None:
        super().__init__()
        self.before, self.after = widths, {name: widths[name] for name in necked}

    def forward(self, features: Features) -> tuple[Named, Named]:
        before = named_features(features, self.before)
        return before, {name: before[name] for name in self.after}


class BnneckHead(Head):
    """One batch normalisation per feature, its bias frozen at zero.

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (2019), section 3.6: the
    classifier sees the normalised feature, a metric loss the one before; without a bias the identities stay around
    the origin, as the cosine used for retrieval needs.
    """

    def __init__(self, widths: dict[str, int], necked: tuple[str, ...]) -> None:
        super().__init__()
        self.before, self.after = widths, {name: widths[name] for name in necked}
        self.necks = nn.ModuleDict({name: make_neck(width) for name, width in self.after.items()})

    def forward(self, features: Features) -> tuple[Named, Named]:
        before = named_features(features, self.before)
        return before, {name: neck(before[name]) for name, neck in self.necks.items()}


class MlpHead(Head):
    """A projection on each feature that needs a neck, then a batch normalisation without bias.

    Two layers with a batch norm and a ReLU between them, as Chen et al., "A Simple Framework for Contrastive Learning"
    (2020), section 2.1. There the projection is discarded after training; for this, compare before the neck, where the
    features are the backbone's own. The linear layers have no bias, since a batch norm follows each.
    """

    def __init__(self, widths: dict[str, int], necked: tuple[str, ...], *, hidden: int, width: int) -> None:
        super().__init__()
        self.before, self.after = widths, dict.fromkeys(necked, width)
        self.projections = nn.ModuleDict({name: _projection(widths[name], hidden, width) for name in necked})
        self.necks = nn.ModuleDict({name: make_neck(width) for name in necked})

    def forward(self, features: Features) -> tuple[Named, Named]:
        before = named_features(features, self.before)
        return before, {name: neck(self.projections[name](before[name])) for name, neck in self.necks.items()}


class PartsHead(Head):
    """`BnneckHead` for the backbone's features and for parts of the patch grid.

    All parts are computed, even if nothing reads them, and each has its neck.
    """

    def __init__(self, widths: dict[str, int], necked: tuple[str, ...], maker: Parts) -> None:
        super().__init__()
        self.maker = maker
        self.parts = tuple(maker.widths)
        self.before = widths | maker.widths
        self.after = {name: widths[name] for name in necked} | maker.widths
        self.necks = nn.ModuleDict({name: make_neck(width) for name, width in self.after.items()})
        self._given = widths

    def forward(self, features: Features) -> tuple[Named, Named]:
        before = named_features(features, self._given) | self.maker(features.patches)
        return before, {name: neck(before[name]) for name, neck in self.necks.items()}


HEADS: dict[str, Callable[..., Head]] = {"linear": PlainHead, "bnneck": BnneckHead, "mlp": MlpHead}
"""By `kind`: made of `widths`, `necked` and the recipe's other keys of the head."""
PARTS: dict[str, Callable[..., Parts]] = {"pcb": Pcb, "mgn": Mgn, "gem": Gem, "attention": AttentionPooling}
"""By `kind`: what makes parts for a `PartsHead`, made of the grid and the recipe's other keys of the head."""


def build_head(config: dict[str, Any], widths: dict[str, int], necked: tuple[str, ...], grid: Grid) -> Head:
    """The head of a saved configuration: `kind` and its arguments. Raises RecipeError when it does not fit the grid."""
    kind, arguments = config["kind"], {name: value for name, value in config.items() if name != "kind"}
    if kind in PARTS:
        return PartsHead(widths, necked, PARTS[kind](grid, **arguments))
    if kind not in HEADS:
        raise RecipeError(f"head {kind!r} is not known; known are {', '.join([*HEADS, *PARTS])}")
    return HEADS[kind](widths, necked, **arguments)


def named_features(features: Features, names: dict[str, int]) -> Named:
    return {name: getattr(features, name) for name in names}


def make_neck(width: int) -> nn.BatchNorm1d:
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck


def _projection(inputs: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, width, bias=False),
    )
