"""Who trains, who validates, who is tested, with the gallery draws: one `Split`, equal on every machine.

* Test identities never reach training or validation.
* A view narrows training and queries; the gallery keeps one photo of every test identity of all views, so that 11k
  Hands is searched among 290 and not among 71.
* A photo of nobody known is in no part: the split is made of the others, as if it were not there.
* A gallery in which one identity is all there is to be found tells nothing of a model, and is refused.
* Hashes cover photo paths and labels, not row numbers: the same split has the same hash for any order of the rows.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Int64

from handreid.data import protocols
from handreid.data.cameras import Cameras, taken_by
from handreid.data.draw_checks import check_galleries, check_queries, check_validation, counted
from handreid.data.draws import gallery_draw, in_path_order, one_per_label, seeded_choice
from handreid.data.manifest import LabelKind, Manifest, names_of
from handreid.data.names import nfc
from handreid.data.protocols import Sides, view_rows
from handreid.data.tables import format_list
from handreid.draw import Draw
from handreid.errors import ProtocolError

Protocol = Literal["hands11k", "hd", "disjoint", "prepared"]
Validation = Literal["held-out", "closed-set"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
VALIDATIONS: tuple[Validation, ...] = get_args(Validation)
_MORE_TESTED: dict[Protocol, str] = {
    "hands11k": "give photos of more people above the protocol's cut-offs",
    "hd": "give photos of more people above the protocol's cut-off",
    "disjoint": "increase data.test_share, or give photos of more people",
    "prepared": "give the gallery photos of more people, be they distractors",
}
_MORE_GIVEN = (
    "give validation photos of two identities or more, or none at all, so that some training identities are held out"
)


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a manifest and what they are used for.

    `identities` and `subjects` hold the label and the person of every row of the manifest, and `paths` its photo; those
    of a photo of nobody known are its own alone, and it is in no part.
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
            return sorted((nfc(self.paths[row]), self.identities[row]) for row in rows)
        return sorted((nfc(self.paths[row]), self.identities[row], self.cameras[row] or "") for row in rows)


def natural_protocol(manifest: Manifest) -> Protocol:
    """The data set's own protocol, else the split that the manifest gives, else identity-disjoint."""
    manifest = manifest.labelled
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
    label: LabelKind = "view",
    validation: Validation = "held-out",
    validation_share: float = 0.2,
    draws: int = 10,
    seed: int = 0,
    test_share: float = 0.5,
    trains: bool = True,
    cameras: Cameras = "ignore",
) -> Split:
    """Split a manifest by a protocol; see `protocols` for each.

    `view` is `dorsal-right` and the like, or None for all views pooled. `validation_share` is the share of training
    subjects held back, `test_share` (disjoint only) that of subjects tested; both between 0 and 1. With `cameras`
    "cross" a photo of the query's own camera is no right answer. Where nothing `trains`, a validation that the data
    cannot give is left out, and a note says why. Raises ProtocolError where the data cannot give the rest,
    ManifestError where a label needs a side or an aspect that a photo does not have.
    """
    if draws < 1:
        raise ProtocolError(f"{draws} draws; at least one is needed")
    known = manifest.labelled
    if len(manifest) and not len(known):
        raise ProtocolError(
            f"none of the {len(manifest):,} photos has a subject (the column `subject` is empty): fill it in "
            "to train or to test; photos without subjects can only be embedded and shown"
        )
    labels = [str(name) for name in known.labels(label)]
    making = _Making(known, label, labels, known.table["path"].to_list(), view, seed, draws)
    sides = _sides(known, protocol, view, labels, test_share, seed)
    tests = making.in_view_only(sides.given) or making.drawn(sides.test, sides.always, "gallery")
    making.check_queries(tests, sides.test or making.given_rows(sides.given), "test", protocol)
    check_galleries(tests, labels, "test", _MORE_TESTED[protocol])
    validated = making.validated(sides, tests, validation, validation_share, required=trains)
    if trains and not len(validated.train):
        raise ProtocolError(f"protocol {protocol}: no photo{f' of {view}' if view else ''} left to train on")
    by_camera, told = taken_by(known, cameras, {"test": tests, "validation": validated.draws}, labels)
    split = Split(
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
        cameras=by_camera,
    )
    return split if known is manifest else _among_all(split, manifest)


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
    label: LabelKind
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

    def given_rows(self, draws: Sequence[Draw]) -> list[int]:
        return [row for draw in draws for part in (draw.gallery, draw.query) for row in part.tolist()]

    def drawn(self, searched: Sequence[int], always: Sequence[int], purpose: str) -> tuple[Draw, ...]:
        queried = self.in_view.intersection(searched)
        return tuple(
            gallery_draw(searched, set(queried), always, self.labels, self.paths, self.seed, purpose, draw)
            for draw in range(self.draws)
        )

    def validated(
        self, sides: Sides, tests: Sequence[Draw], how: Validation, share: float, *, required: bool
    ) -> _Validated:
        try:
            return self._validated(sides, tests, how, share)
        except ProtocolError as error:
            if required:
                raise
            none = np.empty(0, np.int64)
            return _Validated(in_path_order(self._seen(sides.train), self.paths), none, (), [f"no validation: {error}"])

    def _validated(self, sides: Sides, tests: Sequence[Draw], how: Validation, share: float) -> _Validated:
        if sides.validation:
            return self._given(sides)
        if how == "closed-set":
            return self._closed_set(sides, tests)
        return self._held_out(sides, tests, share)

    def _held_out(self, sides: Sides, tests: Sequence[Draw], share: float) -> _Validated:
        tested = {self.subjects[row] for draw in tests for rows in (draw.query, draw.gallery) for row in rows}
        train = self._seen(sides.train)
        subjects = {self.subjects[row] for row in train}
        asked = max(1, round(share * len(subjects)))
        count = 2 if asked == 1 and len(subjects) >= 4 else asked  # one alone is found by any model
        if not 0 < share < 1 or count >= len(subjects):
            raise ProtocolError(
                f"holding out {share} of {len(subjects)} training subjects for validation leaves none, or all, to "
                "train on"
            )
        # whoever is in a test gallery, be it with another view, must not choose the model
        back = seeded_choice(subjects - tested, count, self.seed, "validation")
        searched = [row for row in sides.train if self.subjects[row] in back]
        validations = self.drawn(searched, [], "validation")
        self.check_queries(validations, searched, "validation", f"{len(back)} of {len(subjects)} subjects held out")
        check_validation(
            validations,
            self.labels,
            f"hold out more than {len(back)} of {len(subjects)} training subjects (data.validation_share, now "
            f"{share:g}), give more subjects, or validate with one photo of each (data.validation: closed-set)",
        )
        kept = in_path_order((row for row in train if self.subjects[row] not in back), self.paths)
        notes = [f"{len(back)} of {len(subjects)} training subjects held out for validation: {len(searched)} photos"]
        if len(back) > asked:
            notes[0] += f" (a share of {share:g} is {asked}, whom any model would find)"
        if len(back) == 1:
            notes.append(
                f"validation contains the {self.label}s of one person only: set "
                "data.validation_share higher for more people in it, or data.validation to closed-set"
            )
        return _Validated(kept, in_path_order(searched, self.paths), validations, notes)

    def _closed_set(self, sides: Sides, tests: Sequence[Draw]) -> _Validated:
        train = self._seen(sides.train)
        tested = {self.labels[row] for draw in tests for row in draw.query}
        free = [row for row in self._with_company(train) if self.labels[row] not in tested]
        chosen = one_per_label(free, self.labels, self.paths, self.seed, "closed-set", 0)
        kept, query = in_path_order(set(train) - chosen, self.paths), in_path_order(chosen, self.paths)
        draws = (Draw(kept, query),)
        self.check_queries(draws, train, "validation", "one photo of each training identity")
        check_validation(draws, self.labels, "two training identities or more are needed, each with two photos or more")
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
            self.check_queries(validations, new, "validation", "the given validation photos")
            check_validation(validations, self.labels, _MORE_GIVEN)
            return _Validated(train, in_path_order(new, self.paths), validations, ["validation identities as given"])
        query = in_path_order(shared, self.paths)
        notes = [f"{len(shared)} validation photos of training identities as given"]
        if new:
            notes.append(f"{len(new)} validation photos left out: their identities are not in training, others are")
        draws = (Draw(train, query),)
        check_validation(draws, self.labels, _MORE_GIVEN)
        return _Validated(train, query, draws, notes)

    def check_queries(self, draws: Sequence[Draw], searched: Sequence[int], purpose: str, what: str) -> None:
        of = f" ({self.view})" if self.view else ""
        check_queries(draws, self.manifest, self.label, self._seen(searched), purpose, f"{what}{of}")

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


def _among_all(split: Split, manifest: Manifest) -> Split:
    """The split of the photos with a subject, its rows numbered as in the whole manifest."""
    without = manifest.table["subject"].is_null().to_numpy()
    rows = np.flatnonzero(~without)

    def drawn(draws: Sequence[Draw]) -> tuple[Draw, ...]:
        return tuple(replace(draw, gallery=rows[draw.gallery], query=rows[draw.query]) for draw in draws)

    parts = Counter(manifest.table["split"].filter(pl.Series(without)).drop_nulls())
    given = f", {format_list(f'{name} {count:,}' for name, count in sorted(parts.items()))} of them" if parts else ""
    note = f"{counted(int(without.sum()), 'photo')} without a subject left out, as each may show anybody{given}"
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
    """Every photo that is searched for or among in any test draw, once, ascending."""
    return np.unique(np.concatenate([part for draw in split.test for part in (draw.gallery, draw.query)]))
