"""Identity classification."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from handreid.objectives.objective import Objective, weighted_mean
from handreid.types import Outputs, Targets


class CrossEntropy(Objective):
    """Cross-entropy with label smoothing (Szegedy et al. 2016, section 7), summed over one classifier per feature.

    The classifiers read the features after the neck and have no bias. As in the hand papers' baseline and CLIP-ReID
    (Li et al. 2023, L_id) there are two classifiers, before and after CLIP's projection, and their losses add up. With
    smoothing e over n identities the target is 1 - e + e/n for the right one and e/n for the others. A photo mixed of
    two identities has the loss of each by its share.
    """

    def __init__(self, widths: dict[str, int], identities: int, *, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.classifiers = nn.ModuleDict({name: classifier_of(width, identities) for name, width in widths.items()})

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        losses = [
            weighted_mean(
                F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none"), share
            )
            for logits in (classifier(outputs.after[name]) for name, classifier in self.classifiers.items())
            for labels, share in targets.parts()
        ]
        return torch.stack(losses).sum()


def classifier_of(width: int, identities: int) -> nn.Linear:
    """Without bias; with small weights, so that an untrained classifier's loss is ln(identities)."""
    classifier = nn.Linear(width, identities, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier
