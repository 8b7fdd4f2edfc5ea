"""Terms of the stage `pretrain`, by `kind`."""

from handreid.training.stages.pretrain.terms.base import PretrainTerm
from handreid.training.stages.pretrain.terms.cross_entropy import CrossEntropy
from handreid.training.stages.pretrain.terms.image_text import ImageText
from handreid.training.stages.pretrain.terms.measurements import Measurements
from handreid.training.stages.pretrain.terms.moco import Moco
from handreid.training.stages.pretrain.terms.supcon import SupCon

__all__ = ["CrossEntropy", "ImageText", "Measurements", "Moco", "PretrainTerm", "SupCon"]
