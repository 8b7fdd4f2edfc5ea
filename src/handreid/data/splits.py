"""Who trains, who validates, who is tested, with the gallery draws: one `Split`, equal on every machine.

* Test identities never reach training or validation.
* A view narrows training and queries; the gallery keeps one photo of every test identity of all views, so that 11k
  Hands is searched among 290 and not among 71.
* Hashes cover photo paths and labels, not row numbers: the same split has the same hash for any order of the rows.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64

from handreid.data import protocols
from handreid.data.cameras import Cameras, taken_by
from handreid.data.draws import Draw, choose, gallery_draw, in_path_order, one_each
from handreid.data.manifest import LabelKind, Manifest
from handreid.data.protocols import Sides, view_rows
from handreid.errors import ProtocolError

Protocol = Literal["hands11k", "hd", "disjoint", "prepared"]
Validation = Literal["held-back", "closed-set"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
VALIDATIONS: tuple[Validation, ...] = get_args(Validation)


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a manifest and what they are used for.

    `identities` and `subjects` hold the label and the person of every row of the manifest, and `paths` its photo.
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
        """SHA-256 over who trains and who validates, and how."""
        draws = [self._said(part) for draw in self.validation for part in (draw.gallery, draw.query)]
        return _digest([self.protocol, self.label, self.view, self._said(self.train), draws, *self._rule])

    @cached_property
    def draws_hash(self) -> str:
        """SHA-256 over the test draws, and over the cameras where they count: equal where results are comparable."""
        return _digest([*([self._said(draw.gallery), self._said(draw.query)] for draw in self.test), *self._rule])

    @property
    def _rule(self) -> list[str]:
        """Nothing where cameras are ignored: hashes are as they were before cameras could count."""
        return [] if self.cameras is None else ["cameras: cross"]

    def left_out(self, query: int, gallery: Int64[np.ndarray, " gallery"]) -> Bool[np.ndarray, " gallery"]:
        """Which gallery rows are no answer, right or wrong: of the query's identity and camera, where cameras count."""
        if self.cameras is None:
            return np.zeros(len(gallery), np.bool_)
        who, taken_by = self.identities, self.cameras
        return np.array([who[row] == who[query] and taken_by[row] == taken_by[query] for row in gallery], np.bool_)

    def train_identities(self) -> list[str]:
        """The labels in training, in order; a class number is a position in this list."""
        return sorted({self.identities[row] for row in self.train})

    def _said(self, rows: Int64[np.ndarray, " rows"]) -> list[tuple[str, ...]]:
        if self.cameras is None:
            return sorted((self.paths[row], self.identities[row]) for row in rows)
        return sorted((self.paths[row], self.identities[row], self.cameras[row] or "") for row in rows)


def natural_protocol(manifest: Manifest) -> Protocol:
    """The data set's own protocol, else the split that the manifest gives, else identity-disjoint."""
    if manifest.dataset == "hands11k":
        return "hands11k"
    if manifest.dataset == "hd":
        return "hd"
    given = set(manifest.table["split"].drop_nulls()) - {"distractor"}
    return "prepared" if given else "disjoint"


def make_split(
    manifest: Manifest,
    *,
    protocol: Protocol,
    view: str | None = None,
    label: LabelKind = "aspect",
    validation: Validation = "held-back",
    validation_share: float = 0.2,
    draws: int = 10,
    seed: int = 0,
    test_share: float = 0.5,
    cameras: Cameras = "ignore",
) -> Split:
    """Split a manifest by a protocol; see `protocols` for each.

    `view` is `dorsal-right` and the like, or None for all views pooled. `validation_share` is the share of training
    subjects held back, `test_share` (disjoint only) that of subjects tested; both between 0 and 1. With `cameras`
    "cross" a photo of the query's own camera is no right answer. Raises ProtocolError where the data cannot give it,
    ManifestError where a label needs a side or an aspect that a photo does not have.
    """
    if draws < 1:
        raise ProtocolError(f"{draws} draws; at least one is needed")
    labels = manifest.labels(label)
    making = _Making(manifest, labels, manifest.table["path"].to_list(), view, seed, draws)
    sides = _sides(manifest, protocol, view, labels, test_share, seed)
    tests = making.in_view_only(sides.given) or making.drawn(sides.test, sides.always, "gallery")
    _require_queries(tests, "test", protocol, view)
    validated = making.validated(sides, tests, validation, validation_share)
    if not len(validated.train):
        raise ProtocolError(f"protocol {protocol}: no photo{f' of {view}' if view else ''} left to train on")
    known, told = taken_by(manifest, cameras, {"test": tests, "validation": validated.draws}, labels)
    return Split(
        protocol=protocol,
        label=label,
        view=view,
        train=validated.train,
        validation_rows=validated.apart,
        validation=validated.draws,
        test=tests,
        identities=tuple(labels),
        subjects=tuple(making.subjects),
        paths=tuple(making.paths),
        notes=(*sides.notes, *validated.notes, *told),
        cameras=known,
    )


@dataclass(frozen=True, eq=False)
class _Validated:
    """What is left of training, the rows kept apart for validation, and the draws that search among either."""

    train: Int64[np.ndarray, " train"]
    apart: Int64[np.ndarray, " validation"]
    draws: tuple[Draw, ...]
    notes: list[str]


@dataclass(frozen=True)
class _Making:
    """What all steps of making a split look things up in."""

    manifest: Manifest
    labels: list[str]
    paths: list[str]
    view: str | None
    seed: int
    draws: int

    @cached_property
    def in_view(self) -> frozenset[int]:
        return frozenset(np.flatnonzero(view_rows(self.manifest, self.view)).tolist())

    @cached_property
    def subjects(self) -> list[str]:
        return self.manifest.table["subject"].to_list()

    def in_view_only(self, draws: Sequence[Draw]) -> tuple[Draw, ...]:
        return tuple(Draw(draw.gallery, in_path_order(self._seen(draw.query.tolist()), self.paths)) for draw in draws)

    def drawn(self, searched: Sequence[int], always: Sequence[int], purpose: str) -> tuple[Draw, ...]:
        queried = self.in_view.intersection(searched)
        return tuple(
            gallery_draw(searched, set(queried), always, self.labels, self.paths, self.seed, purpose, draw)
            for draw in range(self.draws)
        )

    def validated(self, sides: Sides, tests: Sequence[Draw], how: Validation, share: float) -> _Validated:
        if sides.validation:
            return self._given(sides)
        if how == "closed-set":
            return self._closed_set(sides, tests)
        return self._held_back(sides, tests, share)

    def _held_back(self, sides: Sides, tests: Sequence[Draw], share: float) -> _Validated:
        tested = {self.subjects[row] for draw in tests for rows in (draw.query, draw.gallery) for row in rows}
        train = self._seen(sides.train)
        subjects = {self.subjects[row] for row in train}
        count = max(1, round(share * len(subjects)))
        if not 0 < share < 1 or count >= len(subjects):
            raise ProtocolError(
                f"{share} of {len(subjects)} training subjects held back leaves none, or all, to train on"
            )
        # whoever is in a test gallery, be it with another view, must not choose the model
        back = choose(subjects - tested, count, self.seed, "validation")
        searched = [row for row in sides.train if self.subjects[row] in back]
        validations = self.drawn(searched, [], "validation")
        _require_queries(validations, "validation", f"{len(back)} held-back subjects", self.view)
        kept = in_path_order((row for row in train if self.subjects[row] not in back), self.paths)
        note = f"{len(back)} of {len(subjects)} training subjects held back for validation: {len(searched)} photos"
        return _Validated(kept, in_path_order(searched, self.paths), validations, [note])

    def _closed_set(self, sides: Sides, tests: Sequence[Draw]) -> _Validated:
        train = self._seen(sides.train)
        tested = {self.labels[row] for draw in tests for row in draw.query}
        free = [row for row in self._with_company(train) if self.labels[row] not in tested]
        chosen = one_each(free, self.labels, self.paths, self.seed, "closed-set", 0)
        kept, query = in_path_order(set(train) - chosen, self.paths), in_path_order(chosen, self.paths)
        draws = (Draw(kept, query),)
        _require_queries(draws, "validation", "one photo of each training identity", self.view)
        without = len({self.labels[row] for row in train}) - len(chosen)
        notes = [f"{len(chosen)} photos, one of each training identity, are kept for validation"]
        if without:
            notes.append(f"{without} training identities give none: their one photo trains, or they are tested too")
        return _Validated(kept, query, draws, notes)

    def _given(self, sides: Sides) -> _Validated:
        train = in_path_order(self._seen(sides.train), self.paths)
        known = {self.labels[row] for row in train}
        shared = [row for row in self._seen(sides.validation) if self.labels[row] in known]
        new = [row for row in sides.validation if self.labels[row] not in known]
        if not shared:
            validations = self.drawn(new, [], "validation")
            _require_queries(validations, "validation", "the given validation photos", self.view)
            return _Validated(train, in_path_order(new, self.paths), validations, ["validation identities as given"])
        query = in_path_order(shared, self.paths)
        notes = [f"{len(shared)} validation photos of training identities as given"]
        if new:
            notes.append(f"{len(new)} validation photos left out: their identities are not in training, others are")
        return _Validated(train, query, (Draw(train, query),), notes)

    def _seen(self, rows: Iterable[int]) -> list[int]:
        return [row for row in rows if row in self.in_view]

    def _with_company(self, rows: Sequence[int]) -> list[int]:
        """Rows of identities with two photos or more."""
        count: dict[str, int] = {}
        for row in rows:
            count[self.labels[row]] = count.get(self.labels[row], 0) + 1
        return [row for row in rows if count[self.labels[row]] > 1]


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


def _require_queries(draws: Sequence[Draw], purpose: str, what: str, view: str | None) -> None:
    if not draws or not all(len(draw.query) for draw in draws):
        of = f" of {view}" if view else ""
        raise ProtocolError(
            f"{what}: no {purpose} identity has two photos{of}, one to search for and one to be found; "
            "more photos per identity are needed"
        )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
