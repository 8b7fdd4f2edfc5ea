"""Classification of the training identities."""

from typing import Literal

import torch.nn.functional as F

from handreid.models.heads import make_neck
from handreid.objectives.cross_entropy import classifier_of
from handreid.objectives.distances import at_least_fp32
from handreid.training.stages.pretrain.terms.base import Encoded, PretrainTerm, Result


class CrossEntropy(PretrainTerm):
    """As in the stage `fine_tune`: label smoothing, a batch norm without bias and a classifier without bias (Luo et al.
    2019). The classifier grows with the identities: 16,000 of them are 2 million parameters on a feature of width 128.
    """

    def __init__(
        self, width_in: int, identities: int, *, feature: Literal["joint", "pooled"], label_smoothing: float
    ) -> None:
        super().__init__()
        self.feature = feature
        self.label_smoothing = label_smoothing
        self.neck = make_neck(width_in)
        self.classifier = classifier_of(width_in, identities)

    def forward(self, encoded: Encoded) -> Result:
        feature = getattr(encoded.features[0], self.feature)
        logits = self.classifier(self.neck(feature))
        loss = F.cross_entropy(at_least_fp32(logits), encoded.labels, label_smoothing=self.label_smoothing)
        accuracy = (logits.detach().argmax(dim=1) == encoded.labels).float().mean()
        return Result(loss, {"": feature}, {"accuracy": accuracy})
