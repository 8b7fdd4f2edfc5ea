"""Whether a quality predicts the errors of a run: error-versus-discard curves on its test queries.

* The photos, split and ranking are those of `handreid evaluate RUN --data MANIFEST`: subjects that the run has seen
  are left out.
* Rank-1 errors are of queries, left out by their own quality; the gallery stays whole.
* False non-matches are of mated pairs, a query and the right gallery photos of its draw, left out by the lower quality
  of the two. The threshold lets through a share `fmr` of all pairs of different subjects, nothing left out.
* The pairs of all draws are pooled. A photo keeps its quality in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from handreid.data.manifest import read
from handreid.data.splits import Split, evaluated_rows
from handreid.data.tables import closest_match, format_list
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable, embed_known
from handreid.files import file_hash
from handreid.metrics.error_discard import DiscardCurve, discard_curve, random_band
from handreid.metrics.query_scores import score
from handreid.progress import NullProgress, Progress
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run, check_finished
from handreid.runs.leakage import unseen


@dataclass(frozen=True, eq=False)
class Errors:
    """One kind of error, for `discard_curve`: photos are positions in the table of test photos."""

    errors: Float[np.ndarray, " comparison"]
    photos: Int[np.ndarray, "comparison each"]
    subjects: Int[np.ndarray, " comparison"]


@dataclass(frozen=True, eq=False)
class TestErrors:
    """The errors of a run on test photos. `threshold` is the cosine from which two photos match, `impostors` the number
    of pairs of different subjects that it was chosen on, over all draws.
    """

    table: pl.DataFrame  # a row for each test photo
    rank1: Errors
    non_match: Errors
    threshold: float
    impostors: int
    subjects: int
    draws: int
    manifest_hash: str
    draws_hash: str


@dataclass(frozen=True, eq=False)
class QualityCheck:
    """Curves by column, for rank-1 errors and for false non-matches at a false match rate."""

    found: TestErrors
    fmr: float
    rank1: "Curves"
    non_match: "Curves"


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of one kind of error by column, and the band of random discarding."""

    by_column: Mapping[str, DiscardCurve]
    random: Float[np.ndarray, "2 share"]

    @property
    def first(self) -> DiscardCurve:
        return next(iter(self.by_column.values()))


def check_quality(
    run: Run,
    data: Path,
    columns: Sequence[str],
    *,
    fmr: float = 0.01,
    up_to: float = 0.3,
    progress: Progress | None = None,
) -> QualityCheck:
    """The curves of some numeric columns of a manifest; more must mean better, a column that begins with `-` is
    turned round. Resamples are the recipe's, at most 2,000.

    Raises RunError for an unfinished run, DataError for columns that the manifest does not have or that are not
    numbers, for an `fmr` with less than ten impostor pairs, and what `evaluate` raises for the manifest.
    """
    progress = progress or NullProgress()
    known = read(data).table
    for name in columns:
        _values(known, name, data)  # refused before anything is embedded
    found = errors_of(run, data, fmr=fmr, progress=progress)
    resamples = min(2000, run.recipe.evaluate.resamples)
    values = {name: _values(found.table, name, data) for name in columns}
    curves = []
    with progress.step("resampling subjects", 2 * len(columns), "curves") as advance:
        for kind in (found.rank1, found.non_match):
            by_column = {}
            for name, quality in values.items():
                by_column[name] = discard_curve(
                    kind.errors, kind.photos, quality, kind.subjects, up_to=up_to, resamples=resamples
                )
                advance(1)
            curves.append(Curves(by_column, random_band(kind.errors, kind.photos, up_to=up_to, orders=resamples // 2)))
    return QualityCheck(found, fmr, *curves)


def errors_of(run: Run, data: Path, *, fmr: float, progress: Progress) -> TestErrors:
    """Ranks and compares all test photos of a manifest."""
    check_finished(run)
    material, _, _ = unseen(run, load_dataset(run.recipe, data, trains=False), progress)
    split, manifest = material.split, material.manifest
    rows = evaluated_rows(split)
    photos = PhotoTable(manifest.table[rows], rows, manifest, run.recipe, split, {"model_hash": file_hash(run.model)})
    embeddings = embed_known(run, photos, progress)
    scores = score(embeddings, rows, split.test, split.identities, cameras=split.cameras)
    people = np.unique([split.subjects[row] for row in rows], return_inverse=True)[1]
    queries = np.searchsorted(rows, scores.rows)
    mated, impostor = _pairs(embeddings, rows, people, split)
    if fmr * len(impostor) < 10:
        raise DataError(
            f"a false match rate of {fmr:g} is {fmr * len(impostor):.1f} of {len(impostor):,} pairs of different "
            "subjects, too few to choose a threshold: give a larger one (--fmr)"
        )
    threshold = float(np.quantile(impostor, 1 - fmr, method="higher"))
    return TestErrors(
        photos.table,
        Errors(1 - scores.metrics["rank1"], queries[:, None], people[queries]),
        Errors((mated.cosines < threshold).astype(float), mated.photos, people[mated.photos[:, 0]]),
        threshold,
        len(impostor),
        len(np.unique(people[queries])),
        len(split.test),
        manifest.hash,
        split.draws_hash,
    )


@dataclass(frozen=True, eq=False)
class _Mated:
    cosines: Float[np.ndarray, " pair"]
    photos: Int[np.ndarray, "pair 2"]


def _pairs(
    embeddings: Float[np.ndarray, "photo dim"],
    rows: Int[np.ndarray, " photo"],
    people: Int[np.ndarray, " photo"],
    split: Split,
) -> tuple[_Mated, Float[np.ndarray, " impostor"]]:
    """Pairs of a query and a gallery photo of all draws: those of one identity, and those of different subjects.

    Two views of one subject are different identities under some labels: they are in neither part.
    """
    labels = np.unique([split.identities[row] for row in rows], return_inverse=True)[1]
    cosines, pairs, impostors = [], [], []
    for draw in split.test:
        query, gallery = np.searchsorted(rows, draw.query), np.searchsorted(rows, draw.gallery)
        similarity = embeddings[query] @ embeddings[gallery].T
        mated = labels[query][:, None] == labels[gallery]
        if split.cameras is not None:
            mated &= ~np.array([split.left_out(int(row), draw.gallery) for row in draw.query])
        impostors.append(similarity[people[query][:, None] != people[gallery]])
        cosines.append(similarity[mated])
        which = np.argwhere(mated)
        pairs.append(np.column_stack([query[which[:, 0]], gallery[which[:, 1]]]))
    return _Mated(np.concatenate(cosines), np.concatenate(pairs)), np.concatenate(impostors)


def _values(table: pl.DataFrame, column: str, data: Path) -> Float[np.ndarray, " photo"]:
    name = column.removeprefix("-")
    if name not in table.columns:
        numeric = [other for other in table.columns if table[other].dtype.is_numeric()]
        raise DataError(
            f"{data} has no column {name!r}{closest_match(name, numeric)}; its numbers are {format_list(numeric, 12)}"
            + ("; `handreid data quality` writes quality" if name.startswith("quality") else "")
        )
    if not (table[name].dtype.is_numeric() or table[name].dtype == pl.Boolean):
        raise DataError(f"the column {name} of {data} holds text: give a column of numbers, more being better")
    values: Float[np.ndarray, " photo"] = table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return -values if column.startswith("-") else values
