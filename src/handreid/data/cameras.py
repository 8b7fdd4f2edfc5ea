"""The rule of Market-1501 and DukeMTMC: a gallery photo of the query's identity and camera is no answer.

* Two photos that one camera took within seconds match by their background and light. Such a photo is neither a right
  nor a wrong answer: it is left out of that query's ranking, and stays in the gallery of all other queries.
* A query whose identity is in the gallery from its own camera only has no right answer. It is counted as
  `unanswerable`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from handreid.data.manifest import Manifest
from handreid.data.tables import format_list
from handreid.draw import Draw
from handreid.errors import ProtocolError

Cameras = Literal["ignore", "cross"]
_IGNORED = (
    "cameras: ignore; the manifest gives cameras, and a photo from the query's own camera may be its right answer "
    "(--cameras cross leaves those out)"
)


def taken_by(
    manifest: Manifest, cameras: Cameras, draws: Mapping[str, Sequence[Draw]], labels: Sequence[str]
) -> tuple[tuple[str | None, ...] | None, list[str]]:
    """The camera of every row if `cameras` is "cross", else None; and notes.

    `draws` by purpose, "test" first; `labels` by row. Raises ProtocolError where the manifest lacks a camera that is
    needed, and where no query has a right answer left.
    """
    row_cameras = manifest.table["camera"].to_list()
    if cameras == "ignore":
        return None, [_IGNORED] if any(row_cameras) else []
    _check_known(manifest, row_cameras, [draw for group in draws.values() for draw in group], labels)
    lost = []
    for purpose, group in draws.items():
        answerable = sum(int(_answerable(draw, row_cameras, labels).sum()) for draw in group)
        queries = sum(len(draw.query) for draw in group)
        if not answerable:
            raise ProtocolError(
                f"cameras: cross leaves no {purpose} query with a right answer: all gallery photos of a query's "
                "identity are from the query's own camera; choose cameras: ignore, or another split"
            )
        lost += [f"{queries - answerable:,} of {queries:,} {purpose} queries"] * (answerable < queries)
    loss = f"; {' and '.join(lost)} (of all draws) have no right answer" if lost else ""
    return tuple(row_cameras), [f"cameras: cross; gallery photos of the query's identity and camera are ignored{loss}"]


def _check_known(
    manifest: Manifest, cameras: Sequence[str | None], draws: Sequence[Draw], labels: Sequence[str]
) -> None:
    """Raises ProtocolError. Distractors need no camera: they are never of a query's identity."""
    identities = {labels[row] for draw in draws for row in draw.query}
    parts = [part for draw in draws for part in (draw.query, draw.gallery)]
    used = {int(row) for part in parts for row in part if labels[row] in identities}
    missing = sorted(row for row in used if not cameras[row])
    if missing:
        paths = manifest.table["path"]
        extent = f"gives none of its {len(used):,} photos one" if len(missing) == len(used) else "lacks some"
        raise ProtocolError(
            f"cameras: cross needs the camera of every test and validation photo, but the manifest {extent}: "
            f"{len(missing):,} without, such as {format_list((paths[row] for row in missing), 3)}. Fill in the column "
            "'camera', or choose cameras: ignore"
        )


def _answerable(draw: Draw, cameras: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Per query, whether its identity is in the gallery from another camera."""
    enrolled: dict[str, set[str | None]] = {}
    for row in draw.gallery:
        enrolled.setdefault(labels[row], set()).add(cameras[row])
    return np.array([bool(enrolled.get(labels[row], set()) - {cameras[row]}) for row in draw.query], np.bool_)
