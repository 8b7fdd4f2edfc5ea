"""Why this photo and not that one: which parts of a query and of an answer made them alike, as a figure.

* Without a named answer it is the nearest photo of the first draw's gallery, and below it the right one where that is
  another. Both rows have one scale, so that their colours can be compared.
* A photo of nobody known may be searched for and compared: whether it is the same person, the figure does not say.
* Orange is what makes two photos alike, blue what makes them differ; a line joins parts that take the same away.
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
from handreid.report.photos.lookup import Shown, find, show
from handreid.runs.folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _SIDE, _GAP = 11.0, 2.35, 0.85  # inches: the page, a photo, between the two hands
_BEND = 0.09  # of a line between two parts, so that lines of one row are told apart
_HOW_TO_READ = (
    "From the middle outwards: each photo with its map, then as the model sees it. Orange: the cosine falls if that "
    "part is blurred; blue: it rises. The line is at half of the strongest colour, and all rows have one scale. "
    "Numbered lines join parts whose blurring changes both embeddings most similarly."
)


@dataclass(frozen=True)
class Answer:
    """A photo by its position in the table, and what it is to the query."""

    photo: int
    said: str


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

    Raises DataError for a photo that the manifest does not have and, without `gallery`, for one that is no query of the
    first draw and not of nobody known.
    """
    progress = progress or NullProgress()
    check_writable(out, style.FORMATS)
    known = select_photos(run, data=data, flip_tta=flip_tta, progress=progress)
    asked = find(known, query)
    embedder = load_embedder(run)
    answers = _found(run, known, asked, progress) if gallery is None else [Answer(find(known, gallery), "Named")]
    shown = show(known, [asked, *(answer.photo for answer in answers)], embedder, progress)
    with progress.step("looking", len(answers), "pairs") as advance:
        matches = []
        for number in range(1, len(shown.names)):
            matches.append(_match(embedder, shown, number, flip_tta=known.recipe.evaluate.flip_tta))
            advance(1)
    said = [f"{answer.said}: {_relation(shown, n, known.facts['label'])}" for n, answer in enumerate(answers, 1)]
    figure = _draw(known, shown, matches, said)
    return style.save(figure, out, _caption(known, shown, matches, said))


def _relation(shown: Shown, number: int, label: str) -> str:
    """What is known of a photo and the query: nothing where nobody knows who is on one of them."""
    query, other = shown.identities[0], shown.identities[number]
    if query is None or other is None:
        return UNKNOWN
    if query == other:
        return "same identity"
    if shown.subjects[0] == shown.subjects[number]:
        return f"another {label} of the same person"
    return "another identity"


def _found(run: Run, known: PhotoTable, asked: int, progress: Progress) -> list[Answer]:
    """The nearest of the first draw's gallery, and the right one if it is another and there."""
    gallery = _gallery(run, known, asked, progress)
    points = embed_known(run, known.only(np.concatenate([[asked], gallery])), progress)
    similarity = points[1:] @ points[0]
    identities = known.table["identity"].to_list()
    order = np.argsort(-similarity, kind="stable")
    right = [n for n in order if identities[asked] is not None and identities[gallery[n]] == identities[asked]]
    answers = [Answer(int(gallery[order[0]]), f"Nearest of {len(gallery):,} in the gallery")]
    if right and right[0] != order[0]:
        rank = int((similarity >= similarity[right[0]]).sum())
        answers.append(Answer(int(gallery[right[0]]), f"Rank {rank:,} of {len(gallery):,}"))
    return answers


def _gallery(run: Run, known: PhotoTable, asked: int, progress: Progress) -> Int[np.ndarray, " gallery"]:
    own = known.manifest.hash == run.facts["manifest_hash"]
    split = split_for(known.recipe, Path(known.facts["manifest"]), own=own, progress=progress)
    path, role = known.table["path"][asked], known.table["role"][asked]
    if split is not None and role == "unlabelled":
        return split.test[0].gallery
    if split is None or asked not in set(split.test[0].query.tolist()):
        inside = "in its gallery" if split and asked in set(split.test[0].gallery.tolist()) else f"a photo of {role!r}"
        raise DataError(
            f"{path} is not a query of the first test draw but {inside}: name a second photo to compare it with, or "
            "use "
            f"a query, such as {known.table['path'][int(split.test[0].query[0])] if split else 'one of tested data'}"
        )
    answers: Int[np.ndarray, " gallery"] = split.test[0].gallery[~split.left_out(asked, split.test[0].gallery)]
    return answers


def _match(embedder: Embedder, shown: Shown, number: int, *, flip_tta: bool) -> Match:
    both = [0, number]
    known = None if shown.conditions is None else shown.conditions[both]
    return match_maps(embedder, shown.photos[0], shown.photos[number], known, flip_tta=flip_tta)


def _caption(known: PhotoTable, shown: Shown, matches: Sequence[Match], said: Sequence[str]) -> str:
    rows = [
        f"{one}, cosine {match.similarity:.3f}, {name}"
        for one, match, name in zip(said, matches, shown.names[1:], strict=True)
    ]
    return " ".join(
        [
            f"Parts that make the photos similar, by {matches[0].method}. Query {shown.names[0]}. {'; '.join(rows)}.",
            _HOW_TO_READ,
            CAVEATS["occlusion"],
            provenance(known),
        ]
    )


def _draw(known: PhotoTable, shown: Shown, matches: Sequence[Match], said: Sequence[str]) -> "Figure":
    shape = shown.pictures[0].height / shown.pictures[0].width
    head, line, foot = 0.95, 0.68, 0.70
    height = head + len(matches) * (_SIDE * shape + line) + foot
    figure = style.new_figure("", [], width=_WIDTH, height=height)
    title = f"{known.recipe.name}: which parts make these photos similar"
    figure.text(0.03, 1 - 0.28 / height, title, size=16, weight="bold", color=style.INK, va="top")
    figure.text(0.03, 1 - 0.58 / height, matches[0].method, size=9, color=style.QUIET, va="top")
    scale = max(float(np.abs(side).max()) for match in matches for side in (match.left, match.right)) or 1.0
    for number, (match, text) in enumerate(zip(matches, said, strict=True), 1):
        top = height - head - (number - 1) * (_SIDE * shape + line)
        _draw_row(figure, shown, number, match, text, top, scale)
    _draw_key(figure, scale)
    figure.text(0.03, 0.12 / height, CAVEATS["occlusion"], size=7.5, color=style.QUIET, va="bottom")
    return figure


def _draw_row(figure: "Figure", shown: Shown, number: int, match: Match, text: str, top: float, scale: float) -> None:
    height = figure.get_size_inches()[1]
    tall = _SIDE * shown.pictures[0].height / shown.pictures[0].width
    figure.text(0.03, (top - 0.02) / height, text, size=11, color=style.INK, va="top", weight="bold")
    bottom = top - 0.27 - tall
    left = 0.03 * _WIDTH
    places = [left, left + _SIDE, left + 2 * _SIDE + _GAP, left + 3 * _SIDE + _GAP]
    pictures = [
        shown.pictures[0],
        overlay(shown.pictures[0], match.left, scale=scale, signed=True),
        overlay(shown.pictures[number], match.right, scale=scale, signed=True),
        shown.pictures[number],
    ]
    axes = [
        draw_on(figure, (place / _WIDTH, bottom / height, _SIDE / _WIDTH, tall / height), picture)
        for place, picture in zip(places, pictures, strict=True)
    ]
    _join(axes[1], axes[2], match)
    said = f"cosine {match.similarity:.3f}"
    figure.text(axes[3].get_position().x1, (top - 0.02) / height, said, size=11, color=style.INK, va="top", ha="right")
    for place, one in ((places[0], 0), (places[3], number)):
        label = shown.label(one).replace("\n", "  ")
        figure.text(place / _WIDTH, (bottom - 0.06) / height, label, size=7, color=style.QUIET, va="top")


def _join(left: "Axes", right: "Axes", match: Match) -> None:
    """Numbered lines between corresponding cells, the strongest the widest; drawn on the page, above both photos."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.patheffects import Normal, Stroke

    page = left.get_figure(root=True)
    if page is None:
        return
    for number, (one, other, strength) in enumerate(match.pairs, 1):
        ends = [_middle(*of) for of in ((one, match.left, left), (other, match.right, right))]
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


def _middle(cell: tuple[int, int], of: Float[np.ndarray, "rows cols"], axes: "Axes") -> tuple[float, float]:
    """Of a cell, on the page."""
    box = axes.get_position()
    return box.x0 + (cell[1] + 0.5) / of.shape[1] * box.width, box.y1 - (cell[0] + 0.5) / of.shape[0] * box.height


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
    text = "fall of the cosine if a cell is blurred; lines join parts whose blurring changes both embeddings alike"
    figure.text(0.285, 0.57 / height, text, size=8, color=style.QUIET, va="center")
