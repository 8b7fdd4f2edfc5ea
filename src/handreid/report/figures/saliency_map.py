"""Maps of single photos as a figure: which parts of each made its embedding.

* Photos are named by the caller, or drawn from the test photos by a seed, one per subject before a second of any. They
  are not selected by their maps.
* Each map has its own scale: it compares parts of one photo, not photos with each other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from handreid.evaluation.embed import provenance, select_photos
from handreid.explain.saliency import Method, caveat, saliency
from handreid.files import check_writable
from handreid.inference import load_embedder
from handreid.progress import NullProgress, Progress
from handreid.report.figures import style
from handreid.report.figures.overlay import overlay
from handreid.report.photos.lookup import LoadedPhotos, choose, find, show
from handreid.runs.folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _LARGEST, _BETWEEN = 11.0, 2.4, 0.25  # inches: width of the page, largest photo, gap between pairs
_HOW_TO_READ = (
    "Left: each photo as the model sees it; right: the map over it. Yellow is the largest value of the photo's own map "
    "and the line is at half of it."
)


def attention_figure(
    run: Run,
    out: Path,
    *,
    photos: Sequence[str] = (),
    count: int = 8,
    data: Path | None = None,
    method: Method = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the figure and its caption, and returns the files.

    Raises DataError if the manifest does not have a named photo, or there is no test photo to draw; WeightsError for
    attention rollout of a ResNet.
    """
    progress = progress or NullProgress()
    check_writable(out, style.FORMATS)
    table = select_photos(run, data=data, part="all" if photos else "test", progress=progress)
    positions = [find(table, name) for name in photos] if photos else choose(table, count, seed).tolist()
    embedder = load_embedder(run)
    loaded = show(table, positions, embedder, progress)
    with progress.step("looking", len(loaded.names), "photos") as advance:
        maps, words = saliency(embedder, loaded.photos, loaded.conditions, method=method)
        advance(len(maps))
    which = (
        "named" if photos else f"drawn from the {len(table.rows):,} test photos (seed {seed}), each person first once"
    )
    title = f"{table.recipe.name}: what its embeddings depend on"
    warning = caveat(embedder, method)
    overlays = [overlay(picture, saliency_map) for picture, saliency_map in zip(loaded.pictures, maps, strict=True)]
    figure = _draw(loaded, overlays, title, [words, warning])
    rows, cols = maps.shape[1:]
    caption = " ".join(
        [
            f"{words[0].upper()}{words[1:]} of {len(loaded.names)} photos, {which}, on a grid of {rows} x {cols}.",
            _HOW_TO_READ,
            warning,
            provenance(table),
            f"Photos: {', '.join(loaded.names)}.",
        ]
    )
    return style.save(figure, out, caption)


def _draw(loaded: LoadedPhotos, overlays: Sequence[Image.Image], title: str, subtitle: list[str]) -> "Figure":
    across = min((4, 3, 2, 1), key=lambda n: (-len(overlays) % n if n > 2 else n < len(overlays), -n))
    down = -(-len(overlays) // across)
    side = min((_WIDTH * 0.94 - _BETWEEN * (across - 1)) / (2 * across), _LARGEST)
    shape = loaded.pictures[0].height / loaded.pictures[0].width
    head, foot, line = 1.05, 0.1, 0.45
    height = head + down * (side * shape + line) + foot
    figure = style.new_figure("", [], width=_WIDTH, height=height)
    figure.text(0.03, 1 - 0.30 / height, title, size=16, weight="bold", color=style.INK, va="top")
    for number, text in enumerate(subtitle):
        figure.text(0.03, 1 - (0.60 + 0.2 * number) / height, text, size=9, color=style.QUIET, va="top")
    for number, (picture, laid) in enumerate(zip(loaded.pictures, overlays, strict=True)):
        row, col = divmod(number, across)
        x = 0.03 * _WIDTH + col * (2 * side + _BETWEEN)
        bottom = height - head - row * (side * shape + line) - side * shape
        for place, image in enumerate((picture, laid)):
            box = ((x + place * side) / _WIDTH, bottom / height, side / _WIDTH, side * shape / height)
            draw_on(figure, box, image)
        figure.text(x / _WIDTH, (bottom - 0.05) / height, loaded.label(number), size=6.5, color=style.QUIET, va="top")
    return figure


def draw_on(figure: "Figure", box: tuple[float, float, float, float], picture: Image.Image) -> "Axes":
    """Draws a picture in a thin frame; `box` is in fractions of the page."""
    axes = figure.add_axes(box)
    axes.imshow(np.asarray(picture))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(style.HAIR)
    return axes
