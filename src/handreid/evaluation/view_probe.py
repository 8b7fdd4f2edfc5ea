"""A linear probe on a run's embeddings that tells backs of hands from palms, and the views that it helps to predict.

* Logistic regression on the standardised embeddings of the run's own training and validation photos whose aspect is
  known, both aspects weighted alike. Nobody whom the run tests is used.
* The strength of the penalty is chosen, by log loss, on people left out of the fit (cross-validation over people), so
  that probabilities mean what they say on new people of the same kind.
* Embeddings are taken without side information, which may hold the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import expit

from handreid.data.landmark_columns import read_landmarks
from handreid.data.manifest import Manifest
from handreid.data.predicted_views import THRESHOLD, check_threshold, fill_views, rows_to_judge, without_predictions
from handreid.errors import DataError
from handreid.evaluation.embed import select_photos
from handreid.inference import Shots, load_embedder
from handreid.landmarks.view import limited
from handreid.models.embedder import Embedder
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe
from handreid.runs.folder import Run

_STRENGTHS = np.logspace(-4, 1, 6)  # C of scikit-learn: inverse strength of the penalty
_FOLDS = 5
_LEAST = 4  # people of each aspect, so that each fit of the cross-validation has some


@dataclass(frozen=True, eq=False)
class ViewProbe:
    """`accuracy` is that of the aspect on people left out of the fit (cross-validation)."""

    run: Run
    recipe: Recipe
    embedder: Embedder
    mean: Float64[np.ndarray, " dim"]
    scale: Float64[np.ndarray, " dim"]
    weights: Float64[np.ndarray, " dim"]
    bias: float
    photos: int
    people: int
    accuracy: float

    def logits(
        self, manifest: Manifest, rows: Int[np.ndarray, " photo"], progress: Progress | None = None
    ) -> Float64[np.ndarray, " photo"]:
        """Log-odds that each row's photo shows the back of a hand rather than a palm.

        Raises DataError where the model aligns hands and a photo has none, PhotoError for a photo that cannot be read.
        """
        embeddings = _embeddings(manifest, rows, self.recipe, self.embedder, progress or NullProgress())
        logits: Float64[np.ndarray, " photo"] = (embeddings - self.mean) / self.scale @ self.weights + self.bias
        return logits

    def __str__(self) -> str:
        return (
            f"a linear probe on {self.run.folder.name}, fit on {self.photos:,} photos of {self.people:,} people "
            f"(aspect of people left out: {self.accuracy:.1%} right)"
        )


def predict_views(
    manifest: Manifest, run: Run, *, threshold: float = THRESHOLD, progress: Progress | None = None
) -> Manifest:
    """The manifest, which has landmarks, with empty `side` and `aspect` filled; see `fill_views`.

    A probe on the run's embeddings judges the photos of which neither is known, together (see `limited`). Raises
    RunError for an unfinished run or one whose manifest has changed, DataError if its photos cannot fit a probe, or for
    a wrong threshold.
    """
    check_threshold(threshold)
    rows = rows_to_judge(manifest)
    if not rows:
        return fill_views(manifest, threshold=threshold)
    probe = fit_view_probe(run, progress)
    logits = probe.logits(manifest, np.array(rows), progress)
    return fill_by_logits(manifest, rows, logits, threshold=threshold, by=str(probe))


def fill_by_logits(
    manifest: Manifest,
    rows: Sequence[int],
    logits: Float64[np.ndarray, " photo"],
    *,
    threshold: float = THRESHOLD,
    by: str = "a classifier",
) -> Manifest:
    """`fill_views` with a classifier's log-odds that these rows, which have landmarks, show backs: as far as they are
    worth it on these photos (see `limited`).
    """
    hands = [hand for hand in read_landmarks(manifest, rows) if hand is not None]
    worth, agrees = limited(logits, hands)
    agreed = f"{int(agrees.sum()):,} of {len(agrees):,} photos of which that is sure"
    if worth.any():
        by = f"landmarks and {by}, which agrees with the landmarker on {agreed}"
    else:
        by = f"landmarks alone, as {by} agrees with the landmarker only on {agreed}"
    return fill_views(manifest, dict(zip(rows, expit(worth).tolist(), strict=True)), threshold=threshold, by=by)


def fit_view_probe(run: Run, progress: Progress | None = None) -> ViewProbe:
    """Raises RunError and DataError as `predict_views`."""
    progress = progress or NullProgress()
    selected = select_photos(run, progress=progress)
    table = without_predictions(selected.manifest).table
    known = selected.table["role"].is_in(["train", "validation"]) & table["aspect"].is_not_null()
    rows = np.flatnonzero(known.to_numpy())
    dorsal = table["aspect"].gather(rows).to_numpy() == "dorsal"
    people = np.unique(table["subject"].gather(rows).to_numpy(), return_inverse=True)[1]
    _check_enough(run, dorsal, people)
    embedder = load_embedder(run)
    embeddings = _embeddings(selected.manifest, rows, selected.recipe, embedder, progress)
    mean, scale = embeddings.mean(axis=0), embeddings.std(axis=0) + 1e-6
    classifier, accuracy = _fitted((embeddings - mean) / scale, dorsal, people)
    return ViewProbe(
        run,
        selected.recipe,
        embedder,
        mean,
        scale,
        classifier.coef_[0],
        float(classifier.intercept_[0]),
        len(rows),
        int(people.max()) + 1,
        accuracy,
    )


def _embeddings(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], recipe: Recipe, embedder: Embedder, progress: Progress
) -> Float64[np.ndarray, "photo dim"]:
    shots = Shots(manifest, rows, recipe, embedder, progress)
    return shots.embed(np.arange(len(rows)), None).astype(np.float64)


def _fitted(
    features: Float[np.ndarray, "photo dim"], dorsal: Bool[np.ndarray, " photo"], people: Int[np.ndarray, " photo"]
) -> tuple[Any, float]:
    """The classifier of the best strength, and its accuracy on people left out."""
    from sklearn.metrics import log_loss

    guesses = {strength: _left_out(features, dorsal, people, strength) for strength in _STRENGTHS.tolist()}
    best = min(guesses, key=lambda strength: log_loss(dorsal, guesses[strength]))
    accuracy = float(np.mean((guesses[best] > 0.5) == dorsal))
    return _classifier(best).fit(features, dorsal), accuracy


def _left_out(
    features: Float[np.ndarray, "photo dim"],
    dorsal: Bool[np.ndarray, " photo"],
    people: Int[np.ndarray, " photo"],
    strength: float,
) -> Float[np.ndarray, " photo"]:
    """Each photo's probability of the back, by a classifier that its person is no part of."""
    probabilities = np.empty(len(dorsal))
    for fitted, left_out in _folds(dorsal, people):
        classifier = _classifier(strength).fit(features[fitted], dorsal[fitted])
        probabilities[left_out] = classifier.predict_proba(features[left_out])[:, 1]
    return probabilities


def _folds(dorsal: Bool[np.ndarray, " photo"], people: Int[np.ndarray, " photo"]) -> Iterator[tuple[Any, Any]]:
    """Positions to fit on and positions left out; each person is left out once."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(_FOLDS, *_people_per_aspect(dorsal, people))
    yield from StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(dorsal, dorsal, people)


def _classifier(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)


def _people_per_aspect(dorsal: Bool[np.ndarray, " photo"], people: Int[np.ndarray, " photo"]) -> tuple[int, int]:
    return len(np.unique(people[dorsal])), len(np.unique(people[~dorsal]))


def _check_enough(run: Run, dorsal: Bool[np.ndarray, " photo"], people: Int[np.ndarray, " photo"]) -> None:
    backs, palms = _people_per_aspect(dorsal, people)
    if min(backs, palms) < _LEAST:
        raise DataError(
            f"{run.folder}: its training and validation photos show the backs of {backs} and the palms of {palms} "
            f"people, as far as their aspect is known; a probe needs {_LEAST} of each. Give another run, or omit it to "
            "predict from landmarks alone"
        )
