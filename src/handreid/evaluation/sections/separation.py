"""Separation of the identities in the embedding space, see `metrics/separation.py`."""

from handreid.evaluation.convert import separation_of
from handreid.evaluation.duplicates import distinct_photos
from handreid.evaluation.sections.context import EvaluationContext
from handreid.metrics.separation import separation_metrics
from handreid.runs.results import Separation


class SeparationSection:
    name = "separation"

    def __call__(self, context: EvaluationContext) -> Separation:
        """Identical pictures of an identity count once."""
        split, rows = context.split, context.rows
        once = distinct_photos(context.contents.pictures, rows, split)
        separation = separation_metrics(
            context.embeddings[once],
            [split.identities[row] for row in rows[once]],
            [split.subjects[row] for row in rows[once]],
            resamples=context.recipe.evaluate.resamples,
        )
        return separation_of(separation)
