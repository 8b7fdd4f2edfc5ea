"""Both inference modes of a head that composes sentences: a sentence for every photo, or one for all.

* Scores are on the same draws, so the difference is paired and has its own interval.
* The cost is measured during the evaluation: the same photos in the same batches, modes alternating, the fastest of a
  few rounds each, as other load on the machine can only add time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int

from handreid.data.splits import Split
from handreid.evaluation.convert import differences_of, summary_of
from handreid.evaluation.sections.context import EvaluationContext
from handreid.inference import composes
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, score, summarise_scores
from handreid.models.embedder import Embedder
from handreid.models.extraction import Photos, embed_photos
from handreid.models.promptsg_head import SemanticHead
from handreid.recipe import Evaluate
from handreid.runs.results import Difference, InferenceModes, Metric, ModeCost, ModeResult
from handreid.types import Inference

MODES: tuple[Inference, ...] = get_args(Inference)
TIMED = 256  # photos
ROUNDS = 3


class InferenceModesSection:
    name = "inference"

    def __call__(self, context: EvaluationContext) -> InferenceModes | None:
        """None for a head that does not compose sentences."""
        if not composes(context.embedder):
            return None
        timed = context.shots.at(context.distinct[:TIMED])
        return compare_modes(
            context.embedder,
            timed,
            context.embed_again,
            context.embeddings,
            context.rows,
            context.split,
            context.recipe.evaluate,
        )


def compare_modes(
    embedder: Embedder,
    photos: Photos,
    embed: Callable[[], Float[np.ndarray, "row dim"]],
    embeddings: Float[np.ndarray, "row dim"],
    rows: Int[np.ndarray, " row"],
    split: Split,
    settings: Evaluate,
) -> InferenceModes:
    """`composed` and `fixed`, each with metrics and cost, and the paired difference, composed minus fixed.

    `embeddings` of these rows are in the head's own mode; `embed` computes those of its current mode. The cost is
    measured on `photos`. The head must be one that `composes`.
    """
    head = embedder.head
    assert isinstance(head, SemanticHead)  # noqa: S101 - for the type checker
    scores = {}
    for mode in MODES:
        of_mode = embeddings
        if mode != head.inference:
            with inference_mode(embedder, mode):
                of_mode = embed()
        scores[mode] = score(of_mode, rows, split.test, split.identities, cameras=split.cameras)
    milliseconds = time_modes(embedder, photos, batch_size=settings.batch_size, flip_tta=settings.flip_tta)
    needed = {"composed": parameters(embedder), "fixed": parameters(embedder) - head.composing}
    composed, fixed = (
        ModeResult(
            metrics=_metrics(scores[mode], split, settings.resamples),
            cost=ModeCost(milliseconds_per_photo=milliseconds[mode], parameters=needed[mode]),
        )
        for mode in ("composed", "fixed")
    )
    difference = _difference(scores["composed"], scores["fixed"], split, settings.resamples)
    return InferenceModes(chosen=head.inference, composed=composed, fixed=fixed, difference=difference)


@contextmanager
def inference_mode(embedder: Embedder, mode: Inference) -> Iterator[None]:
    """The embedder's head is in this mode within the context."""
    before = embedder.head.inference
    embedder.head.inference = mode
    try:
        yield
    finally:
        embedder.head.inference = before


def time_modes(
    embedder: Embedder, photos: Photos, *, batch_size: int, flip_tta: bool = False
) -> dict[Inference, float]:
    """Milliseconds per photo of each mode, from pixels to embedding."""
    best = dict.fromkeys(MODES, float("inf"))
    for _ in range(1 + ROUNDS):
        for mode in MODES:
            with inference_mode(embedder, mode):
                _wait()
                began = time.perf_counter()
                embed_photos(embedder, photos, batch_size=batch_size, flip_tta=flip_tta)
                _wait()
                best[mode] = min(best[mode], 1000 * (time.perf_counter() - began) / len(photos))
    return best


def parameters(embedder: Embedder) -> int:
    """Parameters needed for composed sentences, with the text tower, without its vocabulary."""
    head = embedder.head
    held = head.words.text.size if isinstance(head, SemanticHead) and head.words is not None else 0
    return sum(p.numel() for p in embedder.parameters()) + held


def _metrics(scores: QueryScores, split: Split, resamples: int) -> dict[str, Metric]:
    everything = np.ones(len(scores.rows), bool)
    summary = summarise_scores(scores, everything, split.subjects, resamples=resamples, seed=0)
    return summary_of(summary).metrics


def _difference(composed: QueryScores, fixed: QueryScores, split: Split, resamples: int) -> dict[str, Difference]:
    owner = np.unique([split.subjects[row] for row in composed.rows], return_inverse=True)[1]
    return differences_of(differences(composed.metrics, fixed.metrics, owner, composed.draws, resamples=resamples))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
