"""The class of each `kind` of term that handreid has.

Any other kind is `package.module:Class`, see `custom.py`.
"""

from typing import Final

from handreid.objectives.arcface import ArcFace
from handreid.objectives.center import Center
from handreid.objectives.cosface import CosFace
from handreid.objectives.cross_entropy import CrossEntropy
from handreid.objectives.image_to_text import ImageToText
from handreid.objectives.metric_learning import MetricLearning
from handreid.objectives.objective import Objective
from handreid.objectives.supcon import SupCon
from handreid.objectives.symmetric_contrast import SymmetricContrast
from handreid.objectives.text_to_image import TextToImage
from handreid.objectives.triplet import Triplet

OBJECTIVES: Final[dict[str, type[Objective]]] = {
    "cross_entropy": CrossEntropy,
    "arcface": ArcFace,
    "cosface": CosFace,
    "triplet": Triplet,
    "center": Center,
    "supcon": SupCon,
    "symmetric_contrast": SymmetricContrast,
    "metric_learning": MetricLearning,
    "image_to_text": ImageToText,
    "text_to_image": TextToImage,
}
