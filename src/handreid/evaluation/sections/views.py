"""Metrics and counts for the queries of each view."""

import numpy as np

from handreid.evaluation.sections.context import EvaluationContext
from handreid.runs.results import Summary


class ViewsSection:
    name = "views"

    def __call__(self, context: EvaluationContext) -> dict[str, Summary]:
        """A view in which no query has a right answer has no metrics; this is noted."""
        views = context.query_views
        answered = [str(view) for view in np.unique(views[context.scores.answerable])]
        context.notes += [
            f"no query of {view} has a right answer in its gallery, so it has no metrics"
            for view in np.unique(views).tolist()
            if view not in answered
        ]
        return {view: context.summary(views == view) for view in answered}
