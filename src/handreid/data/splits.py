"""Makes a `Split`: rows for training, validation and test, with the gallery draws; equal on every machine.

* Test identities never reach training or validation.
* A view narrows training and queries; the gallery keeps one photo of every test identity of all views, so that 11k
  Hands is searched among 290 and not among 71.
* A photo without a subject is in no part: the split is made of the others, as if it did not exist.
* A gallery of one identity is refused: any model finds it.
* Hashes cover photo paths and labels, not row numbers: the same split has the same hash for any order of the rows.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Int64

from handreid.data import protocols
from handreid.data.cameras import Cameras, taken_by
from handreid.data.draw_checks import check_galleries, counted
from handreid.data.manifest import LabelKind, Manifest, names_of
from handreid.data.names import nfc
from handreid.data.predicted_views import predicted_notes
from handreid.data.protocols import Sides, view_rows
from handreid.data.tables import format_list
from handreid.data.validation import SplitContext, Validation
from handreid.draw import Draw
from handreid.errors import ProtocolError

Protocol = Literal["hands11k", "hd", "disjoint", "prepared"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
_MORE_TESTED: dict[Protocol, str] = {
    "hands11k": "give photos of more people above the protocol's cut-offs",
    "hd": "give photos of more people above the protocol's cut-off",
    "disjoint": "increase data.test_share, or give photos of more people",
    "prepared": "give the gallery photos of more people, be they distractors",
}


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a manifest and what they are used for.

    `identities`, `subjects` and `paths` hold the label, the subject and the photo of every row of the manifest; a photo
    without a subject has a label and a subject of its own, and is in no part.
    `validation_rows` are the photos that only validation uses. Draws of `validation` may search among `train` rows
    (closed set); those of `test` share no identity with training, unless a prepared split does (see `notes`).
    `cameras` holds the camera of every row where gallery photos of a query's identity and camera are left out of its
    ranking; it is None where cameras are ignored.
    """

    protocol: Protocol
    label: LabelKind
    view: str | None
    train: Int64[np.ndarray, " train"]
    validation_rows: Int64[np.ndarray, " validation"]
    validation: tuple[Draw, ...]
    test: tuple[Draw, ...]
    identities: tuple[str, ...]
    subjects: tuple[str, ...]
    paths: tuple[str, ...]
    notes: tuple[str, ...]
    cameras: tuple[str | None, ...] | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the rows of training and validation, and how they are used."""
        draws = [self._rows_of(part) for draw in self.validation for part in (draw.gallery, draw.query)]
        return _digest([self.protocol, self.label, self.view, self._rows_of(self.train), draws, *self._rule])

    @cached_property
    def draws_hash(self) -> str:
        """SHA-256 over the test draws, and the cameras if not ignored: equal where results are comparable."""
        return _digest([*([self._rows_of(draw.gallery), self._rows_of(draw.query)] for draw in self.test), *self._rule])

    @property
    def _rule(self) -> list[str]:
        """Empty where cameras are ignored, so that hashes are those of versions without this rule."""
        return [] if self.cameras is None else ["cameras: cross"]

    def left_out(self, query: int, gallery: Int64[np.ndarray, " gallery"]) -> Bool[np.ndarray, " gallery"]:
        """Which gallery rows are neither right nor wrong: those of the query's identity and camera, unless ignored."""
        if self.cameras is None:
            return np.zeros(len(gallery), np.bool_)
        labels, cameras = self.identities, self.cameras
        return np.array([labels[row] == labels[query] and cameras[row] == cameras[query] for row in gallery], np.bool_)

    def train_identities(self) -> list[str]:
        """The labels in training, in order; a class number is a position in this list."""
        return sorted({self.identities[row] for row in self.train})

    def _rows_of(self, rows: Int64[np.ndarray, " rows"]) -> list[tuple[str, ...]]:
        if self.cameras is None:
            return sorted((nfc(self.paths[row]), self.identities[row]) for row in rows)
        return sorted((nfc(self.paths[row]), self.identities[row], self.cameras[row] or "") for row in rows)


def natural_protocol(manifest: Manifest) -> Protocol:
    """The data set's own protocol, else the split that the manifest gives, else identity-disjoint."""
    manifest = manifest.labelled
    if manifest.dataset == "hands11k":
        return "hands11k"
    if manifest.dataset == "hd":
        return "hd"
    splits = set(manifest.table["split"].drop_nulls()) - {"distractor"}
    return "prepared" if splits else "disjoint"


def make_split(
    manifest: Manifest,
    *,
    protocol: Protocol,
    view: str | None = None,
    label: LabelKind = "view",
    validation: Validation = "held-out",
    validation_share: float = 0.2,
    draws: int = 10,
    seed: int = 0,
    test_share: float = 0.5,
    trains: bool = True,
    cameras: Cameras = "ignore",
    subjects: bool = True,
) -> Split:
    """Split a manifest by a protocol; see `protocols` for each.

    `view` is `dorsal-right` and the like, or None for all views pooled. `validation_share` is the share of training
    subjects held out, `test_share` (disjoint only) that of subjects tested; both between 0 and 1. With `cameras`
    "cross" a photo of the query's own camera is no right answer. With `trains` False a validation that the data do not
    allow is left out, with a note. Without need of `subjects`, a manifest in which no photo has one is all training,
    and nothing is tested. Raises ProtocolError where the data do not allow the rest, ManifestError where a
    label needs a side or an aspect that a photo does not have.
    """
    if draws < 1:
        raise ProtocolError(f"{draws} draws; at least one is needed")
    labelled = manifest.labelled
    if len(manifest) and not len(labelled) and not subjects:
        return _all_training(manifest, protocol, label, view)
    if len(manifest) and not len(labelled):
        raise ProtocolError(
            f"none of the {len(manifest):,} photos has a subject (the column `subject` is empty): fill it in "
            "to train or to test; photos without subjects can be embedded and shown, and recipes that read no labels "
            "(such as pretrain-moco) can train on them"
        )
    labels = [str(name) for name in labelled.labels(label)]
    context = SplitContext(labelled, label, labels, labelled.table["path"].to_list(), view, seed, draws)
    sides = _sides(labelled, protocol, view, labels, test_share, seed)
    tests = context.restrict_queries(sides.given) or context.draw_galleries(sides.test, sides.always, "gallery")
    context.check_queries(tests, sides.test or context.given_rows(sides.given), "test", protocol)
    check_galleries(tests, labels, "test", _MORE_TESTED[protocol])
    validated = context.choose_validation(sides, tests, validation, validation_share, required=trains)
    if trains and not len(validated.train):
        raise ProtocolError(f"protocol {protocol}: no photo{f' of {view}' if view else ''} left to train on")
    by_camera, camera_notes = taken_by(labelled, cameras, {"test": tests, "validation": validated.draws}, labels)
    split = Split(
        protocol=protocol,
        label=label,
        view=view,
        train=validated.train,
        validation_rows=validated.apart,
        validation=validated.draws,
        test=tests,
        identities=tuple(labels),
        subjects=tuple(context.subjects),
        paths=tuple(context.paths),
        notes=(*sides.notes, *validated.notes, *camera_notes, *predicted_notes(labelled)),
        cameras=by_camera,
    )
    return split if labelled is manifest else _among_all(split, manifest)


def _all_training(manifest: Manifest, protocol: Protocol, label: LabelKind, view: str | None) -> Split:
    """All photos of the view, except those that the manifest gives to another part than training."""
    given = manifest.table["split"].fill_null("train").to_numpy() == "train"
    train = np.flatnonzero(given & view_rows(manifest, view))
    if not len(train):
        raise ProtocolError(f"no photo{f' of {view}' if view else ''} to train on")
    return Split(
        protocol=protocol,
        label=label,
        view=view,
        train=train,
        validation_rows=np.empty(0, np.int64),
        validation=(),
        test=(),
        identities=tuple(names_of(manifest, label)),
        subjects=tuple(names_of(manifest, "subject")),
        paths=tuple(manifest.table["path"].to_list()),
        notes=(f"no photo has a subject: {counted(len(train), 'photo')} to train on, none to validate or to test",),
    )


def _sides(
    manifest: Manifest, protocol: Protocol, view: str | None, labels: Sequence[str], test_share: float, seed: int
) -> Sides:
    view_rows(manifest, view)
    match protocol:
        case "hands11k":
            return protocols.hands11k(manifest, view)
        case "hd":
            return protocols.hd(manifest)
        case "disjoint":
            return protocols.disjoint(manifest, test_share, seed)
        case "prepared":
            return protocols.prepared(manifest, labels)


def _among_all(split: Split, manifest: Manifest) -> Split:
    """The split of the photos with a subject, with rows numbered as in the whole manifest."""
    without = manifest.table["subject"].is_null().to_numpy()
    rows = np.flatnonzero(~without)

    def drawn(draws: Sequence[Draw]) -> tuple[Draw, ...]:
        return tuple(replace(draw, gallery=rows[draw.gallery], query=rows[draw.query]) for draw in draws)

    parts = Counter(manifest.table["split"].filter(pl.Series(without)).drop_nulls())
    by_split = f", {format_list(f'{name} {count:,}' for name, count in sorted(parts.items()))} of them" if parts else ""
    note = f"{counted(int(without.sum()), 'photo')} without a subject left out, as each may show anybody{by_split}"
    return replace(
        split,
        train=rows[split.train],
        validation_rows=rows[split.validation_rows],
        validation=drawn(split.validation),
        test=drawn(split.test),
        identities=tuple(names_of(manifest, split.label)),
        subjects=tuple(names_of(manifest, "subject")),
        paths=tuple(manifest.table["path"].to_list()),
        notes=(*split.notes, note),
        cameras=None if split.cameras is None else tuple(manifest.table["camera"].to_list()),
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def evaluated_rows(split: Split) -> Int[np.ndarray, " photo"]:
    """Every row that is query or gallery in any test draw, once, ascending."""
    return np.unique(np.concatenate([part for draw in split.test for part in (draw.gallery, draw.query)]))
