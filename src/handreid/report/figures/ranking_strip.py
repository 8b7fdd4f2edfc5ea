"""Ranking strips as a figure: the query, its first ten answers, and marks, frames and colours for right and wrong.

Sizes are in inches. The figure is one pair of axes in inches from the top left, so that photos and text have the same
size for any number of rows.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from handreid.data.tables import format_list
from handreid.data.unlabelled import UNKNOWN
from handreid.errors import DataError
from handreid.files import check_writable
from handreid.progress import Progress
from handreid.report.figures import style
from handreid.report.figures.strip_selection import ONCE, RULES, Hit, Rule, Strip, choose, strip_of
from handreid.report.photos.seen import seen_thumbnails, seen_words
from handreid.report.photos.test_photos import TestPhotos, load_test_photos
from handreid.report.photos.thumbnails import thumbnails
from handreid.runs.folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG = style.CATEGORIES[2], style.CATEGORIES[1]
HEADINGS: dict[Rule, str] = {
    "worst": "Worst: lowest average precision",
    "median": "Median: the middle of all queries by average precision",
    "random": "Random: drawn with a fixed seed",
    "asked": "Given by name",
}
_PIXELS = 180  # of a photo's side
_LEFT, _QUERY, _APART, _CELL, _GAP, _AFTER, _END = 0.34, 0.88, 0.34, 0.68, 0.09, 0.36, 1.12
_ROW, _HEADING, _COLUMNS, _FOOT = 1.20, 0.40, 0.24, 0.20
_SEEN = 0.84  # more of a row, where the model sees other pictures than the photos


def write_strips(
    run: Run,
    out: Path,
    *,
    queries: Sequence[str] = (),
    each: int = 3,
    draw: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Path]:
    """Draws the strips of `queries`, by default of the `each` worst, median and random ones. Returns the files written.

    Raises OutputError if the file cannot be written, DataError if the draw or a query does not exist.
    """
    check_writable(out, style.FORMATS)
    tested = load_test_photos(run, include=queries, progress=progress)
    if queries:
        strips = [strip_of(tested, query, draw=draw) for query in dict.fromkeys(queries)]
    else:
        strips = choose(tested, draw, each, seed=seed)
    if not strips:
        raise DataError(f"no query of draw {draw} has a right answer in its gallery, so there is nothing to show")
    figure = draw_strips(tested, strips, progress)
    return style.save(figure, out, caption(tested, strips, seed))


def draw_strips(tested: TestPhotos, strips: Sequence[Strip], progress: Progress | None = None) -> "Figure":
    top = max(len(strip.hits) for strip in strips)
    groups = [(rule, list(rule_strips)) for rule, rule_strips in groupby(strips, key=lambda strip: strip.rule)]
    draws = sorted({strip.draw for strip in strips})
    subtitle = (
        f"draw {', '.join(map(str, draws))}: {len(tested.query(draws[0])):,} queries, each searched among "
        f"{len(tested.gallery(draws[0])):,} photos; below each answer its cosine similarity"
    )
    lines = [subtitle, *([seen_words(tested.changes_photos)] if tested.changes_photos else [])]
    row = _ROW + (_SEEN if tested.changes_photos else 0)
    width = _across(top) + _AFTER + _CELL + 0.12 + _END
    begin = style.above(lines)
    height = begin + _COLUMNS + sum(_HEADING + row * len(rule_strips) for _, rule_strips in groups) + _FOOT
    figure = style.new_figure(f"{tested.recipe.name}: the first answers", lines, width=width, height=height)
    axes = figure.add_axes((0, 0, 1, 1))
    pictures, seen = _pictures(tested, strips, progress)
    _name_columns(axes, top, begin + _COLUMNS)
    down = begin + _COLUMNS
    for rule, rule_strips in groups:
        _head(axes, HEADINGS[rule], down, width)
        down += _HEADING
        for strip in rule_strips:
            _draw_strip(axes, tested, strip, pictures, down, top)
            _draw_seen(axes, strip, seen, down + _ROW - 0.08, top)
            down += row
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_aspect("auto")
    axes.set_axis_off()
    return figure


def caption(tested: TestPhotos, strips: Sequence[Strip], seed: int = 0) -> str:
    """The figure's caption: what is shown, and by which rule."""
    rules = list(dict.fromkeys(strip.rule for strip in strips))
    draws = sorted({strip.draw for strip in strips})
    selection = "; ".join(
        f"{rule} ({sum(strip.rule == rule for strip in strips)}): {RULES[rule]}"
        + (f" ({seed})" if rule == "random" else "")
        for rule in rules
    )
    unlabelled = (
        f"Query {format_list(tested.names[strip.query] for strip in strips if strip.unlabelled)}: identity "
        "unknown, so no "
        "answer is marked right or wrong; the identity of each answer is below it. "
        if any(strip.unlabelled for strip in strips)
        else ""
    )
    seen = f"In a second line, {seen_words(tested.changes_photos)}. " if tested.changes_photos else ""
    protocol = f"protocol {tested.split.protocol}, identity = {tested.split.label}"
    return (
        f"Ranking strips of the run {tested.recipe.name!r} ({protocol}), test draw {', '.join(map(str, draws))} of "
        f"{len(tested.split.test)} (numbered from 0): n = {len(tested.query(draws[0]))} queries, "
        f"{len(tested.gallery(draws[0]))} photos in the gallery. Each row shows a query (left) and its most similar "
        "gallery photos from rank 1 on, with their cosine similarity; a right answer has a tick and a solid frame, a "
        'wrong one a cross and a dashed frame ("same person": under another label). At the end: the rank of the first '
        f"right answer, and its photo if it is not among those shown. {unlabelled}{seen}Chosen by rule: {selection}"
        + (f"; {ONCE}" if rules != ["asked"] else "")
        + f". Hashes: model {tested.model_hash[:16]}, manifest {tested.manifest.hash[:16]}, draws "
        f"{tested.split.draws_hash[:16]}."
    )


def _across(top: int) -> float:
    """The right end of the last answer, in inches."""
    return _LEFT + _QUERY + _APART + top * (_CELL + _GAP) - _GAP


def _pictures(
    tested: TestPhotos, strips: Sequence[Strip], progress: Progress | None
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The photos; and as the model sees them, where those are other pictures."""
    photos = sorted({photo for strip in strips for photo in (strip.query, *(hit.photo for hit in _hits(strip)))})
    images = thumbnails([tested.paths[photo] for photo in photos], _PIXELS, progress=progress)
    seen = seen_thumbnails(tested, photos, _PIXELS, progress=progress)
    shown = {photo: np.asarray(image) for photo, image in zip(photos, images, strict=True)}
    return shown, {photo: np.asarray(image) for photo, image in zip(photos, seen, strict=False)}


def _hits(strip: Strip) -> list[Hit]:
    return [*strip.hits, *([strip.first] if strip.first else [])]


def _name_columns(axes: "Axes", top: int, down: float) -> None:
    middles = [_LEFT + _QUERY + _APART + rank * (_CELL + _GAP) + _CELL / 2 for rank in range(top)]
    names = {_LEFT + _QUERY / 2: "query", **{x: f"{rank}" for rank, x in enumerate(middles, 1)}}
    for x, name in names.items():
        axes.text(x, down - 0.1, name, size=8, color=style.QUIET, ha="center", va="center")
    axes.text(_across(top) + _AFTER, down - 0.1, "first right answer", size=8, color=style.QUIET, va="center")


def _head(axes: "Axes", text: str, down: float, width: float) -> None:
    axes.plot([_LEFT, width - _LEFT], [down + 0.06, down + 0.06], color=style.HAIR, lw=0.8)
    axes.text(_LEFT, down + 0.22, text, size=9.5, weight="bold", color=style.INK, va="center")


def _draw_strip(
    axes: "Axes", tested: TestPhotos, strip: Strip, pictures: dict[int, np.ndarray], down: float, top: int
) -> None:
    _draw_photo(axes, pictures[strip.query], _LEFT, down, _QUERY)
    _frame(axes, _LEFT, down, _QUERY, style.INK, "-", 1.6)
    _beneath(
        axes,
        UNKNOWN if strip.unlabelled else _short(tested.identities[strip.query]),
        _LEFT + _QUERY / 2,
        down + _QUERY + 0.1,
    )
    level = down + (_QUERY - _CELL) / 2
    x = _LEFT + _QUERY + _APART
    for hit in strip.hits:
        _draw_hit(axes, hit, pictures[hit.photo], x, level)
        if strip.unlabelled:
            _beneath(axes, _short(tested.identities[hit.photo], 13), x + _CELL / 2, level + _CELL + 0.25)
        elif not hit.right and tested.subjects[hit.photo] == tested.subjects[strip.query]:
            _beneath(axes, "same person", x + _CELL / 2, level + _CELL + 0.25)
        x += _CELL + _GAP
    _draw_end(axes, strip, pictures, _across(top) + _AFTER, level)


def _draw_seen(axes: "Axes", strip: Strip, seen: dict[int, np.ndarray], down: float, top: int) -> None:
    """Below the query and every answer what the model sees of it."""
    if not seen:
        return
    _draw_photo(axes, seen[strip.query], _LEFT + (_QUERY - _CELL) / 2, down, _CELL)
    x = _LEFT + _QUERY + _APART
    for hit in strip.hits:
        _draw_photo(axes, seen[hit.photo], x, down, _CELL)
        x += _CELL + _GAP
    if strip.first:
        _draw_photo(axes, seen[strip.first.photo], _across(top) + _AFTER, down, _CELL)


def _draw_end(axes: "Axes", strip: Strip, pictures: dict[int, np.ndarray], x: float, level: float) -> None:
    """The rank of the first right answer, and its photo after a gap if it is not among those shown."""
    middle = level + _CELL / 2
    if strip.first:
        axes.text(x - _AFTER / 2, middle, "···", size=11, color=style.QUIET, ha="center", va="center")
        _draw_hit(axes, strip.first, pictures[strip.first.photo], x, level)
        x += _CELL + 0.16
    rank = f"rank {strip.rank:,}" if strip.rank else "not known" if strip.unlabelled else "none"
    more = f"first of {strip.matches:,} right" if strip.matches > 1 else "" if strip.rank else "in this gallery"
    more = "identity unknown" if strip.unlabelled else more
    axes.text(x, middle - (0.07 if more else 0), rank, size=10, weight="bold", color=style.INK, va="center")
    axes.text(x, middle + 0.1, more, size=6.5, color=style.QUIET, va="center")


def _beneath(axes: "Axes", text: str, x: float, y: float) -> None:
    axes.text(x, y, text, size=6.5, color=style.QUIET, ha="center", va="center")


def _draw_hit(axes: "Axes", hit: Hit, picture: np.ndarray, x: float, y: float) -> None:
    _draw_photo(axes, picture, x, y, _CELL)
    if hit.right is None:
        _frame(axes, x, y, _CELL, style.QUIET, "-", 0.8)
    else:
        colour = RIGHT if hit.right else WRONG
        _frame(axes, x, y, _CELL, colour, "-" if hit.right else (0, (3.0, 1.6)), 2.2 if hit.right else 1.2)
        _mark(axes, x + _CELL - 0.02, y + _CELL - 0.02, colour, right=hit.right)
    text = f"{hit.similarity:.2f}".replace("-", "\u2212")
    axes.text(x + _CELL / 2, y + _CELL + 0.13, text, size=7, color=style.INK, ha="center", va="center")


def _draw_photo(axes: "Axes", picture: np.ndarray, x: float, y: float, side: float) -> None:
    axes.imshow(picture, extent=(x, x + side, y + side, y), interpolation="antialiased", zorder=1)


def _frame(
    axes: "Axes", x: float, y: float, side: float, colour: str, line: "str | tuple[int, tuple[float, ...]]", wide: float
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((x, y), side, side, fill=False, edgecolor=colour, linestyle=line, linewidth=wide, zorder=2)
    )


def _mark(axes: "Axes", x: float, y: float, colour: str, *, right: bool) -> None:
    """A tick or a cross, drawn as lines so that it does not depend on fonts."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((x, y), 0.082, facecolor=colour, edgecolor="white", linewidth=1.0, zorder=3))
    tick = [[(-0.038, 0.004), (-0.01, 0.034), (0.042, -0.034)]]
    cross = [[(-0.03, -0.03), (0.03, 0.03)], [(-0.03, 0.03), (0.03, -0.03)]]
    for stroke in tick if right else cross:
        axes.plot([x + a for a, _ in stroke], [y + b for _, b in stroke], color="white", lw=1.3, zorder=4)


def _short(name: str, limit: int = 22) -> str:
    return name if len(name) <= limit else f"…{name[-limit + 1 :]}"
