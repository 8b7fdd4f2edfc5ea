"""A run's embeddings as a figure: selection of photos, projection to the plane, colours.

* Only test photos are shown: embeddings of training subjects do not show how well unseen ones are separated. Coloured
  by identity or subject, photos without a label are added, at most as many, hollow and without a line to a centre.
* Both projections are of unit embeddings and seeded. t-SNE keeps neighbours (by cosine), not distances; PCA keeps the
  directions of largest variance among the photos shown.
* t-SNE runs on one thread: with more, its sums are added in another order and the picture changes. Nearly all its time
  goes into moving points in the plane, so fewer input dimensions (PCA to 50) make it no faster. Half the usual steps
  and a coarser angle do, by 2.6 times for 2,000 photos, and keep neighbours as well (trustworthiness 0.987 for 0.988).
"""

from collections import Counter
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from handreid.data.draws import hash_key
from handreid.data.tables import column_called
from handreid.data.unlabelled import UNKNOWN
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable, embed_known, provenance, select_photos
from handreid.evaluation.tables.format import format_number
from handreid.files import check_writable
from handreid.progress import NullProgress, Progress
from handreid.report.figures import style
from handreid.report.figures.scatter import Cloud, draw_html, draw_picture, spread_colours
from handreid.report.photos.test_photos import TestPhotos
from handreid.report.photos.thumbnails import sheet_of
from handreid.runs.folder import Run
from handreid.runs.results import read_evaluation

Method = Literal["pca", "tsne"]
PEOPLE = ("identity", "subject")
_NAMES = {"pca": "PCA", "tsne": "t-SNE"}
_FROM_LIGHT_TO_DARK = ("very fair", "fair", "light", "medium", "olive", "tan", "brown", "dark", "very dark")
_LABEL = 28  # characters of a name in a legend


@dataclass(frozen=True)
class Colouring:
    """One of `values` per photo, from the manifest's `column`; `names` are the distinct ones in the legend's order."""

    column: str
    values: list[str]
    names: list[str]


def embedding_figure(
    run: Run,
    out: Path,
    *,
    method: Method = "tsne",
    colour: str = "identity",
    identities: int = 20,
    data: Path | None = None,
    flip_tta: bool | None = None,
    seed: int = 0,
    photos: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes a picture as .png, .svg or .pdf by the suffix of `out` (.png for .html), its caption as .txt, and an
    interactive .html, which with `photos` contains a thumbnail of each. Returns the files.

    Coloured by identity or subject, only the `identities` ones with the most photos are shown; by another column, all.
    Raises DataError for an unknown column, too many values, too few photos, or equal embeddings (a collapsed model).
    """
    progress = progress or NullProgress()
    check_writable(out, (*style.FORMATS, ".html"))
    table = select_photos(run, data=data, flip_tta=flip_tta, progress=progress)
    tested = _with_role(table, "test")
    colouring = _coloured(tested, colour)
    selected, colouring = _most_photos(tested, colouring, identities) if colour in PEOPLE else (tested, colouring)
    if len(selected.rows) < 4:
        raise DataError(f"{len(selected.rows)} test photos to show; the figure needs 4 or more")
    unlabelled = _with_role(table, "unlabelled", needed=False)
    if colour in PEOPLE and len(unlabelled.rows):
        selected, colouring = _with_unlabelled(table, selected, colouring, unlabelled, seed)
    points = embed_known(run, selected, progress)
    with progress.step(f"projecting by {_NAMES[method]}", len(points), "photos") as advance:
        plane, axes = project(points, method, seed=seed)
        advance(len(points))
    cloud = _cloud(run, tested, selected, colouring, plane, axes, method, len(unlabelled.rows))
    if photos:
        paths = [selected.manifest.root / path for path in selected.table["path"]]
        cloud = replace(cloud, sheet=sheet_of(paths, progress=progress))
    picture = out if out.suffix in style.FORMATS else out.with_suffix(".png")
    written = draw_picture(cloud, picture, _caption(cloud, selected, method, seed))
    html = out.with_suffix(".html")
    draw_html(cloud, html)
    return [*written, html]


def _caption(cloud: Cloud, selected: PhotoTable, method: Method, seed: int) -> str:
    how = {
        "tsne": f"t-SNE by cosine, seed {seed}, which preserves neighbours, not distances",
        "pca": f"PCA, {cloud.axes[0]}, {cloud.axes[1]}",
    }[method]
    return " ".join(
        [
            f"{cloud.title}: {'; '.join(cloud.subtitle)}.",
            f"Embeddings of unit length, projected to the plane by {how}. Markers show the view.",
            provenance(selected),
        ]
    )


def projection(
    tested: TestPhotos, method: Method, *, seed: int = 0
) -> tuple[Float[np.ndarray, "photo 2"], tuple[str, str]]:
    """Positions of a run's test photos in the plane, and labels of the axes (see `project`)."""
    return project(tested.embeddings, method, seed=seed)


def project(
    points: Float[np.ndarray, "photo dim"], method: Method, *, seed: int = 0
) -> tuple[Float[np.ndarray, "photo 2"], tuple[str, str]]:
    """Positions in the plane, and labels of the axes. Raises DataError if all points are equal."""
    if float(np.ptp(points, axis=0).max()) < 1e-6:
        raise DataError(
            f"all {len(points)} photos have the same embedding: the model has collapsed, so there is nothing to draw"
        )
    if method == "pca":
        from sklearn.decomposition import PCA

        projected = PCA(2, svd_solver="full").fit(points.astype(np.float64))
        x_label, y_label = (
            f"component {n}: {100 * share:.0f} % of the variance"
            for n, share in enumerate(projected.explained_variance_ratio_, 1)
        )
        return projected.transform(points.astype(np.float64)), (x_label, y_label)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, len(points) ** 0.5, (len(points) - 1) / 3)  # few photos have few neighbours
    with threadpool_limits(1):
        projected = TSNE(
            2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed, max_iter=500, angle=0.8
        ).fit_transform(points)
    return projected.astype(np.float64), (f"t-SNE, perplexity {perplexity:.0f}; axes have no unit", "")


def _coloured(table: PhotoTable, colour: str) -> Colouring:
    """The colouring by a column. `view` is aspect and side together, as in recipes."""
    column = _column(table, colour)
    values = _views(table) if column == "view" else [_text(value) for value in table.table[column].to_list()]
    present = set(values) - {"unknown"}
    if not present:
        raise DataError(f"no test photo of {table.facts['manifest']} has a value of {column}; {_others(table)}")
    if colour not in PEOPLE and len(present) > len(style.CATEGORIES):
        raise DataError(
            f"{column} has {len(present)} different values, but only {len(style.CATEGORIES)} colours can be "
            f"told apart; {_others(table)}"
        )
    return Colouring(
        column, values, [*_in_order(present, Counter(values)), *(["unknown"] if "unknown" in values else [])]
    )


def _column(table: PhotoTable, colour: str) -> str:
    names = [name for name in table.table.columns if name not in ("path", "origin")]
    column = column_called(colour, [*names, *(["view"] if "view" not in names else [])])
    if column is None:
        raise DataError(f"{table.facts['manifest']} has no column {colour!r} to colour by; {_others(table)}")
    return column


def _others(table: PhotoTable) -> str:
    """A hint with the columns that can be used instead."""
    few = [
        name
        for name in table.table.columns
        if name not in ("path", "origin") and 1 <= table.table[name].drop_nulls().n_unique() <= len(style.CATEGORIES)
    ]
    if {*_views(table)} != {"unknown"}:
        few.append("view")
    return f"choose identity, subject or one of {', '.join(few)}"


def _in_order(present: set[str], count: Counter[str]) -> list[str]:
    if present <= set(_FROM_LIGHT_TO_DARK):
        return [name for name in _FROM_LIGHT_TO_DARK if name in present]
    if present <= set(style.MARKS):
        return [name for name in style.MARKS if name in present]
    return sorted(present, key=lambda name: (-count[name], name))


def _most_photos(table: PhotoTable, colouring: Colouring, count: int) -> tuple[PhotoTable, Colouring]:
    names = [name for name in colouring.names if name != "unknown"][:count]
    rows = np.array([index for index, value in enumerate(colouring.values) if value in set(names)], np.int64)
    return table.only(rows), Colouring(colouring.column, [colouring.values[index] for index in rows], sorted(names))


def _with_role(table: PhotoTable, role: str, *, needed: bool = True) -> PhotoTable:
    of_role = table.only(np.flatnonzero(table.table["role"].to_numpy() == role))
    if needed and not len(of_role.rows):
        roles = ", ".join(sorted(set(table.table["role"])))
        raise DataError(f"no photo of {table.facts['manifest']} has the role {role!r}; the roles are {roles}")
    return of_role


def _with_unlabelled(
    table: PhotoTable, selected: PhotoTable, colouring: Colouring, unlabelled: PhotoTable, seed: int
) -> tuple[PhotoTable, Colouring]:
    """The selected photos and photos without a label, at most as many, drawn by the seed."""
    paths = unlabelled.table["path"].to_list()
    order = sorted(range(len(paths)), key=lambda index: hash_key(seed, "unlabelled", 0, paths[index]))
    drawn = order[: len(selected.rows)]
    rows = np.concatenate([selected.rows, unlabelled.rows[sorted(drawn)]])
    values = [*colouring.values, *[UNKNOWN] * len(drawn)]
    return table.only(np.searchsorted(table.rows, rows)), Colouring(
        colouring.column, values, [*colouring.names, UNKNOWN]
    )


def _cloud(
    run: Run,
    tested: PhotoTable,
    selected: PhotoTable,
    colouring: Colouring,
    plane: Float[np.ndarray, "photo 2"],
    axes: tuple[str, str],
    method: Method,
    unlabelled: int,
) -> Cloud:
    place = {name: group for group, name in enumerate(colouring.names)}
    groups = np.array([place[value] for value in colouring.values], np.int64)
    joined = colouring.column in PEOPLE
    label = colouring.column.replace("_", " ")
    return Cloud(
        points=plane,
        groups=groups,
        names=[name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…" for name in colouring.names],
        colours=_colours(colouring, plane, groups),
        views=_views(selected),
        hovers=_hovers(selected, colouring),
        joined=joined,
        title=f"{selected.recipe.name}: test photos by {label}, {_NAMES[method]}",
        subtitle=_subtitle(run, tested, selected, colouring, unlabelled),
        legend=label,
        axes=axes,
        true_to_scale=method == "pca",
        unlabelled=joined and colouring.names[-1] == UNKNOWN,
    )


def _colours(colouring: Colouring, plane: Float[np.ndarray, "photo 2"], groups: Int[np.ndarray, " photo"]) -> list[str]:
    labelled = [name for name in colouring.names if name not in ("unknown", UNKNOWN)]
    if colouring.column in PEOPLE:
        colours = spread_colours(np.stack([plane[groups == group].mean(axis=0) for group in range(len(labelled))]))
    elif set(labelled) <= set(_FROM_LIGHT_TO_DARK):
        colours = style.ordered_colours(len(labelled))[::-1]
    else:
        colours = list(style.CATEGORIES[: len(labelled)])
    return [*colours, *[style.UNKNOWN] * (len(colouring.names) - len(labelled))]


def _subtitle(run: Run, tested: PhotoTable, selected: PhotoTable, colouring: Colouring, unlabelled: int) -> list[str]:
    if colouring.column in PEOPLE:
        count, total = len(set(colouring.values) - {UNKNOWN}), tested.table[colouring.column].n_unique()
        many = "identities" if colouring.column == "identity" else "subjects"
        which = f"the {count} of {total} {many} with the most photos" if count < total else f"all {count} {many}"
        hollow = colouring.values.count(UNKNOWN)
        labelled = len(selected.rows) - hollow
        sentence = f"{labelled} photos of {which}; a line leads from each to the mean of its {colouring.column}"
        if hollow:
            count_text = f"{hollow}" if hollow == unlabelled else f"{hollow} of {unlabelled}, drawn by seed,"
            return [sentence, f"hollow: {count_text} photos of unknown identity", *_measured(run, selected)]
    else:
        sentence = f"{len(selected.rows)} photos of {selected.table['identity'].n_unique()} identities"
    return [sentence, *_measured(run, selected)]


def _measured(run: Run, selected: PhotoTable) -> list[str]:
    """A line with metrics of evaluation.json, if that is of this model and manifest."""
    if not run.evaluation.exists():
        return []
    evaluation = read_evaluation(run.evaluation)
    if evaluation.hashes.manifest != selected.manifest.hash or evaluation.hashes.model != selected.facts["model_hash"]:
        return []
    parts = [f"rank-1 {format_number('rank1', evaluation.metrics['rank1'])} %"]
    ratio = None if evaluation.separation is None else evaluation.separation.numbers.get("ratio")
    if ratio is not None and ratio.value is not None:
        parts.append(
            f"distance within an identity / to the nearest other {format_number('ratio', ratio)} (under 1 is separable)"
        )
    return [f"all test photos: {', '.join(parts)}"]


def _hovers(selected: PhotoTable, colouring: Colouring) -> list[str]:
    rows = zip(selected.table["identity"], selected.table["path"], _views(selected), colouring.values, strict=True)
    with_value = colouring.column not in ("identity", "view")
    return [
        f"<b>{escape(identity or UNKNOWN)}</b><br>{escape(PurePosixPath(path).name)}<br>{view}"
        + (f"<br>{escape(colouring.column)}: {escape(value)}" if with_value else "")
        for identity, path, view, value in rows
    ]


def _views(table: PhotoTable) -> list[str]:
    return [table.manifest.views[row] or "unknown" for row in table.rows]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)
