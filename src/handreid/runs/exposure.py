"""What a run's weights are exposed to: every photo that trained or validated, by person, view and content.

* A run records it when it starts (`training-photos.json`), with what the runs that it began with recorded. Whatever
  manifest comes later is compared with the record; the one that the run was trained on need not be there any more.
* A run without a record, of an older version, is looked up in its manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handreid.data.manifest import Manifest, read
from handreid.data.photo_hashes import PhotoHash, photo_hashes
from handreid.data.similar_names import likeness
from handreid.data.splits import Split
from handreid.errors import HandreidError, RunError
from handreid.files import read_json, write_json
from handreid.progress import Progress
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run, open_run

RECORD = "training-photos.json"
FORMAT = 2
Role = Literal["train", "validation"]
_OF_ANY_ORIGIN = ("csv", "folders")  # tables that do not say which data set they are of
_FACTS = ("run", "recipe", "dataset", "manifest_hash", "protocol")
_COLUMNS = ("path", "subject", "view", "role", "file", "pixels")


@dataclass(frozen=True)
class ExposedPhoto:
    """A photo that trained or validated. `file` and `pixels` are its hashes; None where it was gone when asked for."""

    path: str
    subject: str
    view: str | None
    role: Role
    file: str | None
    pixels: str | None


@dataclass(frozen=True)
class Exposure:
    """What one run's weights are exposed to: photos that they were trained on, or chosen by."""

    run: str  # name of its folder
    recipe: str
    dataset: str
    manifest_hash: str
    protocol: str
    photos: tuple[ExposedPhoto, ...]

    @cached_property
    def trained(self) -> Mapping[str, tuple[str, ...]]:
        """The views that each person trained in, as far as they are known; by `likeness` of the name."""
        found: dict[str, set[str]] = {}
        for photo in self.photos:
            if photo.role == "train":
                found.setdefault(likeness(photo.subject), set()).update({photo.view} if photo.view else ())
        return {subject: tuple(sorted(views)) for subject, views in found.items()}

    @cached_property
    def chosen_by(self) -> frozenset[str]:
        """People who validated and did not train; by `likeness` of the name."""
        return frozenset({likeness(photo.subject) for photo in self.photos} - self.trained.keys())

    def role_of(self, known: PhotoHash | None, path: str | None) -> Role | None:
        """Of a photo by its content, or by its path where that is one of the same manifest."""
        names = (path, *((known.file, known.pixels) if known else ()))
        return next((role for name in names if name and (role := self._roles.get(name))), None)

    def names_people_of(self, manifest: Manifest) -> bool:
        """Whether people of one name are the same in both."""
        return self.manifest_hash == manifest.hash or same_people(self.dataset, manifest.dataset)

    def only(self, role: Role) -> "Exposure":
        return replace(self, photos=tuple(photo for photo in self.photos if photo.role == role))

    @cached_property
    def _roles(self) -> Mapping[str, Role]:
        """By path, hash of the file and hash of the pixels; a copy of a training photo is of training."""
        found: dict[str, Role] = {}
        for photo in sorted(self.photos, key=lambda one: one.role, reverse=True):
            found |= {name: photo.role for name in (photo.path, photo.file, photo.pixels) if name}
        return found


def same_people(one: str, other: str) -> bool:
    """Whether people of one name may be the same in manifests of these data sets."""
    return one == other or one in _OF_ANY_ORIGIN or other in _OF_ANY_ORIGIN


def exposure_of(
    material: RunDataset,
    *,
    run: str = "this run",
    recipe: str = "",
    rows: Mapping[int, Role] | None = None,
    progress: Progress | None = None,
) -> Exposure:
    """What training on this exposes a model to; with `rows`, to these alone.

    Decodes photos that this machine has not hashed yet.
    """
    manifest, split = material.manifest, material.split
    roles = exposed_rows(split) if rows is None else rows
    paths, views = manifest.paths(), manifest.views
    hashes = photo_hashes([paths[row] for row in roles], progress=progress)
    photos = tuple(
        ExposedPhoto(
            split.paths[row],
            split.subjects[row],
            views[row],
            role,
            known.file if known else None,
            known.pixels if known else None,
        )
        for (row, role), known in zip(roles.items(), hashes, strict=True)
    )
    return Exposure(run, recipe, manifest.dataset, manifest.hash, split.protocol, photos)


def exposures_of(
    run: Run, others: Sequence[Path] = (), progress: Progress | None = None
) -> tuple[list[Exposure], list[str]]:
    """Of the run and of those that it began with; notes say of which nothing can be known.

    `others` are manifests among which that of a run without a record may be. Raises RunError where the record is
    damaged, or where a run has none and its manifest is gone.
    """
    if (run.folder / RECORD).exists():
        return read_record(run), []
    found = [_looked_up(run, load_run_dataset(run, others), progress)]
    notes = [f"{run.folder.name} has no {RECORD} (an older version wrote it): its manifest was read instead"]
    older: Run | None = run
    while older is not None:
        try:
            older = _parent(older)
            found += [_looked_up(older, load_run_dataset(older, others), progress)] if older else []
        except HandreidError as error:
            notes.append(
                f"it could not be checked who was seen by the run that {run.folder.name} started from: {error}"
            )
            break
    return found, notes


def exposed_rows(split: Split) -> dict[int, Role]:
    """Rows that train, and then those that only validate."""
    roles: dict[int, Role] = {int(row): "train" for row in split.train}
    for row in [*split.validation_rows.tolist(), *validated_rows(split)]:
        roles.setdefault(row, "validation")
    return roles


def validated_rows(split: Split) -> list[int]:
    """Rows that are searched for or among in validation."""
    return sorted({int(row) for draw in split.validation for part in (draw.gallery, draw.query) for row in part})


def write_record(run: Run, exposures: Sequence[Exposure]) -> None:
    """The run's own exposure first, then those of the runs that it began with."""
    entries = [
        {
            **{name: getattr(one, name) for name in _FACTS},
            "photos": {name: [getattr(photo, name) for photo in one.photos] for name in _COLUMNS},
        }
        for one in exposures
    ]
    write_json(run.folder / RECORD, {"format": FORMAT, "exposures": entries}, by_line=True)


def read_record(run: Run) -> list[Exposure]:
    """Raises RunError for a record that is not as `write_record` wrote it."""
    path = run.folder / RECORD
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise RunError(
            f"{path} has format {content.get('format')}, not {FORMAT}: another version of handreid wrote it; "
            "train the run again"
        )
    try:
        return [_read_exposure(entry) for entry in content["exposures"]]
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{path} is not a record of training photos; train the run again") from None


def changed_photos(run: Run, photos: Mapping[str, str]) -> list[str]:
    """Those of some photos (SHA-256 by path) that were others when the run began, as far as its record knows them."""
    if not (run.folder / RECORD).exists():
        return []
    then = {photo.path: photo.file for photo in read_record(run)[0].photos}
    return [path for path, digest in photos.items() if then.get(path) not in (None, digest)]


def load_run_dataset(run: Run, others: Sequence[Path] = ()) -> RunDataset:
    """What the run was trained on, from where it was then or from one of the others, if that is the same.

    Raises RunError when neither is, as then nobody knows who was trained on.
    """
    wanted, then = run.facts["manifest_hash"], Path(run.facts["manifest"])
    problems = []
    for path in (then, *others):
        try:
            if read(path).hash == wanted:
                return load_dataset(run.recipe, path)
            problems.append(f"{path} has changed")
        except HandreidError as error:
            problems.append(str(error))
    raise RunError(
        f"{run.folder}: its training subjects cannot be read without its manifest ({problems[0]}); give it with --data"
    )


def before(run: Run) -> list[str]:
    """Names of the recipes of the runs that this one began with, nearest first."""
    if (run.folder / RECORD).exists():
        return [one.recipe for one in read_record(run)[1:]]
    names, older = [], _parent(run)
    while older is not None:
        names.append(older.recipe.name)
        older = _parent(older)
    return names


def training_summary(run: Run, material: RunDataset) -> dict[str, Any]:
    """What the run learned from, as a matrix says it in its header."""
    split, recipe = material.split, run.recipe
    rows = split.train if recipe.stages else np.empty(0, np.int64)
    views = [material.manifest.views[row] or "unknown" for row in rows]
    return {
        "recipe": recipe.name,
        "dataset": material.manifest.dataset,
        "view": split.view or "all",
        "protocol": split.protocol,
        "label": split.label,
        "subjects": len({split.subjects[row] for row in rows}),
        "photos": len(rows),
        "views": {name: views.count(name) for name in sorted(set(views))},
        "after": before(run),
        "manifest": material.manifest.hash,
    }


def _read_exposure(entry: Mapping[str, Any]) -> Exposure:
    columns = [entry["photos"][name] for name in _COLUMNS]
    photos = tuple(ExposedPhoto(*values) for values in zip(*columns, strict=True))
    run, recipe, dataset, manifest_hash, protocol = (str(entry[name]) for name in _FACTS)
    return Exposure(run, recipe, dataset, manifest_hash, protocol, photos)


def _parent(run: Run) -> Run | None:
    """The run that this one began with. Raises RunError when it is gone."""
    start = run.facts.get("init_from")
    return None if start is None else open_run(Path(start))


def _looked_up(run: Run, material: RunDataset, progress: Progress | None) -> Exposure:
    recipe = run.recipe
    rows: Mapping[int, Role] | None = None if recipe.stages else {}
    return exposure_of(material, run=run.folder.absolute().name, recipe=recipe.name, rows=rows, progress=progress)
