"""Photos sorted into folders, one per identity: plain, or below train/ val/ test/ query0../ gallery0../.

* An identity is the name of its folder, in every split; positions in a listing never become labels. If the folders of
  query and gallery are numbered separately, they are different people.
* A folder called `unknown` or the like (`data/unlabelled`) has no identity; it may lie beside splits too.
* `gallery3_all` is the merged gallery of draw 3 and replaces `gallery3`, which would be easier.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.names import nfc
from handreid.data.sources.files import Files, files_below
from handreid.data.tables import format_list
from handreid.data.unlabelled import known_subjects, note, says_nothing
from handreid.errors import ManifestError

_SPLIT = re.compile(
    r"(?P<name>train|val|valid|validation|test|query|gallery|distractors?)(?P<draw>\d{1,6})?(?P<all>_all)?",
    re.IGNORECASE,
)
_NAMES = {"val": "validation", "valid": "validation", "distractors": "distractor"}
_DRAWN = ("query", "gallery", "distractor")


@dataclass(frozen=True)
class _Place:
    """What the name of a top folder says: `gallery3_all` is gallery, draw 3, whole."""

    folder: str
    split: str
    draw: int | None
    whole: bool


def folders(root: Path | str, allow_missing: bool = False) -> Manifest:
    """`root/<identity>/*.jpg`, or `root/<split>/<identity>/*.jpg`; deeper folders belong to their identity.

    Raises ManifestError for photos that lie beside the identity folders, for other folders beside splits, for what
    cannot be read, and for broken links, which `allow_missing` leaves out.
    """
    root = Path(root)
    files = files_below(root, _memory)
    tops = sorted({path.split("/")[0] for path in files.photos if "/" in path})
    places = {top: place for top in tops if (place := _place(top))}
    linked = files.without_dangling(allow_missing)
    if not files.photos:
        raise ManifestError("\n".join([f"{root}: no photos below this folder", *linked, *files.notes()]))
    _all_in_folders(root, files.photos, places)
    not_splits = [top for top in tops if places and top not in places and not says_nothing(top)]
    if not_splits:
        raise ManifestError(
            f"{root}: {format_list(places)} are splits, {format_list(not_splits)} are not; move the latter "
            "away, or rename them "
            "to train, val, test, queryN, galleryN, galleryN_all or distractors"
        )
    dropped = _replaced(list(places.values()))
    once, again = files.once(lambda path: _whose(path, places))
    table = _table([path for path in once if path.split("/")[0] not in dropped], places)
    counts = [f"{name}: {_count(part)}" for name, part in _by_top(table)] if places else [_count(table)]
    reasons = [f"{name} left out: {why}" for name, why in dropped.items()]
    lost = files.lost(_persons(files, places, dropped), files.photos)
    unlabelled = note([_whose(path, places)[1] for path in once if path.split("/")[0] not in dropped], "folder")
    notes = (*counts, *reasons, *lost, *unlabelled, *linked, *again, *files.notes())
    return Manifest(table, root.absolute(), "folders", notes)


def _memory(top: str) -> str:
    """The draws of a prepared folder may link to the same folders, so each draw has its own key."""
    place = _place(top)
    return top if place and place.split in _DRAWN else ""


def _whose(path: str, places: dict[str, _Place]) -> tuple[_Place | None, str]:
    """The split folder of a photo, and the identity that its folder names."""
    parts = path.split("/")
    place = places.get(parts[0])
    return place, nfc(parts[1] if place else parts[0])


def _persons(files: Files, places: dict[str, _Place], dropped: Collection[str]) -> list[str]:
    """Folders that name an identity, with or without photos in them."""
    paths = []
    for path in (*files.folders, *files.links, *files.dangling):
        parts = path.split("/")
        depth = 2 if parts[0] in places else 1
        if path and len(parts) == depth and parts[0] not in dropped and not says_nothing(parts[-1]):
            paths.append(path)
    return paths


def _place(top: str) -> _Place | None:
    match = _SPLIT.fullmatch(top)
    if not match:
        return None
    name = match["name"].lower()
    split = _NAMES.get(name, name)
    if match["draw"] and split not in _DRAWN:
        return None
    return _Place(top, split, int(match["draw"]) if match["draw"] else None, bool(match["all"]))


def _replaced(places: Sequence[_Place]) -> dict[str, str]:
    """Folders that hold the same photos as another one, and the reason for leaving them out.

    `gallery3_all` contains `gallery3`. `train_all` contains train and val.
    """
    dropped = {}
    for place in places:
        twins = [
            candidate.folder
            for candidate in places
            if (candidate.split, candidate.draw, candidate.whole) == (place.split, place.draw, not place.whole)
        ]
        if twins and place.whole and place.split in ("train", "test", "validation"):
            dropped[place.folder] = f"its photos are those of {twins[0]} and the other parts"
        if twins and not place.whole and place.split in _DRAWN:
            dropped[place.folder] = f"{twins[0]} is the merged one"
    return dropped


def _all_in_folders(root: Path, photos: Sequence[str], places: dict[str, _Place]) -> None:
    flat = [path for path in photos if path.count("/") < (2 if path.split("/")[0] in places else 1)]
    if flat:
        raise ManifestError(
            f"{root}: {len(flat)} photos are beside the identity folders instead of in one "
            f"({format_list(flat, 3)}); move "
            "each photo into a folder named after its identity, or list the identities in a CSV file and use "
            "`handreid data prepare csv`"
        )


def _table(photos: Sequence[str], places: dict[str, _Place]) -> pl.DataFrame:
    whose = [_whose(path, places) for path in photos]
    return pl.DataFrame(
        {
            "path": list(photos),
            "subject": pl.Series(known_subjects([identity for _, identity in whose]), dtype=pl.String),
            "split": pl.Series([place.split if place else None for place, _ in whose], dtype=pl.String),
            "draw": pl.Series([place.draw if place else None for place, _ in whose], dtype=pl.Int64),
            "origin": [path.rsplit("/", 1)[0] for path in photos],
        }
    )


def _count(table: pl.DataFrame) -> str:
    subjects = table["subject"].drop_nulls()
    return f"{len(subjects):,} photos of {subjects.n_unique():,} identities"


def _by_top(table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    top = pl.col("path").str.split("/").list.first().alias("top")
    return [(str(key[0]), part) for key, part in table.with_columns(top).group_by("top", maintain_order=True)]
