"""PolyU Hand Dorsal (HD): folders `1-501` and `502-712` with files `ID_n.jpg`.

The photos of `502-712` are distractors in every gallery, under id + 1000, so that they never share an identity with the
first folder. All photos show the back of a hand; the file names do not state the side, so it stays empty.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.sources.files import Files, files_below
from handreid.data.tables import format_list
from handreid.errors import ManifestError

PEOPLE, DISTRACTORS = "1-501", "502-712"
DISTRACTOR_OFFSET = 1000
_NAME = re.compile(r"(?P<id>\d{1,9})_(?P<photo>\d+)\.\w+")


def hd(root: Path | str, allow_missing: bool = False) -> Manifest:
    """The photos of both folders, which may lie anywhere below `root`, at any depth.

    Raises ManifestError for a missing folder, for names that are not `ID_n`, for what cannot be read, and for broken
    links, which `allow_missing` leaves out.
    """
    root = Path(root)
    files = files_below(root)
    linked = files.without_dangling(allow_missing)
    folder = {path: _folder(path) for path in files.photos}
    for name in (PEOPLE, DISTRACTORS):
        if name not in folder.values():
            tops = sorted({path.split("/")[0] for path in (*files.photos, *files.unread, *files.others)})
            raise ManifestError(
                f"{root}: no folder {name!r} with photos; found {format_list(tops) or 'nothing'}. "
                "Both folders of the data set are needed: without the distractors the gallery would be easier."
            )
    once, again = files.once(lambda path: (folder[path], path.rsplit("/", 1)[-1].split("_")[0]))
    photos = [path for path in once if folder[path]]
    ids = _ids(root, photos)
    extra = [folder[path] == DISTRACTORS for path in photos]
    subjects = [str(number + DISTRACTOR_OFFSET * more) for number, more in zip(ids, extra, strict=True)]
    _no_collision(root, subjects, extra)
    table = pl.DataFrame(
        {
            "path": photos,
            "subject": subjects,
            "aspect": ["dorsal"] * len(photos),
            "split": pl.Series(["distractor" if more else None for more in extra], dtype=pl.String),
            "origin": photos,
        }
    )
    notes = (*_counts(subjects, extra), *_elsewhere(files.photos, folder), *_lost(files, photos))
    return Manifest(table, root.absolute(), "hd", (*notes, *linked, *again, *files.notes()))


def _folder(path: str) -> str | None:
    return next((part for part in path.split("/")[:-1] if part in (PEOPLE, DISTRACTORS)), None)


def _ids(root: Path, photos: Sequence[str]) -> list[int]:
    matches = [_NAME.fullmatch(path.rsplit("/", 1)[-1]) for path in photos]
    wrong = [path for path, match in zip(photos, matches, strict=True) if match is None]
    if wrong:
        raise ManifestError(f"{root}: {len(wrong)} photos are not named ID_n, such as 12_3.jpg: {format_list(wrong)}")
    return [int(match["id"]) for match in matches if match is not None]


def _no_collision(root: Path, subjects: Sequence[str], extra: Sequence[bool]) -> None:
    people = {subject for subject, more in zip(subjects, extra, strict=True) if not more}
    collisions = people & {subject for subject, more in zip(subjects, extra, strict=True) if more}
    if collisions:
        raise ManifestError(
            f"{root}: ids of {PEOPLE} collide with ids of {DISTRACTORS} + {DISTRACTOR_OFFSET}: "
            f"{format_list(sorted(collisions))}"
        )


def _counts(subjects: Sequence[str], extra: Sequence[bool]) -> tuple[str, ...]:
    parts = []
    for name, is_extra in ((PEOPLE, False), (DISTRACTORS, True)):
        ids = [subject for subject, more in zip(subjects, extra, strict=True) if more == is_extra]
        parts.append(f"{name}: {len(ids):,} photos of {len(set(ids)):,} ids")
    return (*parts, f"ids of {DISTRACTORS} are counted from {DISTRACTOR_OFFSET} on, as distractors in every gallery")


def _elsewhere(photos: Sequence[str], folder: dict[str, str | None]) -> tuple[str, ...]:
    paths = [path for path in photos if folder[path] is None]
    return (f"{len(paths)} photos in other folders left out: {format_list(paths, 3)}",) if paths else ()


def _lost(files: Files, photos: Sequence[str]) -> tuple[str, ...]:
    """A note on ids whose photos are all in formats that are not read."""
    readable = {_person(path) for path in photos}
    unreadable = sorted({person for path in files.unread if (person := _person(path)) and person not in readable})
    listing = format_list(f"{number} of {folder}" for folder, number in unreadable)
    return (f"{len(unreadable)} ids are left out, as none of their photos exists: {listing}",) if unreadable else ()


def _person(path: str) -> tuple[str, int] | None:
    folder, match = _folder(path), _NAME.fullmatch(path.rsplit("/", 1)[-1])
    return (folder, int(match["id"])) if folder and match else None
