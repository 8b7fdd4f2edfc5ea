"""Small batches for the checks: a few photos of the stage's own first batches, as its sampler draws them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from handreid.data.sampling import Drawn
from handreid.training.checks.probe import Probe

IDENTITIES, IMAGES = 2, 2  # gives a positive, a negative, and labels that can be exchanged


def small_batches(probe: Probe[Any], *, identities: int = IDENTITIES, images: int = IMAGES) -> Iterator[Any]:
    """Some photos of each batch of the first epoch, preferring identities with several photos in it."""
    labels = probe.labels
    for drawn in probe.drawn():
        few = drawn[: identities * images] if labels is None else subsample(drawn, labels, identities, images)
        yield probe.batch(few)


def subsample(drawn: Sequence[Drawn], labels: Tensor, identities: int, images: int) -> list[Drawn]:
    """At most `images` photos of each of `identities` identities, or of more where identities have fewer photos."""
    by_label: dict[int, list[Drawn]] = {}
    for position in drawn:
        by_label.setdefault(int(labels[position[0]]), []).append(position)
    ordered = sorted(by_label.values(), key=lambda group: -min(len(group), images))
    few: list[Drawn] = []
    for group in ordered:
        if len(few) < identities * images:
            few += group[:images]
    return few[: identities * images]


def roll_labels(labels: Tensor) -> Tensor:
    """Labels shifted by one photo: pairs remain, and most photos get another identity's label."""
    return torch.roll(labels, 1)
