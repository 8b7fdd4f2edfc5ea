"""The interface of a section of an evaluation, and its input."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.data.manifest import Manifest
from handreid.data.splits import Split
from handreid.evaluation.convert import summary_of
from handreid.evaluation.embedding_cache import Contents, EmbeddingCache, Key, embeddings_of, first_of_each
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
    """A run on test photos, embedded and ranked. `recipe` has the options of this evaluation, `rows` are manifest rows.

    Photos with equal `keys` have the same content (see `embedding_cache`); a section may add to `notes`, the notes of
    the evaluation, and to `computed`, embeddings to be cached at the end.
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
    cached: EmbeddingCache
    keys: list[Key | None]
    shots: Shots
    progress: Progress
    notes: list[str] = field(default_factory=list)
    computed: list[tuple[list[Key | None], Float[np.ndarray, "photo dim"]]] = field(default_factory=list)

    @cached_property
    def query_views(self) -> np.ndarray:
        """The view (such as `dorsal-right`) of every query of every draw; `unknown` where the manifest has none."""
        views: np.ndarray = np.array([view or "unknown" for view in self.manifest.views])[self.scores.rows]
        return views

    @cached_property
    def distinct(self) -> Int[np.ndarray, " distinct"]:
        """Positions of the photos, each content once."""
        return first_of_each([position if key is None else key for position, key in enumerate(self.keys)])[0]

    @property
    def photos(self) -> Photos:
        """The photos at `distinct`, decoded on first use."""
        return self.shots.at(self.distinct)

    @property
    def everything(self) -> Bool[np.ndarray, " entry"]:
        """Selects all queries of all draws."""
        return np.ones(len(self.scores.rows), np.bool_)

    def summary(self, selected: Bool[np.ndarray, " entry"], scores: QueryScores | None = None) -> Summary:
        """Metrics and counts of the selected queries, of `scores` or of the plain ranking."""
        summary = summarise_scores(
            scores or self.scores, selected, self.split.subjects, resamples=self.recipe.evaluate.resamples, seed=0
        )
        return summary_of(summary)

    def embed_again(self) -> Float[np.ndarray, "photo dim"]:
        """Embeddings in the current mode of the head; they are cached too."""
        self.computed.append(embeddings_of(self.shots, self.contents, self.cached, self.conditions))
        return self.computed[-1][1]


class Section(Protocol):
    """A part of an evaluation. Its result is written under its `name`; None is not written.

    Numbers in a `SectionResult`, each with a line in the table of metrics, are shown by the command line, by reports
    and comparisons, and sent to trackers.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, context: EvaluationContext) -> Any: ...
