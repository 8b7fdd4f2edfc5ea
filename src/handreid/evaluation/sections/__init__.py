"""The sections of an evaluation, one file each, in the order in which they are computed."""

from handreid.evaluation.sections.alignment import AlignmentSection
from handreid.evaluation.sections.chirality import ChiralitySection
from handreid.evaluation.sections.context import EvaluationContext, Section
from handreid.evaluation.sections.inference_modes import InferenceModesSection
from handreid.evaluation.sections.ranking import RankingSection
from handreid.evaluation.sections.reranking import RerankingSection
from handreid.evaluation.sections.separation import SeparationSection
from handreid.evaluation.sections.views import ViewsSection
from handreid.evaluation.sections.zero_shot import ZeroShotSection

SECTIONS: tuple[Section, ...] = (
    RankingSection(),
    AlignmentSection(),
    ChiralitySection(),
    ViewsSection(),
    SeparationSection(),
    RerankingSection(),
    InferenceModesSection(),
    ZeroShotSection(),
)

__all__ = ["SECTIONS", "EvaluationContext", "Section"]
