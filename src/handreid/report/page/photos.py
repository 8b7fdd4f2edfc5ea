"""What the page shows of test photos: rankings, the map, where the model looks, who is mixed up.

Without photos the same is said in names and marks; no pixel and no file name of a photo is in the page then.
"""

from collections.abc import Sequence
from html import escape
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from handreid.errors import DataError
from handreid.progress import Progress
from handreid.report.compare.runs import Compared
from handreid.report.figures import style
from handreid.report.figures.embedding_map import Method, project
from handreid.report.figures.scatter import spread_colours
from handreid.report.figures.strip_selection import ONCE, RULES, Hit, Strip, choose
from handreid.report.page.saliency import looks
from handreid.report.photos.confusion import most_confused
from handreid.report.photos.test_photos import TestPhotos
from handreid.report.photos.thumbnails import as_url, columns_of, data_url, sprite, thumbnails
from handreid.runs.results import Evaluation

_STRIP_SIDE, _MIXED_SIDE, _TILE = 96, 176, 56  # pixels
_MOST_ON_MAP = 2000
_METHODS: dict[str, Method] = {"t-SNE": "tsne", "PCA": "pca"}
_MIXED = 9


def sections(
    tested: TestPhotos, shown: Compared, photos: bool, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None, str | None]:
    """The template's sections about photos, what the script needs of the map, and why there is none where none is."""
    shots, larger = ThumbnailSet(tested, photos, _STRIP_SIDE), ThumbnailSet(tested, photos, _MIXED_SIDE)
    chosen = choose(tested)
    found: dict[str, Any] = {"strips": strips(chosen, shots, shown.name), "mixed": mixed(tested, larger), "looks": None}
    data, problem = None, None
    try:
        found["map"], data = space_map(tested, shown.evaluation, photos=photos)
    except DataError as error:  # a collapsed model
        found["map"], problem = None, f"There is no map of {shown.name}: {error}."
    if photos:
        found["looks"] = looks(tested, chosen, progress)
    return found, data, problem


class ThumbnailSet:
    """Thumbnails of test photos as data URLs, each made once; none where photos are left out."""

    def __init__(self, tested: TestPhotos, wanted: bool, side: int) -> None:
        self.tested = tested
        self.wanted = wanted
        self.side = side
        self.made: dict[int, str] = {}

    def prepare(self, photos: Sequence[int]) -> None:
        missing = [photo for photo in dict.fromkeys(photos) if photo not in self.made]
        if self.wanted and missing:
            found = thumbnails([self.tested.paths[photo] for photo in missing], self.side)
            self.made |= {photo: data_url(image) for photo, image in zip(missing, found, strict=True)}

    def of(self, photo: int) -> dict[str, Any]:
        return {"url": self.made.get(photo), "words": self.words(photo)}

    def words(self, photo: int) -> str:
        identity = self.tested.identities[photo]
        return f"{identity}, {PurePosixPath(self.tested.names[photo]).name}" if self.wanted else identity


def strips(chosen: Sequence[Strip], shots: ThumbnailSet, name: str) -> dict[str, Any]:
    """Rankings of some queries, chosen by a rule."""
    shots.prepare([photo for strip in chosen for photo in (strip.query, *(hit.photo for _, hit in _hits(strip)))])
    rules = "; ".join(f"{rule}: {words}" for rule, words in RULES.items() if rule != "asked")
    return {
        "caption": f"Queries of {name} in the first draw with their first answers, chosen by rule. {rules}; {ONCE}. A "
        "solid frame with ✓ is the right identity, a dashed frame with ✕ another one; below are rank and cosine "
        "similarity. If the first right answer has a higher rank, it is shown at the end.",
        "rows": [_strip(strip, shots) for strip in chosen],
    }


def _strip(strip: Strip, shots: ThumbnailSet) -> dict[str, Any]:
    hits = [
        {"right": hit.right, "rank": rank, "similarity": hit.similarity, "later": hit is strip.first}
        | shots.of(hit.photo)
        for rank, hit in _hits(strip)
    ]
    told = f"first right answer at rank {strip.rank}"
    return {"rule": strip.rule, "sentence": told, "query": shots.of(strip.query), "hits": hits}


def _hits(strip: Strip) -> list[tuple[int, Hit]]:
    """Answers with their ranks; the first right one comes last where it is not among the first ten."""
    first = [(strip.rank, strip.first)] if strip.first is not None and strip.rank is not None else []
    return [*enumerate(strip.hits, 1), *first]


def mixed(tested: TestPhotos, shots: ThumbnailSet) -> dict[str, Any] | None:
    """Pairs of identities that are mixed up most; None where every first answer is right."""
    found = most_confused(tested, top=_MIXED)
    if not found:
        return None
    shots.prepare([photo for one in found for photo in (one.query, one.hit)])
    return {
        "caption": "Pairs of identities, ordered by how many queries of either had the other as first answer, over all "
        "draws; the photos are the most similar ones of these.",
        "rows": [
            {
                "identity": one.identity,
                "other": one.other,
                "wrong": one.wrong,
                "queries": one.queries,
                "relation": one.relation,
                "query": shots.of(one.query)["url"],
                "hit": shots.of(one.hit)["url"],
            }
            for one in found
        ],
    }


def space_map(tested: TestPhotos, evaluation: Evaluation, *, photos: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template and what the script need of the map. Raises DataError where all photos have one embedding."""
    kept = _kept(tested)
    shares = _right_first(tested, evaluation)
    names, groups = np.unique([tested.identities[photo] for photo in kept], return_inverse=True)
    planes = {name: _plane(tested.embeddings[kept], groups, method) for name, method in _METHODS.items()}
    views = [tested.views[photo] for photo in kept]
    middles = np.array([[planes["t-SNE"]["x"][at], planes["t-SNE"]["y"][at]] for at in range(len(kept))])
    centres = np.stack([middles[groups == group].mean(axis=0) for group in range(len(names))])
    colourings = {
        "identity": _by_identity(names, groups, spread_colours(centres)),
        **({"view": _by_view(views)} if len(set(views)) > 1 else {}),
        "first answer": _by_answer([shares.get(photo) for photo in kept]),
    }
    found: dict[str, Any] = {
        "planes": planes,
        "symbols": [style.MARKS[view][1] for view in views],
        "words": [_words(tested, photo, shares.get(photo), photos) for photo in kept],
        "colourings": colourings,
    }
    shown: dict[str, Any] = {
        "planes": list(planes),
        "colourings": list(colourings),
        "caption": _map_caption(tested, kept, photos),
        "sprite": None,
    }
    if photos:
        made = thumbnails([tested.paths[photo] for photo in kept], _TILE)
        shown["sprite"] = as_url(*sprite(made))
        found["sprite"] = {"columns": columns_of(len(made))}
    return shown, found


def _plane(points: Any, groups: Any, method: Method) -> dict[str, Any]:
    plane, axes = project(points, method)
    middles = np.stack([plane[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
    return {
        "x": _rounded(plane[:, 0]),
        "y": _rounded(plane[:, 1]),
        "axes": axes,
        "scale": method == "pca",
        "spokes": _spokes(plane, middles[groups]),
    }


def _right_first(tested: TestPhotos, evaluation: Evaluation) -> dict[int, float]:
    """Each query's share of draws in which its first answer was right; photos that are no query have none."""
    place = {name: at for at, name in enumerate(tested.names)}
    told: dict[int, list[bool]] = {}
    for draw in evaluation.draws:
        for row, ranks in zip(draw.query, draw.ranks, strict=True):
            if ranks:
                told.setdefault(place[evaluation.photos[row]], []).append(ranks[0] == 1)
    return {photo: sum(right) / len(right) for photo, right in told.items()}


def _kept(tested: TestPhotos) -> list[int]:
    """All test photos, or those of as many identities, drawn by seed 0, as come to the most that a map shows."""
    if len(tested.rows) <= _MOST_ON_MAP:
        return list(range(len(tested.rows)))
    names = np.unique(tested.identities)
    order = {name: place for place, name in enumerate(np.random.default_rng(0).permutation(names))}
    by_identity = sorted(range(len(tested.rows)), key=lambda photo: (order[tested.identities[photo]], photo))
    return sorted(by_identity[:_MOST_ON_MAP])


def _map_caption(tested: TestPhotos, kept: Sequence[int], photos: bool) -> str:
    count = f"{len(kept):,}" + (f" of {len(tested.rows):,}" if len(kept) < len(tested.rows) else "")
    people = len({tested.identities[photo] for photo in kept})
    pointing = "shows the photo" if photos else "names its identity"
    return (
        f"{count} test photos of {people:,} identities; markers show the view. t-SNE preserves neighbours, not "
        "distances; PCA states how much of the variance it shows. Coloured by identity, a thin line leads from each "
        f"photo to the mean of its identity: short lines mean compact identities. Pointing at a photo {pointing}; with "
        "the map in focus, arrow keys move from photo to photo."
    )


def _words(tested: TestPhotos, photo: int, share: float | None, photos: bool) -> str:
    lines = [f"<b>{escape(tested.identities[photo])}</b>"]
    if photos:
        lines.append(escape(PurePosixPath(tested.names[photo]).name))
    if tested.views[photo] != "unknown":
        lines.append(tested.views[photo])
    if share is not None:
        lines.append(f"first answer right in {100 * share:.0f} % of its draws")
    return "<br>".join(lines)


def _by_identity(names: Any, groups: Any, colours: list[str]) -> dict[str, Any]:
    shown = [
        {"name": str(name), "photos": np.flatnonzero(groups == group).tolist(), "colour": colours[group]}
        for group, name in enumerate(names)
    ]
    return {"legend": False, "joined": True, "groups": shown}


def _by_view(views: Sequence[str]) -> dict[str, Any]:
    found = [view for view in style.MARKS if view in views]
    groups = [
        {
            "name": view,
            "photos": [place for place, one in enumerate(views) if one == view],
            "colour": style.UNKNOWN if view == "unknown" else style.CATEGORIES[number],
        }
        for number, view in enumerate(found)
    ]
    return {"legend": True, "joined": False, "groups": groups}


def _by_answer(shares: Sequence[float | None]) -> dict[str, Any]:
    kinds = {
        "always right": ([share == 1 for share in shares], style.CATEGORIES[0], "circle"),
        "right in some draws": (
            [share is not None and 0 < share < 1 for share in shares],
            style.CATEGORIES[4],
            "diamond",
        ),
        "never right": ([share == 0 for share in shares], style.CATEGORIES[1], "x"),
        "only in galleries": ([share is None for share in shares], style.UNKNOWN, "square"),
    }
    groups = [
        {"name": name, "photos": np.flatnonzero(chosen).tolist(), "colour": colour, "symbol": symbol}
        for name, (chosen, colour, symbol) in reversed(kinds.items())
    ]
    return {"legend": True, "joined": False, "groups": [group for group in groups if group["photos"]]}


def _spokes(plane: Any, middles: Any) -> dict[str, list[float | None]]:
    """Lines from each photo to its middle; None lifts the pen."""
    across: list[float | None] = []
    along: list[float | None] = []
    for (x, y), (a, b) in zip(plane, middles, strict=True):
        across += [round(float(a), 2), round(float(x), 2), None]
        along += [round(float(b), 2), round(float(y), 2), None]
    return {"x": across, "y": along}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) for value in values]
