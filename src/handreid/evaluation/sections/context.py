"""What a section of an evaluation is given, and what it is."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.data.manifest import Manifest
from handreid.data.splits import Split
from handreid.evaluation.embedding_cache import Contents, Kept, Key, embeddings_of, first_of_each
from handreid.inference import Shots
from handreid.metrics.query_scores import QueryScores, summarise_scores
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.runs.folder import Run
from handreid.runs.results import Summary


@dataclass(eq=False)
class EvaluationContext:
    """A run on test photos, embedded and ranked. `recipe` is as it is evaluated, `rows` are those of the manifest.

    `keys` say which photos have the same content (see `embedding_cache`); `notes` are those of the evaluation, to which
    a section may add.
    """

    run: Run
    recipe: Recipe
    manifest: Manifest
    split: Split
    rows: Int[np.ndarray, " photo"]
    embedder: Embedder
    embeddings: Float[np.ndarray, "photo dim"]
    scores: QueryScores
    conditions: Conditions | None
    contents: Contents
    kept: Kept
    keys: list[Key | None]
    shots: Shots
    progress: Progress
    notes: list[str] = field(default_factory=list)
    made: list[tuple[list[Key | None], Float[np.ndarray, "photo dim"]]] = field(default_factory=list)

    @cached_property
    def query_views(self) -> np.ndarray:
        """`dorsal-right` and the like of every query of every draw; `unknown` where nothing is known."""
        views: np.ndarray = np.array([view or "unknown" for view in self.manifest.views])[self.scores.rows]
        return views

    @cached_property
    def distinct(self) -> Int[np.ndarray, " distinct"]:
        """Positions of photos, each content once."""
        return first_of_each([at if key is None else key for at, key in enumerate(self.keys)])[0]

    @property
    def photos(self) -> Photos:
        """Of `distinct`, decoded when they are first asked for."""
        return self.shots.at(self.distinct)

    @property
    def everything(self) -> Bool[np.ndarray, " entry"]:
        """All queries of all draws."""
        return np.ones(len(self.scores.rows), np.bool_)

    def summary(self, chosen: Bool[np.ndarray, " entry"], scores: QueryScores | None = None) -> Summary:
        """Metrics and counts of some queries, of other `scores` than the plain ranking's where they are given."""
        found = summarise_scores(
            scores or self.scores, chosen, self.split.subjects, resamples=self.recipe.evaluate.resamples, seed=0
        )
        return Summary.model_validate(found)

    def embed_again(self) -> Float[np.ndarray, "photo dim"]:
        """Embeddings in the mode that the head is in now; they are kept beside the others."""
        self.made.append(embeddings_of(self.shots, self.contents, self.kept, self.conditions))
        return self.made[-1][1]


class Section(Protocol):
    """A part of an evaluation. What it gives is written under its `name`.

    Numbers that it declares in a `SectionResult`, each with a line in the table of metrics, are shown by the command
    line, by reports and comparisons, and sent to trackers. None where there is nothing to say.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, context: EvaluationContext) -> Any: ...
