"""The photos that a run's weights were exposed to: those of training and validation, by subject, view and content.

* A run records them when it starts (`training-photos.json`), together with the records of its parent runs. Later
  manifests are compared with the record, so the manifest that the run was trained on is no longer needed.
* For a run of an older version, without a record, its manifest is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handreid.data.manifest import Manifest, read
from handreid.data.photo_hashes import PhotoHash, photo_hashes
from handreid.data.rendered.people import is_rendered, looks_rendered, people_set
from handreid.data.similar_names import likeness
from handreid.data.splits import Split
from handreid.errors import HandreidError, RunError
from handreid.files import read_json, write_json
from handreid.progress import Progress
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run, open_run
from handreid.runs.rendered_photos import recorded_manifest

RECORD = "training-photos.json"
FORMAT = 2
Role = Literal["train", "validation"]
_OF_ANY_ORIGIN = ("csv", "folders")  # tables that do not say which data set they are of
_FACTS = ("run", "recipe", "dataset", "manifest_hash", "protocol")
_COLUMNS = ("path", "subject", "view", "role", "file", "pixels")


@dataclass(frozen=True)
class ExposedPhoto:
    """A photo of training or validation. `file` and `pixels` are its hashes; None if it was missing when hashed."""

    path: str
    subject: str
    view: str | None
    role: Role
    file: str | None
    pixels: str | None


@dataclass(frozen=True)
class Exposure:
    """The photos that one run's weights were trained on or selected by."""

    run: str  # name of its folder
    recipe: str
    dataset: str
    manifest_hash: str
    protocol: str
    photos: tuple[ExposedPhoto, ...]

    @cached_property
    def trained(self) -> Mapping[str, tuple[str, ...]]:
        """Views of each training subject, as far as they are known; keys are `likeness` of the name."""
        views_by_subject: dict[str, set[str]] = {}
        for photo in self.photos:
            if photo.role == "train":
                views_by_subject.setdefault(likeness(photo.subject), set()).update({photo.view} if photo.view else ())
        return {subject: tuple(sorted(views)) for subject, views in views_by_subject.items()}

    @cached_property
    def chosen_by(self) -> frozenset[str]:
        """Subjects of validation that are not in training; as `likeness` of the name."""
        return frozenset({likeness(photo.subject) for photo in self.photos} - self.trained.keys())

    def role_of(self, digest: PhotoHash | None, path: str | None) -> Role | None:
        """The role of a photo, by its content, or by its path if that comes from the same manifest; None if unseen."""
        names = (path, *((digest.file, digest.pixels) if digest else ()))
        return next((role for name in names if name and (role := self._roles.get(name))), None)

    def names_people_of(self, manifest: Manifest) -> bool:
        """Whether the same subject name means the same person in both."""
        if self.manifest_hash == manifest.hash:
            return True
        people = people_set(manifest)
        if is_rendered(self.dataset) and not (is_rendered(people) or looks_rendered(manifest)):
            return False  # a table of real people may have anybody's names, but not these people
        return same_people(self.dataset, people)

    @cached_property
    def has_contents(self) -> bool:
        """Whether photos of it can be recognised by path or content."""
        return any(photo.path or photo.file or photo.pixels for photo in self.photos)

    def only(self, role: Role) -> "Exposure":
        return replace(self, photos=tuple(photo for photo in self.photos if photo.role == role))

    @cached_property
    def _roles(self) -> Mapping[str, Role]:
        """Roles by path, hash of the file and hash of the pixels; training takes precedence."""
        roles: dict[str, Role] = {}
        for photo in sorted(self.photos, key=lambda exposed: exposed.role, reverse=True):
            roles |= {name: photo.role for name in (photo.path, photo.file, photo.pixels) if name}
        return roles


def same_people(dataset: str, other_dataset: str) -> bool:
    """Whether the same subject name may mean the same person in manifests of these data sets."""
    return dataset == other_dataset or dataset in _OF_ANY_ORIGIN or other_dataset in _OF_ANY_ORIGIN


def exposure_of(
    material: RunDataset,
    *,
    run: str = "this run",
    recipe: str = "",
    rows: Mapping[int, Role] | None = None,
    progress: Progress | None = None,
) -> Exposure:
    """The exposure of a model trained on this data set; with `rows`, to these rows only.

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
            digest.file if digest else None,
            digest.pixels if digest else None,
        )
        for (row, role), digest in zip(roles.items(), hashes, strict=True)
    )
    return Exposure(run, recipe, people_set(manifest), manifest.hash, split.protocol, photos)


def exposures_of(
    run: Run, manifests: Sequence[Path] = (), progress: Progress | None = None
) -> tuple[list[Exposure], list[str]]:
    """Exposures of the run and of its parent runs, and notes on those whose exposure is unknown.

    `manifests` are searched for the manifest of a run without a record. Raises RunError if the record is damaged, or if
    the run has none and its manifest is missing.
    """
    if (run.folder / RECORD).exists():
        return read_record(run), []
    exposures = [_looked_up(run, load_run_dataset(run, manifests, progress), progress)]
    notes = [f"{run.folder.name} has no {RECORD} (an older version wrote it): its manifest was read instead"]
    older: Run | None = run
    while older is not None:
        try:
            older = _parent(older)
            exposures += [_looked_up(older, load_run_dataset(older, manifests, progress), progress)] if older else []
        except HandreidError as error:
            notes.append(
                f"it could not be checked who was seen by the run that {run.folder.name} started from: {error}"
            )
            break
    return exposures, notes


def exposed_rows(split: Split) -> dict[int, Role]:
    """Rows of training, then those that are only in validation."""
    roles: dict[int, Role] = {int(row): "train" for row in split.train}
    for row in [*split.validation_rows.tolist(), *validated_rows(split)]:
        roles.setdefault(row, "validation")
    return roles


def validated_rows(split: Split) -> list[int]:
    """Rows of galleries and queries of validation."""
    return sorted({int(row) for draw in split.validation for part in (draw.gallery, draw.query) for row in part})


def write_record(run: Run, exposures: Sequence[Exposure]) -> None:
    """Writes `training-photos.json`: the run's own exposure first, then those of its parent runs."""
    entries = [
        {
            **{name: getattr(exposure, name) for name in _FACTS},
            "photos": {name: [getattr(photo, name) for photo in exposure.photos] for name in _COLUMNS},
        }
        for exposure in exposures
    ]
    write_json(run.folder / RECORD, {"format": FORMAT, "exposures": entries}, by_line=True)


def read_record(run: Run) -> list[Exposure]:
    """The exposures in `training-photos.json`. Raises RunError if it is damaged or of another format."""
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
    """Paths of photos (SHA-256 by path) that differ from those that the run's record holds under the same path."""
    if not (run.folder / RECORD).exists():
        return []
    recorded = {photo.path: photo.file for photo in read_record(run)[0].photos}
    return [path for path, digest in photos.items() if recorded.get(path) not in (None, digest)]


def load_run_dataset(run: Run, manifests: Sequence[Path] = (), progress: Progress | None = None) -> RunDataset:
    """The data set that the run was trained on, from its recorded manifest or from one of `manifests` with its hash.

    Raises RunError if none has the recorded hash, as then the training subjects are unknown.
    """
    manifest_hash = run.facts["manifest_hash"]
    problems = []
    for given in (None, *manifests):
        try:
            path = given or recorded_manifest(run.facts, progress)
            if read(path).hash == manifest_hash:
                return load_dataset(run.recipe, path)
            problems.append(f"{path} has changed")
        except HandreidError as error:
            problems.append(str(error))
    raise RunError(
        f"{run.folder}: its training subjects cannot be read without its manifest ({problems[0]}); give it with --data"
    )


def before(run: Run) -> list[str]:
    """Names of the recipes of the parent runs, nearest first."""
    if (run.folder / RECORD).exists():
        return [exposure.recipe for exposure in read_record(run)[1:]]
    names, older = [], _parent(run)
    while older is not None:
        names.append(older.recipe.name)
        older = _parent(older)
    return names


def training_summary(run: Run, material: RunDataset) -> dict[str, Any]:
    """The run's training data, as the header of a matrix gives it."""
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
    """The run that this one was initialised from. Raises RunError if it is missing."""
    start = run.facts.get("init_from")
    return None if start is None else open_run(Path(start))


def _looked_up(run: Run, material: RunDataset, progress: Progress | None) -> Exposure:
    recipe = run.recipe
    rows: Mapping[int, Role] | None = None if recipe.stages else {}
    return exposure_of(material, run=run.folder.absolute().name, recipe=recipe.name, rows=rows, progress=progress)
