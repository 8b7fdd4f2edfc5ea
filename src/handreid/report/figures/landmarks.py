"""Photos with the points of their hand, and the hand turned upright and aligned.

Whose hand it is, nobody knows here: photos are files, or rows of a manifest whose landmarks are drawn as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from PIL import Image

from handreid.data.landmark_columns import pixel_aspects, read_landmarks
from handreid.data.landmark_search import see
from handreid.data.manifest import Manifest
from handreid.data.names import printable
from handreid.errors import DataError
from handreid.files import check_writable
from handreid.landmarks import BONES, HandLandmarks, Landmarker
from handreid.landmarks.align import RIGID, Size, align_hand, apply, upright
from handreid.landmarks.quality import HandQuality, hand_quality
from handreid.landmarks.warp import Fill, warp
from handreid.progress import NullProgress, Progress
from handreid.report.figures import style
from handreid.report.figures.quality_strip import described, quality_strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _SIDE, _GAP, _LINE = 11.0, 3.3, 0.18, 1.16  # inches: page, largest picture, gap, what a row has beneath
_HEAD, _FOOT = 1.85, 0.02
_ALIGNED = 448  # pixels
_COLUMNS = ("as taken", "upright", "aligned")
_SUBTITLE = (
    "Points of every hand found, joined along the fingers; rings are the five points that the alignment uses.",
    "Upright is turned and centred at the same size; aligned is also scaled, wrist and knuckles at fixed places.",
    "Quality is 0 to 100: the product of the bars, each from useless (empty) to no fault (full).",
)
_PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")  # thumb to little finger


@dataclass(frozen=True, eq=False)
class Shown:
    """A photo as it was taken, and its hands in pixels of `picture`, the largest first. `taken` are width and height at
    full size; `worn` says what the manifest knows of accessories.
    """

    name: str
    picture: Image.Image
    hands: tuple[HandLandmarks, ...]
    taken: Size
    worn: str = ""

    @cached_property
    def quality(self) -> HandQuality | None:
        """Of the largest hand."""
        if not self.hands:
            return None
        hand = self.hands[0]
        scale = np.array(self.taken) / self.picture.size
        return hand_quality(self.picture, replace(hand, points=hand.points * scale), self.taken)


def landmarks_figure(
    photos: Sequence[str],
    out: Path,
    *,
    landmarker: Landmarker | None = None,
    manifest: Manifest | None = None,
    fill: Fill = "border",
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the figure and its caption, and returns the files.

    With a landmarker, `photos` are files and hands are searched; with a manifest they are paths in it, whose landmarks
    are drawn. Raises DataError for a photo that the manifest does not have or has no landmarks of, PhotoError for one
    that cannot be decoded.
    """
    check_writable(out, style.FORMATS)
    progress = progress or NullProgress()
    shown = []
    with progress.step("finding hands", len(photos), "photos") as advance:
        load = _from_manifest(manifest) if manifest is not None else _searching(landmarker)
        for name in photos:
            shown.append(load(name))
            advance(1)
    by = "the landmarks of the manifest" if manifest is not None else "MediaPipe's Hand Landmarker"
    caption = " ".join(
        [
            f"Points by {by}; outside the photo: {fill}.",
            *(f"{photo.name}: {_words(photo)}; {described(photo.quality)}." for photo in shown),
        ]
    )
    return style.save(_draw(shown, fill), out, caption)


def _searching(landmarker: Landmarker | None) -> Callable[[str], Shown]:
    if landmarker is None:
        raise DataError("neither a landmarker nor a manifest with landmarks is given")
    find = landmarker

    def search(name: str) -> Shown:
        seen = see(Path(name))
        hands = sorted(find(np.asarray(seen.picture)), key=lambda hand: -hand.size)
        return Shown(printable(name), seen.picture, tuple(hands), seen.file_size)

    return search


def _from_manifest(manifest: Manifest) -> Callable[[str], Shown]:
    rows = {path: row for row, path in enumerate(manifest.table["path"])}
    hands, aspects, paths = read_landmarks(manifest), pixel_aspects(manifest), manifest.paths()

    def look_up(name: str) -> Shown:
        row = rows.get(name)
        if row is None:
            raise DataError(f"{name} is not a path in the manifest; give it as the column path has it")
        hand = hands[row]
        if hand is None:
            raise DataError(f"{name} has no landmarks in the manifest; run `handreid data landmarks` on it")
        seen = see(paths[row], aspects[row])
        taken = (seen.file_size[0] * aspects[row], seen.file_size[1])
        at_size = replace(hand, points=hand.points * np.array(seen.picture.size) / taken)
        return Shown(printable(name), seen.picture, (at_size,), taken, _worn(manifest, row))

    return look_up


def _worn(manifest: Manifest, row: int) -> str:
    """What 11k Hands and its like say of accessories and nail polish."""
    known = [name for name in ("accessories", "nail_polish") if manifest.table.schema.get(name, pl.String).is_integer()]
    return ", ".join(name.replace("_", " ") for name in known if manifest.table[name][row] == 1)


def _words(photo: Shown) -> str:
    if not photo.hands:
        return "no hand found"
    hand = photo.hands[0]
    sure = "" if hand.handedness_score is None else f" {hand.handedness_score:.2f}"
    side = f", {hand.handedness}{sure}" if hand.handedness else ""
    more = f"; {len(photo.hands)} hands, the largest is aligned" if len(photo.hands) > 1 else ""
    worn = f"; {photo.worn}, as the manifest says" if photo.worn else ""
    return f"score {hand.score:.2f}{side}{more}{worn}"


def _draw(photos: Sequence[Shown], fill: Fill) -> "Figure":
    height = _HEAD + len(photos) * (_SIDE + _LINE) + _FOOT
    figure = style.new_figure("Hands and their landmarks", _SUBTITLE, width=_WIDTH, height=height)
    for column, title in enumerate(_COLUMNS):
        x = (0.33 + column * (_SIDE + _GAP)) / _WIDTH
        figure.text(x, 1 - (_HEAD - 0.06) / height, title, size=10, weight="bold", color=style.INK, va="bottom")
    for row, photo in enumerate(photos):
        top = height - _HEAD - row * (_SIDE + _LINE)
        for column, (picture, hands) in enumerate(_pictures(photo, fill)):
            left = 0.33 + column * (_SIDE + _GAP)
            axes = figure.add_axes((left / _WIDTH, (top - _SIDE) / height, _SIDE / _WIDTH, _SIDE / height))
            _show(axes, picture, hands)
        quality_strip(figure, photo.quality, 0.33, top - _SIDE - 0.14, 3 * _SIDE + 2 * _GAP)
        text = f"{photo.name}: {_words(photo)}"
        figure.text(0.33 / _WIDTH, (top - _SIDE - 0.74) / height, text, size=8, color=style.QUIET, va="top")
    return figure


def _pictures(photo: Shown, fill: Fill) -> list[tuple[Image.Image, list[HandLandmarks]]]:
    pictures = [(photo.picture, list(photo.hands))]
    if photo.hands:
        hand = photo.hands[0]
        reach = 1.25 * max(float(np.ptp(hand.points, axis=0).max()), 2.4 * hand.size)
        side = max(2, round(reach))
        for transform, pixels in ((upright(hand, side, side), side), (align_hand(hand, _ALIGNED), _ALIGNED)):
            moved = HandLandmarks(apply(transform, hand.points), hand.score, hand.handedness)
            pictures.append((warp(photo.picture, transform, (pixels, pixels), fill=fill), [moved]))
    return pictures


def _show(axes: "Axes", picture: Image.Image, hands: Sequence[HandLandmarks]) -> None:
    width, height = picture.size
    axes.imshow(
        np.asarray(picture), extent=(0, width, height, 0)
    )  # a pixel's corner is at a whole number, as in points
    for hand in hands:
        for start, end in BONES:
            x, y = hand.points[[start, end]].T
            axes.plot(x, y, color=_PALETTE[(end - 1) // 4], linewidth=1.4, solid_capstyle="round", zorder=2)
        x, y = hand.points.T
        axes.scatter(x, y, s=9, color="white", edgecolors=style.INK, linewidths=0.6, zorder=3)
        x, y = hand.points[list(RIGID)].T
        axes.scatter(x, y, s=42, facecolors="none", edgecolors="white", linewidths=2.4, zorder=4)
        axes.scatter(x, y, s=42, facecolors="none", edgecolors=style.INK, linewidths=1.0, zorder=4)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], anchor="NW")
    for spine in axes.spines.values():
        spine.set_color(style.HAIR)
