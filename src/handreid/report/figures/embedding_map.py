"""A run's embeddings as a picture: which photos, where in the plane, in which colours.

* Only test photos are shown: those of people the run was trained on say nothing of people it will meet. Coloured by
  identity, photos of nobody known stand among them, at most as many, hollow and without a line to anybody's middle.
* Both projections are of unit embeddings and seeded. t-SNE keeps neighbours (by cosine), not distances; PCA keeps the
  directions of most variance among the photos shown.
* t-SNE runs on one thread: with more, its sums come in another order and it is another picture. Nearly all its time
  goes into moving points in the plane: fewer dimensions before it (PCA to 50) make it no faster, half the usual steps
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
_LABEL = 28  # signs of a name in a legend


@dataclass(frozen=True)
class Colouring:
    """`values` per photo, in the order of the legend in `names`; `column` is where they are from."""

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
    """The files written: a picture as .png, .svg or .pdf by the suffix of `out` (.png for .html), its caption as .txt,
    and an .html to look into. With `photos` that holds a thumbnail of each.

    Coloured by identity or subject, the `identities` of them with the most photos are shown; by another column, all.
    Raises DataError where nothing can be seen: no such column, too many values, too few photos, or a collapsed model.
    """
    progress = progress or NullProgress()
    check_writable(out, (*style.FORMATS, ".html"))
    every = select_photos(run, data=data, flip_tta=flip_tta, progress=progress)
    tested = _of_role(every, "test")
    of = _coloured(tested, colour)
    shown, of = _most_photos(tested, of, identities) if colour in PEOPLE else (tested, of)
    if len(shown.rows) < 4:
        raise DataError(f"{len(shown.rows)} test photos to show; the figure needs 4 or more")
    nobody = _of_role(every, "unlabelled", needed=False)
    if colour in PEOPLE and len(nobody.rows):
        shown, of = _with_unlabelled(every, shown, of, nobody, seed)
    points = embed_known(run, shown, progress)
    with progress.step(f"projecting by {_NAMES[method]}", len(points), "photos") as advance:
        plane, axes = project(points, method, seed=seed)
        advance(len(points))
    cloud = _cloud(run, tested, shown, of, plane, axes, method, len(nobody.rows))
    if photos:
        paths = [shown.manifest.root / path for path in shown.table["path"]]
        cloud = replace(cloud, sheet=sheet_of(paths, progress=progress))
    picture = out if out.suffix in style.FORMATS else out.with_suffix(".png")
    written = draw_picture(cloud, picture, _caption(cloud, shown, method, seed))
    html = out.with_suffix(".html")
    draw_html(cloud, html)
    return [*written, html]


def _caption(cloud: Cloud, shown: PhotoTable, method: Method, seed: int) -> str:
    how = {
        "tsne": f"t-SNE by cosine, seed {seed}, which preserves neighbours, not distances",
        "pca": f"PCA, {cloud.axes[0]}, {cloud.axes[1]}",
    }[method]
    return " ".join(
        [
            f"{cloud.title}: {'; '.join(cloud.subtitle)}.",
            f"Embeddings of unit length, projected to the plane by {how}. Markers show the view.",
            provenance(shown),
        ]
    )


def projection(
    tested: TestPhotos, method: Method, *, seed: int = 0
) -> tuple[Float[np.ndarray, "photo 2"], tuple[str, str]]:
    """Where a run's test photos lie in the plane, and what the axes are (see `project`)."""
    return project(tested.embeddings, method, seed=seed)


def project(
    points: Float[np.ndarray, "photo dim"], method: Method, *, seed: int = 0
) -> tuple[Float[np.ndarray, "photo 2"], tuple[str, str]]:
    """Places in the plane, and what the axes are. Raises DataError when all points are one."""
    if float(np.ptp(points, axis=0).max()) < 1e-6:
        raise DataError(
            f"all {len(points)} photos have the same embedding: the model has collapsed, so there is nothing to draw"
        )
    if method == "pca":
        from sklearn.decomposition import PCA

        found = PCA(2, svd_solver="full").fit(points.astype(np.float64))
        first, second = (
            f"component {n}: {100 * share:.0f} % of the variance"
            for n, share in enumerate(found.explained_variance_ratio_, 1)
        )
        return found.transform(points.astype(np.float64)), (first, second)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, len(points) ** 0.5, (len(points) - 1) / 3)  # few photos have few neighbours
    with threadpool_limits(1):
        found = TSNE(
            2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed, max_iter=500, angle=0.8
        ).fit_transform(points)
    return found.astype(np.float64), (f"t-SNE, perplexity {perplexity:.0f}; axes have no unit", "")


def _coloured(known: PhotoTable, colour: str) -> Colouring:
    """What each photo is coloured by. `view` is aspect and side together, as in recipes."""
    column = _column(known, colour)
    values = _views(known) if column == "view" else [_text(value) for value in known.table[column].to_list()]
    found = set(values) - {"unknown"}
    if not found:
        raise DataError(f"no test photo of {known.facts['manifest']} has a value of {column}; {_others(known)}")
    if colour not in PEOPLE and len(found) > len(style.CATEGORIES):
        raise DataError(
            f"{column} has {len(found)} different values, but only {len(style.CATEGORIES)} colours can be "
            f"told apart; {_others(known)}"
        )
    return Colouring(
        column, values, [*_in_order(found, Counter(values)), *(["unknown"] if "unknown" in values else [])]
    )


def _column(known: PhotoTable, colour: str) -> str:
    names = [name for name in known.table.columns if name not in ("path", "origin")]
    column = column_called(colour, [*names, *(["view"] if "view" not in names else [])])
    if column is None:
        raise DataError(f"{known.facts['manifest']} has no column {colour!r} to colour by; {_others(known)}")
    return column


def _others(known: PhotoTable) -> str:
    """The columns that could be coloured by instead."""
    few = [
        name
        for name in known.table.columns
        if name not in ("path", "origin") and 1 <= known.table[name].drop_nulls().n_unique() <= len(style.CATEGORIES)
    ]
    if {*_views(known)} != {"unknown"}:
        few.append("view")
    return f"choose identity, subject or one of {', '.join(few)}"


def _in_order(found: set[str], count: Counter[str]) -> list[str]:
    if found <= set(_FROM_LIGHT_TO_DARK):
        return [name for name in _FROM_LIGHT_TO_DARK if name in found]
    if found <= set(style.MARKS):
        return [name for name in style.MARKS if name in found]
    return sorted(found, key=lambda name: (-count[name], name))


def _most_photos(known: PhotoTable, of: Colouring, wanted: int) -> tuple[PhotoTable, Colouring]:
    names = [name for name in of.names if name != "unknown"][:wanted]
    kept = np.array([row for row, value in enumerate(of.values) if value in set(names)], np.int64)
    return known.only(kept), Colouring(of.column, [of.values[row] for row in kept], sorted(names))


def _of_role(every: PhotoTable, role: str, *, needed: bool = True) -> PhotoTable:
    found = every.only(np.flatnonzero(every.table["role"].to_numpy() == role))
    if needed and not len(found.rows):
        roles = ", ".join(sorted(set(every.table["role"])))
        raise DataError(f"no photo of {every.facts['manifest']} has the role {role!r}; the roles are {roles}")
    return found


def _with_unlabelled(
    every: PhotoTable, shown: PhotoTable, of: Colouring, nobody: PhotoTable, seed: int
) -> tuple[PhotoTable, Colouring]:
    """Photos of nobody known beside those shown, at most as many of them, drawn by the seed."""
    paths = nobody.table["path"].to_list()
    drawn = sorted(range(len(paths)), key=lambda at: hash_key(seed, "unlabelled", 0, paths[at]))[: len(shown.rows)]
    rows = np.concatenate([shown.rows, nobody.rows[sorted(drawn)]])
    values = [*of.values, *[UNKNOWN] * len(drawn)]
    return every.only(np.searchsorted(every.rows, rows)), Colouring(of.column, values, [*of.names, UNKNOWN])


def _cloud(
    run: Run,
    tested: PhotoTable,
    shown: PhotoTable,
    of: Colouring,
    plane: Float[np.ndarray, "photo 2"],
    axes: tuple[str, str],
    method: Method,
    unlabelled: int,
) -> Cloud:
    place = {name: group for group, name in enumerate(of.names)}
    groups = np.array([place[value] for value in of.values], np.int64)
    joined = of.column in PEOPLE
    label = of.column.replace("_", " ")
    return Cloud(
        points=plane,
        groups=groups,
        names=[name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…" for name in of.names],
        colours=_colours(of, plane, groups),
        views=_views(shown),
        hovers=_hovers(shown, of),
        joined=joined,
        title=f"{shown.recipe.name}: test photos by {label}, {_NAMES[method]}",
        subtitle=_subtitle(run, tested, shown, of, unlabelled),
        legend=label,
        axes=axes,
        true_to_scale=method == "pca",
        unlabelled=joined and of.names[-1] == UNKNOWN,
    )


def _colours(of: Colouring, plane: Float[np.ndarray, "photo 2"], groups: Int[np.ndarray, " photo"]) -> list[str]:
    known = [name for name in of.names if name not in ("unknown", UNKNOWN)]
    if of.column in PEOPLE:
        found = spread_colours(np.stack([plane[groups == group].mean(axis=0) for group in range(len(known))]))
    elif set(known) <= set(_FROM_LIGHT_TO_DARK):
        found = style.ordered_colours(len(known))[::-1]
    else:
        found = list(style.CATEGORIES[: len(known)])
    return [*found, *[style.UNKNOWN] * (len(of.names) - len(known))]


def _subtitle(run: Run, tested: PhotoTable, shown: PhotoTable, of: Colouring, unlabelled: int) -> list[str]:
    if of.column in PEOPLE:
        count, every = len(set(of.values) - {UNKNOWN}), tested.table[of.column].n_unique()
        many = "identities" if of.column == "identity" else "subjects"
        which = f"the {count} of {every} {many} with the most photos" if count < every else f"all {count} {many}"
        nobody = of.values.count(UNKNOWN)
        said = f"{len(shown.rows) - nobody} photos of {which}; a line leads from each to the mean of its {of.column}"
        if nobody:
            some = f"{nobody}" if nobody == unlabelled else f"{nobody} of {unlabelled}, drawn by seed,"
            return [said, f"hollow: {some} photos of unknown identity", *_measured(run, shown)]
    else:
        said = f"{len(shown.rows)} photos of {shown.table['identity'].n_unique()} identities"
    return [said, *_measured(run, shown)]


def _measured(run: Run, shown: PhotoTable) -> list[str]:
    """What evaluation.json says, if it is of this model and these photos."""
    if not run.evaluation.exists():
        return []
    found = read_evaluation(run.evaluation)
    if found.hashes.manifest != shown.manifest.hash or found.hashes.model != shown.facts["model_hash"]:
        return []
    parts = [f"rank-1 {format_number('rank1', found.metrics['rank1'])} %"]
    ratio = None if found.separation is None else found.separation.numbers.get("ratio")
    if ratio is not None and ratio.value is not None:
        parts.append(
            f"distance within an identity / to the nearest other {format_number('ratio', ratio)} (under 1 is separable)"
        )
    return [f"all test photos: {', '.join(parts)}"]


def _hovers(shown: PhotoTable, of: Colouring) -> list[str]:
    rows = zip(shown.table["identity"], shown.table["path"], _views(shown), of.values, strict=True)
    own = of.column not in ("identity", "view")
    return [
        f"<b>{escape(identity or UNKNOWN)}</b><br>{escape(PurePosixPath(path).name)}<br>{view}"
        + (f"<br>{escape(of.column)}: {escape(value)}" if own else "")
        for identity, path, view, value in rows
    ]


def _views(known: PhotoTable) -> list[str]:
    return [known.manifest.views[row] or "unknown" for row in known.rows]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)
