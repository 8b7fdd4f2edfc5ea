"""Center loss: photos are pulled to a centre of their identity.

* A centre is initialised at the mean of its identity's photos in the first batch that has any. From zeros, Adam at a
  rate of 5e-5 needs thousands of steps to a CLIP feature, and meanwhile the loss would shrink the features towards the
  origin.
* Sums over identities are products with a membership matrix: their order, and so the result, is always the same.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from handreid.objectives.distances import at_least_fp32, euclidean, without_autocast
from handreid.objectives.objective import Objective, weighted_mean
from handreid.types import Neck, Outputs, Targets

Members = Float[Tensor, "batch identities"]
Places = Float[Tensor, "identities width"]


class Center(Objective):
    """Mean over the batch of 1/2 |x - c_y|^2, x as it is (not of unit length); summed over the features.

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition" (2016), equation 2, which sums
    over the batch: there a batch twice as large needs half the weight. A photo mixed of two identities is pulled to
    both by its shares.

    `learnable` centres are parameters that the optimizer steps. `running_mean` centres move after each batch in
    training, c -= alpha sum(c - x) / (1 + n) over an identity's n photos (equation 4; shares count as parts of photos).

    `push` times the mean, over the pairs of identities in the batch, of [push_margin - |c_i - c_j|]+^2 is added (ours).
    `running_mean` centres have no gradient; there the distances are between the centres as the batch is about to move
    them, which depend on its photos.
    """

    def __init__(
        self,
        widths: dict[str, int],
        identities: int,
        *,
        centres: Literal["learnable", "running_mean"] = "learnable",
        alpha: float = 0.5,
        push: float = 0.0,
        push_margin: float = 1.0,
        neck: Neck = "before",
    ) -> None:
        super().__init__()
        self.identities = identities
        self.alpha = alpha
        self.push = push
        self.push_margin = push_margin
        self.neck = neck
        learnable = centres == "learnable"
        self.centres = nn.ModuleDict(
            {name: Centres(identities, width, learnable=learnable) for name, width in widths.items()}
        )

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        features = outputs.at(self.neck)
        losses = [self._loss(features[name], targets, centres) for name, centres in self.centres.items()]
        return torch.stack(losses).sum()

    def undecayed(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def _loss(self, features: Float[Tensor, "batch width"], targets: Targets, centres: nn.Module) -> Float[Tensor, ""]:
        assert isinstance(centres, Centres)  # noqa: S101 - for the type checker
        with without_autocast(features):
            features = at_least_fp32(features)
            members = self._members(targets, features)
            if self.training:
                centres.begin(features, members)
            places = centres.places
            pulls = [
                weighted_mean((features - F.embedding(labels, places)).square().sum(dim=1) / 2, share)
                for labels, share in targets.parts()
            ]
            loss = torch.stack(pulls).sum()
            moved = places if centres.learnable else update_centres(places, features, members, self.alpha)
            if self.push:
                present = members.sum(dim=0) > 0
                loss = loss + self.push * repulsion(moved[present], self.push_margin)
            if self.training and not centres.learnable:
                centres.move(moved)
            return loss

    def _members(self, targets: Targets, features: Tensor) -> Members:
        """Share of each photo that is of each identity."""
        parts = [
            F.one_hot(labels, self.identities) * (1 if share is None else share[:, None])
            for labels, share in targets.parts()
        ]
        return torch.stack(parts).sum(dim=0).to(features.dtype)


class Centres(nn.Module):
    """A centre per identity for one feature; `seen` are the identities whose centre is initialised."""

    def __init__(self, identities: int, width: int, *, learnable: bool) -> None:
        super().__init__()
        self.learnable = learnable
        places = torch.zeros(identities, width)
        self.places: Tensor
        self.seen: Tensor
        if learnable:
            self.places = nn.Parameter(places)
        else:
            self.register_buffer("places", places)
        self.register_buffer("seen", torch.zeros(identities, dtype=torch.bool))

    @torch.no_grad()
    def begin(self, features: Float[Tensor, "batch width"], members: Members) -> None:
        """Initialises centres of new identities at the mean of their photos."""
        counts = members.sum(dim=0)
        new = (counts > 0) & ~self.seen
        means = members.T @ features / counts.clamp(min=torch.finfo(counts.dtype).tiny)[:, None]
        self.places.copy_(torch.where(new[:, None], means, self.places))
        self.seen |= new

    @torch.no_grad()
    def move(self, places: Places) -> None:
        self.places.copy_(places)


def update_centres(places: Places, features: Float[Tensor, "batch width"], members: Members, alpha: float) -> Places:
    """The centres after they moved to their photos; those without photos stay."""
    counts = members.sum(dim=0)[:, None]
    return places - alpha * (counts * places - members.T @ features) / (1 + counts)


def repulsion(places: Float[Tensor, "some width"], margin: float) -> Float[Tensor, ""]:
    """Mean over pairs of [margin - distance]+^2; 0 for fewer than two centres."""
    pairs = torch.ones(len(places), len(places), device=places.device).triu(diagonal=1)
    return (F.relu(margin - euclidean(places)).square() * pairs).sum() / pairs.sum().clamp(min=1)
