"""Photos sorted into folders, one per identity: plain, or below train/ val/ test/ query0../ gallery0../.

* An identity is the name of its folder, wherever it stands; positions in a listing never become labels. Re-numbering
  the folders of query and gallery apart makes them different people.
* A folder that says `unknown` or the like (`data/unlabelled`) names nobody; it may lie beside splits too.
* `gallery3_all` is the merged gallery of draw 3 and replaces `gallery3`, which would be an easier one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.sources.files import files_below
from handreid.data.tables import listed
from handreid.data.unlabelled import named, note, says_nothing
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


def folders(root: Path | str) -> Manifest:
    """`root/<identity>/*.jpg`, or `root/<split>/<identity>/*.jpg`; deeper folders belong to their identity.

    Raises ManifestError for photos that lie beside the identity folders, and for folders that are no split among some
    that are.
    """
    root = Path(root)
    files = files_below(root)
    if not files.photos:
        raise ManifestError(f"{root}: no photos below this folder")
    tops = sorted({path.split("/")[0] for path in files.photos if "/" in path})
    places = {top: place for top in tops if (place := _place(top))}
    _all_in_folders(root, files.photos, places)
    if not places:
        table = _table(files.photos, {})
        unlabelled = note(_folder_names(files.photos, {}), "folder")
        return Manifest(table, root.absolute(), "folders", (_count(table), *unlabelled, *files.note()))
    strangers = [top for top in tops if top not in places and not says_nothing(top)]
    if strangers:
        raise ManifestError(
            f"{root}: {listed(places)} are splits, {listed(strangers)} are not; take the latter out, or name them "
            "train, val, test, queryN, galleryN, galleryN_all or distractors"
        )
    dropped = _replaced(list(places.values()))
    kept = [path for path in files.photos if path.split("/")[0] not in dropped]
    table = _table(kept, places)
    counts = [f"{name}: {_count(part)}" for name, part in _by_top(table)]
    reasons = [f"{name} left out: {why}" for name, why in dropped.items()]
    unlabelled = note(_folder_names(kept, places), "folder")
    return Manifest(table, root.absolute(), "folders", (*counts, *reasons, *unlabelled, *files.note()))


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

    `gallery3_all` contains `gallery3`. `train_all` is what train and val were taken from.
    """
    named = {(place.split, place.draw, place.whole): place.folder for place in places}
    dropped = {}
    for (split, draw, whole), folder in named.items():
        other = named.get((split, draw, not whole))
        if other and whole and split in ("train", "test", "validation"):
            dropped[folder] = f"its photos are those of {other} and the other parts"
        if other and not whole and split in _DRAWN:
            dropped[folder] = f"{other} is the merged one"
    return dropped


def _all_in_folders(root: Path, photos: Sequence[str], places: dict[str, _Place]) -> None:
    flat = [path for path in photos if path.count("/") < (2 if path.split("/")[0] in places else 1)]
    if flat:
        raise ManifestError(
            f"{root}: {len(flat)} photos lie beside the identity folders, not in one ({listed(flat, 3)}); put each "
            "photo into a folder named after its identity, or name the identities in a CSV file and use "
            "`handreid data prepare csv`"
        )


def _table(photos: Sequence[str], places: dict[str, _Place]) -> pl.DataFrame:
    parts = [path.split("/") for path in photos]
    at = [places.get(part[0]) for part in parts]
    return pl.DataFrame(
        {
            "path": list(photos),
            "subject": pl.Series(named(_folder_names(photos, places)), dtype=pl.String),
            "split": pl.Series([place.split if place else None for place in at], dtype=pl.String),
            "draw": pl.Series([place.draw if place else None for place in at], dtype=pl.Int64),
            "origin": [path.rsplit("/", 1)[0] for path in photos],
        }
    )


def _folder_names(photos: Sequence[str], places: dict[str, _Place]) -> list[str]:
    parts = [path.split("/") for path in photos]
    return [part[1] if part[0] in places else part[0] for part in parts]


def _count(table: pl.DataFrame) -> str:
    known = table["subject"].drop_nulls()
    return f"{len(known):,} photos of {known.n_unique():,} identities"


def _by_top(table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    top = pl.col("path").str.split("/").list.first().alias("top")
    return [(str(key[0]), part) for key, part in table.with_columns(top).group_by("top", maintain_order=True)]
