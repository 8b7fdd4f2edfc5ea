"""The few photos that a stage is tried out on: of its own first batches, as its sampler draws them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from handreid.data.sampling import Drawn
from handreid.training.checks.probe import Probe

IDENTITIES, IMAGES = 2, 2  # a positive, a negative, and labels that can be exchanged


def small_batches(probe: Probe[Any], *, identities: int = IDENTITIES, images: int = IMAGES) -> Iterator[Any]:
    """Of each batch of the first epoch some photos, of identities that have several there first."""
    labels = probe.labels
    for drawn in probe.drawn():
        chosen = drawn[: identities * images] if labels is None else subsample(drawn, labels, identities, images)
        yield probe.batch(chosen)


def subsample(drawn: Sequence[Drawn], labels: Tensor, identities: int, images: int) -> list[Drawn]:
    """At most `images` photos of each of `identities`; where identities have fewer, of more identities."""
    of: dict[int, list[Drawn]] = {}
    for one in drawn:
        of.setdefault(int(labels[one[0]]), []).append(one)
    ordered = sorted(of.values(), key=lambda group: -min(len(group), images))
    chosen: list[Drawn] = []
    for group in ordered:
        if len(chosen) < identities * images:
            chosen += group[:images]
    return chosen[: identities * images]


def roll_labels(labels: Tensor) -> Tensor:
    """Every label one place on: pairs remain, and most photos are somebody else's."""
    return torch.roll(labels, 1)
