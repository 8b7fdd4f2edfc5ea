"""The page's sections about test photos: rankings, the embedding map, saliency maps, confused identities.

Without photos, names and marks stand for them, and the page contains no pixel and no file name of a photo.
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
from handreid.report.photos.seen import seen_thumbnails, seen_words
from handreid.report.photos.test_photos import TestPhotos
from handreid.report.photos.thumbnails import as_url, columns_of, data_url, sprite, thumbnails
from handreid.runs.results import Evaluation

_STRIP_SIDE, _MIXED_SIDE, _TILE = 96, 176, 56  # pixels
_MOST_ON_MAP = 2000
_METHODS: dict[str, Method] = {"t-SNE": "tsne", "PCA": "pca"}
_MIXED = 9


def sections(
    tested: TestPhotos, displayed: Compared, photos: bool, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None, str | None]:
    """Content for the template, the map's data for the script, and if there is no map, the reason."""
    shots, larger = ThumbnailSet(tested, photos, _STRIP_SIDE), ThumbnailSet(tested, photos, _MIXED_SIDE)
    selected = choose(tested)
    content: dict[str, Any] = {
        "strips": strips(selected, shots, displayed.name),
        "mixed": mixed(tested, larger),
        "looks": None,
    }
    data, problem = None, None
    try:
        content["map"], data = space_map(tested, displayed.evaluation, photos=photos)
    except DataError as error:  # a collapsed model
        content["map"], problem = None, f"There is no map of {displayed.name}: {error}."
    if photos:
        content["looks"] = looks(tested, selected, progress)
    return content, data, problem


class ThumbnailSet:
    """Thumbnails of test photos as data URLs, each made once; none without photos.

    `seen` are those of what the model sees, where that is another picture.
    """

    def __init__(self, tested: TestPhotos, with_photos: bool, side: int) -> None:
        self.tested = tested
        self.with_photos = with_photos
        self.side = side
        self.urls: dict[int, str] = {}
        self.seen: dict[int, str] = {}

    def prepare(self, photos: Sequence[int]) -> None:
        missing = [photo for photo in dict.fromkeys(photos) if photo not in self.urls]
        if self.with_photos and missing:
            images = thumbnails([self.tested.paths[photo] for photo in missing], self.side)
            self.urls |= {photo: data_url(image) for photo, image in zip(missing, images, strict=True)}
            seen = seen_thumbnails(self.tested, missing, self.side)
            self.seen |= {photo: data_url(image) for photo, image in zip(missing, seen, strict=False)}

    def of(self, photo: int) -> dict[str, Any]:
        return {"url": self.urls.get(photo), "seen": self.seen.get(photo), "words": self.words(photo)}

    @property
    def legend(self) -> str:
        """A sentence about the pictures of `seen`, if there are any."""
        preprocessing = self.tested.changes_photos if self.with_photos else None
        if preprocessing is None:
            return ""
        words = seen_words(preprocessing)
        return f" {words[0].upper()}{words[1:]}."

    def words(self, photo: int) -> str:
        identity = self.tested.identities[photo]
        return f"{identity}, {PurePosixPath(self.tested.names[photo]).name}" if self.with_photos else identity


def strips(selected: Sequence[Strip], shots: ThumbnailSet, name: str) -> dict[str, Any]:
    """Ranking strips of the selected queries."""
    shots.prepare([photo for strip in selected for photo in (strip.query, *(hit.photo for _, hit in _hits(strip)))])
    rules = "; ".join(f"{rule}: {words}" for rule, words in RULES.items() if rule != "asked")
    return {
        "caption": f"Queries of {name} in the first draw with their first answers, chosen by rule. {rules}; {ONCE}. A "
        "solid frame with ✓ is the right identity, a dashed frame with ✕ another one; below are rank and cosine "
        "similarity. If the first right answer has a higher rank, it is shown at the end." + shots.legend,
        "rows": [_strip(strip, shots) for strip in selected],
    }


def _strip(strip: Strip, shots: ThumbnailSet) -> dict[str, Any]:
    hits = [
        {"right": hit.right, "rank": rank, "similarity": hit.similarity, "later": hit is strip.first}
        | shots.of(hit.photo)
        for rank, hit in _hits(strip)
    ]
    sentence = f"first right answer at rank {strip.rank}"
    return {"rule": strip.rule, "sentence": sentence, "query": shots.of(strip.query), "hits": hits}


def _hits(strip: Strip) -> list[tuple[int, Hit]]:
    """Answers with their ranks. If the first right one is not among the first ten, it is appended."""
    later = [(strip.rank, strip.first)] if strip.first is not None and strip.rank is not None else []
    return [*enumerate(strip.hits, 1), *later]


def mixed(tested: TestPhotos, shots: ThumbnailSet) -> dict[str, Any] | None:
    """The most confused pairs of identities; None if every first answer is right."""
    pairs = most_confused(tested, top=_MIXED)
    if not pairs:
        return None
    shots.prepare([photo for pair in pairs for photo in (pair.query, pair.hit)])
    return {
        "caption": "Pairs of identities, ordered by how many queries of either had the other as first answer, over all "
        "draws; the photos are the most similar ones of these." + shots.legend,
        "rows": [
            {
                "identity": pair.identity,
                "other": pair.other,
                "wrong": pair.wrong,
                "queries": pair.queries,
                "relation": pair.relation,
                "query": shots.of(pair.query)["url"],
                "hit": shots.of(pair.hit)["url"],
                "query_seen": shots.of(pair.query)["seen"],
                "hit_seen": shots.of(pair.hit)["seen"],
            }
            for pair in pairs
        ],
    }


def space_map(tested: TestPhotos, evaluation: Evaluation, *, photos: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The map's content for the template and data for the script. Raises DataError if all embeddings are equal."""
    selected = _map_photos(tested)
    shares = _right_first(tested, evaluation)
    names, groups = np.unique([tested.identities[photo] for photo in selected], return_inverse=True)
    planes = {name: _plane(tested.embeddings[selected], groups, method) for name, method in _METHODS.items()}
    views = [tested.views[photo] for photo in selected]
    middles = np.array([[planes["t-SNE"]["x"][index], planes["t-SNE"]["y"][index]] for index in range(len(selected))])
    centres = np.stack([middles[groups == group].mean(axis=0) for group in range(len(names))])
    colourings = {
        "identity": _by_identity(names, groups, spread_colours(centres)),
        **({"view": _by_view(views)} if len(set(views)) > 1 else {}),
        "first answer": _by_answer([shares.get(photo) for photo in selected]),
    }
    data: dict[str, Any] = {
        "planes": planes,
        "symbols": [style.MARKS[view][1] for view in views],
        "words": [_words(tested, photo, shares.get(photo), photos) for photo in selected],
        "colourings": colourings,
    }
    content: dict[str, Any] = {
        "planes": list(planes),
        "colourings": list(colourings),
        "caption": _map_caption(tested, selected, photos),
        "sprite": None,
    }
    if photos:
        images = thumbnails([tested.paths[photo] for photo in selected], _TILE)
        content["sprite"] = as_url(*sprite(images))
        data["sprite"] = {"columns": columns_of(len(images))}
    return content, data


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
    """For each query, the share of its draws in which the first answer was right; gallery-only photos are left out."""
    place = {name: index for index, name in enumerate(tested.names)}
    hits: dict[int, list[bool]] = {}
    for draw in evaluation.draws:
        for row, ranks in zip(draw.query, draw.ranks, strict=True):
            if ranks:
                hits.setdefault(place[evaluation.photos[row]], []).append(ranks[0] == 1)
    return {photo: sum(right) / len(right) for photo, right in hits.items()}


def _map_photos(tested: TestPhotos) -> list[int]:
    """All test photos; of more than `_MOST_ON_MAP`, so many, identity by identity in a random order (seed 0)."""
    if len(tested.rows) <= _MOST_ON_MAP:
        return list(range(len(tested.rows)))
    names = np.unique(tested.identities)
    order = {name: place for place, name in enumerate(np.random.default_rng(0).permutation(names))}
    by_identity = sorted(range(len(tested.rows)), key=lambda photo: (order[tested.identities[photo]], photo))
    return sorted(by_identity[:_MOST_ON_MAP])


def _map_caption(tested: TestPhotos, selected: Sequence[int], photos: bool) -> str:
    count = f"{len(selected):,}" + (f" of {len(tested.rows):,}" if len(selected) < len(tested.rows) else "")
    people = len({tested.identities[photo] for photo in selected})
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
    identity_groups = [
        {"name": str(name), "photos": np.flatnonzero(groups == group).tolist(), "colour": colours[group]}
        for group, name in enumerate(names)
    ]
    return {"legend": False, "joined": True, "groups": identity_groups}


def _by_view(views: Sequence[str]) -> dict[str, Any]:
    present = [view for view in style.MARKS if view in views]
    groups = [
        {
            "name": view,
            "photos": [place for place, photo_view in enumerate(views) if photo_view == view],
            "colour": style.UNKNOWN if view == "unknown" else style.CATEGORIES[number],
        }
        for number, view in enumerate(present)
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
        {"name": name, "photos": np.flatnonzero(matching).tolist(), "colour": colour, "symbol": symbol}
        for name, (matching, colour, symbol) in reversed(kinds.items())
    ]
    return {"legend": True, "joined": False, "groups": [group for group in groups if group["photos"]]}


def _spokes(plane: Any, middles: Any) -> dict[str, list[float | None]]:
    """Lines from the centre of each photo's group to the photo; None ends a line."""
    across: list[float | None] = []
    along: list[float | None] = []
    for (x, y), (a, b) in zip(plane, middles, strict=True):
        across += [round(float(a), 2), round(float(x), 2), None]
        along += [round(float(b), 2), round(float(y), 2), None]
    return {"x": across, "y": along}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) for value in values]
