"""Match maps as a figure: which parts of a query and of an answer make their embeddings similar.

* Without a named answer, the nearest photo of the first draw's gallery is shown, and below it the best right answer if
  that is another photo. All rows have one scale, so that colours can be compared.
* A photo without a label may be the query or the answer; the figure then does not say whether it is the same person.
* Orange parts make the two photos similar, blue ones make them differ; lines join corresponding parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from handreid.data.unlabelled import UNKNOWN
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable, embed_known, provenance, select_photos, split_for
from handreid.explain.saliency import CAVEATS, Match, match_maps
from handreid.files import check_writable
from handreid.inference import load_embedder
from handreid.models.embedder import Embedder
from handreid.progress import NullProgress, Progress
from handreid.report.figures import style
from handreid.report.figures.overlay import colours, overlay
from handreid.report.figures.saliency_map import draw_on
from handreid.report.photos.lookup import LoadedPhotos, find, show
from handreid.runs.folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _SIDE, _GAP = 11.0, 2.35, 0.85  # inches: width of the page, a photo, gap between query and answer
_BEND = 0.09  # curvature of the lines between parts, so that lines of one row can be distinguished
_HOW_TO_READ = (
    "From the middle outwards: each photo with its map, then as the model sees it. Orange: the cosine falls if that "
    "part is blurred; blue: it rises. The line is at half of the strongest colour, and all rows have one scale. "
    "Numbered lines join parts whose blurring changes both embeddings most similarly."
)


@dataclass(frozen=True)
class Answer:
    """A photo by its position in the table, and how it was selected."""

    photo: int
    origin: str


def match_figure(
    run: Run,
    out: Path,
    query: str,
    gallery: str | None = None,
    *,
    data: Path | None = None,
    flip_tta: bool | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the figure and its caption, and returns the files.

    Raises DataError if the manifest does not have a photo, and without `gallery` also if `query` is neither a query of
    the first draw nor a photo without a label.
    """
    progress = progress or NullProgress()
    check_writable(out, style.FORMATS)
    table = select_photos(run, data=data, flip_tta=flip_tta, progress=progress)
    query_photo = find(table, query)
    embedder = load_embedder(run)
    answers = (
        _default_answers(run, table, query_photo, progress)
        if gallery is None
        else [Answer(find(table, gallery), "Named")]
    )
    loaded = show(table, [query_photo, *(answer.photo for answer in answers)], embedder, progress)
    with progress.step("looking", len(answers), "pairs") as advance:
        matches = []
        for number in range(1, len(loaded.names)):
            matches.append(_match(embedder, loaded, number, flip_tta=table.recipe.evaluate.flip_tta))
            advance(1)
    headings = [f"{answer.origin}: {_relation(loaded, n, table.facts['label'])}" for n, answer in enumerate(answers, 1)]
    figure = _draw(table, loaded, matches, headings)
    return style.save(figure, out, _caption(table, loaded, matches, headings))


def _relation(loaded: LoadedPhotos, number: int, label: str) -> str:
    """Whether a photo shows the query's identity or subject; `UNKNOWN` if one of the two has no label."""
    query, identity = loaded.identities[0], loaded.identities[number]
    if query is None or identity is None:
        return UNKNOWN
    if query == identity:
        return "same identity"
    if loaded.subjects[0] == loaded.subjects[number]:
        return f"another {label} of the same person"
    return "another identity"


def _default_answers(run: Run, table: PhotoTable, query_photo: int, progress: Progress) -> list[Answer]:
    """The nearest photo of the first draw's gallery, and the best right answer if there is one and it is another."""
    gallery = _gallery(run, table, query_photo, progress)
    points = embed_known(run, table.only(np.concatenate([[query_photo], gallery])), progress)
    similarity = points[1:] @ points[0]
    identities = table.table["identity"].to_list()
    order = np.argsort(-similarity, kind="stable")
    right = [
        n for n in order if identities[query_photo] is not None and identities[gallery[n]] == identities[query_photo]
    ]
    answers = [Answer(int(gallery[order[0]]), f"Nearest of {len(gallery):,} in the gallery")]
    if right and right[0] != order[0]:
        rank = int((similarity >= similarity[right[0]]).sum())
        answers.append(Answer(int(gallery[right[0]]), f"Rank {rank:,} of {len(gallery):,}"))
    return answers


def _gallery(run: Run, table: PhotoTable, query_photo: int, progress: Progress) -> Int[np.ndarray, " gallery"]:
    same_manifest = table.manifest.hash == run.facts["manifest_hash"]
    split = split_for(table.recipe, Path(table.facts["manifest"]), is_own=same_manifest, progress=progress)
    path, role = table.table["path"][query_photo], table.table["role"][query_photo]
    if split is not None and role == "unlabelled":
        return split.test[0].gallery
    if split is None or query_photo not in set(split.test[0].query.tolist()):
        inside = (
            "in its gallery" if split and query_photo in set(split.test[0].gallery.tolist()) else f"a photo of {role!r}"
        )
        raise DataError(
            f"{path} is not a query of the first test draw but {inside}: name a second photo to compare it with, or "
            "use "
            f"a query, such as {table.table['path'][int(split.test[0].query[0])] if split else 'one of tested data'}"
        )
    answers: Int[np.ndarray, " gallery"] = split.test[0].gallery[~split.left_out(query_photo, split.test[0].gallery)]
    return answers


def _match(embedder: Embedder, loaded: LoadedPhotos, number: int, *, flip_tta: bool) -> Match:
    pair = [0, number]
    conditions = None if loaded.conditions is None else loaded.conditions[pair]
    return match_maps(embedder, loaded.photos[0], loaded.photos[number], conditions, flip_tta=flip_tta)


def _caption(table: PhotoTable, loaded: LoadedPhotos, matches: Sequence[Match], headings: Sequence[str]) -> str:
    rows = [
        f"{heading}, cosine {match.similarity:.3f}, {name}"
        for heading, match, name in zip(headings, matches, loaded.names[1:], strict=True)
    ]
    return " ".join(
        [
            f"Parts that make the photos similar, by {matches[0].method}. Query {loaded.names[0]}. {'; '.join(rows)}.",
            _HOW_TO_READ,
            CAVEATS["occlusion"],
            provenance(table),
        ]
    )


def _draw(table: PhotoTable, loaded: LoadedPhotos, matches: Sequence[Match], headings: Sequence[str]) -> "Figure":
    shape = loaded.pictures[0].height / loaded.pictures[0].width
    head, line, foot = 0.95, 0.68, 0.70
    height = head + len(matches) * (_SIDE * shape + line) + foot
    figure = style.new_figure("", [], width=_WIDTH, height=height)
    title = f"{table.recipe.name}: which parts make these photos similar"
    figure.text(0.03, 1 - 0.28 / height, title, size=16, weight="bold", color=style.INK, va="top")
    figure.text(0.03, 1 - 0.58 / height, matches[0].method, size=9, color=style.QUIET, va="top")
    scale = max(float(np.abs(side).max()) for match in matches for side in (match.left, match.right)) or 1.0
    for number, (match, text) in enumerate(zip(matches, headings, strict=True), 1):
        top = height - head - (number - 1) * (_SIDE * shape + line)
        _draw_row(figure, loaded, number, match, text, top, scale)
    _draw_key(figure, scale)
    figure.text(0.03, 0.12 / height, CAVEATS["occlusion"], size=7.5, color=style.QUIET, va="bottom")
    return figure


def _draw_row(
    figure: "Figure", loaded: LoadedPhotos, number: int, match: Match, text: str, top: float, scale: float
) -> None:
    height = figure.get_size_inches()[1]
    tall = _SIDE * loaded.pictures[0].height / loaded.pictures[0].width
    figure.text(0.03, (top - 0.02) / height, text, size=11, color=style.INK, va="top", weight="bold")
    bottom = top - 0.27 - tall
    x = 0.03 * _WIDTH
    places = [x, x + _SIDE, x + 2 * _SIDE + _GAP, x + 3 * _SIDE + _GAP]
    pictures = [
        loaded.pictures[0],
        overlay(loaded.pictures[0], match.left, scale=scale, signed=True),
        overlay(loaded.pictures[number], match.right, scale=scale, signed=True),
        loaded.pictures[number],
    ]
    axes = [
        draw_on(figure, (place / _WIDTH, bottom / height, _SIDE / _WIDTH, tall / height), picture)
        for place, picture in zip(places, pictures, strict=True)
    ]
    _join(axes[1], axes[2], match)
    cosine = f"cosine {match.similarity:.3f}"
    figure.text(
        axes[3].get_position().x1, (top - 0.02) / height, cosine, size=11, color=style.INK, va="top", ha="right"
    )
    for place, index in ((places[0], 0), (places[3], number)):
        label = loaded.label(index).replace("\n", "  ")
        figure.text(place / _WIDTH, (bottom - 0.06) / height, label, size=7, color=style.QUIET, va="top")


def _join(left_axes: "Axes", right_axes: "Axes", match: Match) -> None:
    """Numbered lines between corresponding cells, wider where stronger; drawn on the page, above both photos."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.patheffects import Normal, Stroke

    page = left_axes.get_figure(root=True)
    if page is None:
        return
    for number, (cell, other_cell, strength) in enumerate(match.pairs, 1):
        ends = [_middle(*end) for end in ((cell, match.left, left_axes), (other_cell, match.right, right_axes))]
        width = 0.5 + 1.0 * strength / match.pairs[0][2]
        bend = _BEND * (number - (len(match.pairs) + 1) / 2) / len(match.pairs) * 2
        line = FancyArrowPatch(*ends, arrowstyle="-", connectionstyle=f"arc3,rad={bend}", color=style.INK, lw=width)
        line.set_transform(page.transFigure)
        line.set_path_effects([Stroke(linewidth=width + 1.4, foreground="white"), Normal()])
        page.add_artist(line)
        for x, y in ends:
            box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": style.INK, "lw": 0.7}
            mark: dict[str, Any] = {
                "size": 6.5,
                "color": style.INK,
                "ha": "center",
                "va": "center_baseline",
                "zorder": 9,
            }
            page.text(x, y, str(number), bbox=box, **mark)


def _middle(cell: tuple[int, int], values: Float[np.ndarray, "rows cols"], axes: "Axes") -> tuple[float, float]:
    """The centre of a cell, in fractions of the page."""
    box = axes.get_position()
    rows, cols = values.shape
    return box.x0 + (cell[1] + 0.5) / cols * box.width, box.y1 - (cell[0] + 0.5) / rows * box.height


def _draw_key(figure: "Figure", scale: float) -> None:
    height = figure.get_size_inches()[1]
    axes = figure.add_axes((0.05, 0.52 / height, 0.2, 0.1 / height))
    values = np.linspace(-1, 1, 256)[None]
    strength = 0.75 * np.abs(values)[..., None]
    axes.imshow(strength * colours(values, signed=True) + 1 - strength, aspect="auto", extent=(-scale, scale, 0, 1))
    axes.set_yticks([])
    end = f"{scale:.3f}" if scale >= 0.001 else f"{scale:.0e}"
    axes.set_xticks([-scale, 0, scale], [f"-{end}", "0", f"+{end}"])
    axes.tick_params(labelsize=7, colors=style.QUIET, length=2)
    for spine in axes.spines.values():
        spine.set_color(style.HAIR)
    text = (
        "how much the cosine falls if a cell is blurred; lines join parts whose blurring changes both embeddings alike"
    )
    figure.text(0.285, 0.57 / height, text, size=8, color=style.QUIET, va="center")
