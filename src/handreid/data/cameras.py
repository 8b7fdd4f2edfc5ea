"""The rule of Market-1501 and DukeMTMC: a gallery photo of the query's identity and camera is no answer.

* Two photos that one camera took within seconds are found by what else is on them. Such a photo is neither a right nor
  a wrong answer: it is left out of that query's ranking, and stays in the gallery of all others.
* A query whose identity is there from its own camera only has no right answer left. It is counted as `unanswerable`.
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
    """The camera of every row where they count, else None; and what is to be said of it.

    `draws` by what they are for, "test" the first; `labels` by row. Raises ProtocolError where a camera is needed that
    the manifest does not give, and where no query is left with a right answer.
    """
    known = manifest.table["camera"].to_list()
    if cameras == "ignore":
        return None, [_IGNORED] if any(known) else []
    _check_known(manifest, known, [draw for some in draws.values() for draw in some], labels)
    lost = []
    for purpose, some in draws.items():
        left = sum(int(_answerable(draw, known, labels).sum()) for draw in some)
        queries = sum(len(draw.query) for draw in some)
        if not left:
            raise ProtocolError(
                f"cameras: cross leaves no {purpose} query with a right answer: all gallery photos of a query's "
                "identity are from the query's own camera; choose cameras: ignore, or another split"
            )
        lost += [f"{queries - left:,} of {queries:,} {purpose} queries"] * (left < queries)
    told = f"; {' and '.join(lost)} (of all draws) have no right answer" if lost else ""
    return tuple(known), [f"cameras: cross; gallery photos of the query's identity and camera are ignored{told}"]


def _check_known(
    manifest: Manifest, cameras: Sequence[str | None], draws: Sequence[Draw], labels: Sequence[str]
) -> None:
    """Distractors need no camera: they are never of a query's identity."""
    sought = {labels[row] for draw in draws for row in draw.query}
    used = {int(row) for draw in draws for part in (draw.query, draw.gallery) for row in part if labels[row] in sought}
    missing = sorted(row for row in used if not cameras[row])
    if missing:
        paths = manifest.table["path"]
        many = f"gives none of its {len(used):,} photos one" if len(missing) == len(used) else "lacks some"
        raise ProtocolError(
            f"cameras: cross needs the camera of every test and validation photo, but the manifest {many}: "
            f"{len(missing):,} without, such as {format_list((paths[row] for row in missing), 3)}. Fill in the column "
            "'camera', or choose cameras: ignore"
        )


def _answerable(draw: Draw, cameras: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Which queries have their identity in the gallery from another camera."""
    there: dict[str, set[str | None]] = {}
    for row in draw.gallery:
        there.setdefault(labels[row], set()).add(cameras[row])
    return np.array([bool(there.get(labels[row], set()) - {cameras[row]}) for row in draw.query], np.bool_)
