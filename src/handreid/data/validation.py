"""Validation photos and draws of a split: held-out identities, one photo of each training identity, or as given.

No test identity is in validation. A validation that searches among, or for, one identity only cannot choose a model,
and is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64

from handreid.data.draw_checks import check_queries, check_validation
from handreid.data.draws import gallery_draw, in_path_order, one_per_label, seeded_choice
from handreid.data.manifest import LabelKind, Manifest
from handreid.data.protocols import Sides, view_rows
from handreid.draw import Draw
from handreid.errors import ProtocolError

Validation = Literal["held-out", "closed-set"]
VALIDATIONS: tuple[Validation, ...] = get_args(Validation)
_MORE_GIVEN = (
    "give validation photos of two identities or more, or none at all, so that some training identities are held out"
)


@dataclass(frozen=True, eq=False)
class ValidationSplit:
    """The remaining training rows, the rows that only validation uses (`apart`), and its draws, over both."""

    train: Int64[np.ndarray, " train"]
    apart: Int64[np.ndarray, " validation"]
    draws: tuple[Draw, ...]
    notes: list[str]


@dataclass(frozen=True)
class SplitContext:
    """What all steps of a split need. `labels` and `paths` have an entry per row of `manifest`."""

    manifest: Manifest
    label: LabelKind
    labels: list[str]
    paths: list[str]
    view: str | None
    seed: int
    draws: int

    @cached_property
    def in_view(self) -> frozenset[int]:
        """Rows that show the view; all rows without one."""
        return frozenset(np.flatnonzero(view_rows(self.manifest, self.view)).tolist())

    @cached_property
    def subjects(self) -> list[str]:
        return self.manifest.table["subject"].to_list()

    def restrict_queries(self, draws: Sequence[Draw]) -> tuple[Draw, ...]:
        """The draws with queries of the view only; galleries keep all views."""
        return tuple(
            Draw(draw.gallery, in_path_order(self._rows_in_view(draw.query.tolist()), self.paths)) for draw in draws
        )

    def given_rows(self, draws: Sequence[Draw]) -> list[int]:
        return [row for draw in draws for part in (draw.gallery, draw.query) for row in part.tolist()]

    def draw_galleries(self, searched: Sequence[int], always: Sequence[int], purpose: str) -> tuple[Draw, ...]:
        """`draws` draws of a gallery from the rows `searched`, with queries of the view; `always` are distractors."""
        queried = self.in_view.intersection(searched)
        return tuple(
            gallery_draw(searched, set(queried), always, self.labels, self.paths, self.seed, purpose, draw)
            for draw in range(self.draws)
        )

    def choose_validation(
        self, sides: Sides, tests: Sequence[Draw], how: Validation, share: float, *, required: bool
    ) -> ValidationSplit:
        """Validation photos that the manifest gives, else by `how`, with `share` of the subjects for "held-out".

        Raises ProtocolError for a validation that could not choose a model; unless `required`, there is then no
        validation, with a note.
        """
        try:
            return self._choose(sides, tests, how, share)
        except ProtocolError as error:
            if required:
                raise
            none = np.empty(0, np.int64)
            train = in_path_order(self._rows_in_view(sides.train), self.paths)
            return ValidationSplit(train, none, (), [f"no validation: {error}"])

    def _choose(self, sides: Sides, tests: Sequence[Draw], how: Validation, share: float) -> ValidationSplit:
        if sides.validation:
            return self._given(sides)
        if how == "closed-set":
            return self._closed_set(sides, tests)
        return self._held_out(sides, tests, share)

    def _held_out(self, sides: Sides, tests: Sequence[Draw], share: float) -> ValidationSplit:
        tested = {self.subjects[row] for draw in tests for rows in (draw.query, draw.gallery) for row in rows}
        train = self._rows_in_view(sides.train)
        subjects = {self.subjects[row] for row in train}
        target = max(1, round(share * len(subjects)))
        count = 2 if target == 1 and len(subjects) >= 4 else target  # any model finds a single subject
        if not 0 < share < 1 or count >= len(subjects):
            raise ProtocolError(
                f"holding out {share} of {len(subjects)} training subjects for validation leaves none, or all, to "
                "train on"
            )
        # subjects in a test gallery, even with another view, must not choose the model
        back = seeded_choice(subjects - tested, count, self.seed, "validation")
        searched = [row for row in sides.train if self.subjects[row] in back]
        validations = self.draw_galleries(searched, [], "validation")
        self.check_queries(validations, searched, "validation", f"{len(back)} of {len(subjects)} subjects held out")
        check_validation(
            validations,
            self.labels,
            f"hold out more than {len(back)} of {len(subjects)} training subjects (data.validation_share, now "
            f"{share:g}), give more subjects, or validate with one photo of each (data.validation: closed-set)",
        )
        train_rows = in_path_order((row for row in train if self.subjects[row] not in back), self.paths)
        notes = [f"{len(back)} of {len(subjects)} training subjects held out for validation: {len(searched)} photos"]
        if len(back) > target:
            notes[0] += f" (a share of {share:g} is {target}, whom any model would find)"
        if len(back) == 1:
            notes.append(
                f"validation contains the {self.label}s of one person only: set "
                "data.validation_share higher for more people in it, or data.validation to closed-set"
            )
        return ValidationSplit(train_rows, in_path_order(searched, self.paths), validations, notes)

    def _closed_set(self, sides: Sides, tests: Sequence[Draw]) -> ValidationSplit:
        train = self._rows_in_view(sides.train)
        tested = {self.labels[row] for draw in tests for row in draw.query}
        free = [row for row in self._with_two_photos(train) if self.labels[row] not in tested]
        held = one_per_label(free, self.labels, self.paths, self.seed, "closed-set", 0)
        train_rows, query = in_path_order(set(train) - held, self.paths), in_path_order(held, self.paths)
        draws = (Draw(train_rows, query),)
        self.check_queries(draws, train, "validation", "one photo of each training identity")
        check_validation(draws, self.labels, "two training identities or more are needed, each with two photos or more")
        without = len({self.labels[row] for row in train}) - len(held)
        notes = [f"{len(held)} photos, one of each training identity, are kept for validation"]
        if without:
            notes.append(f"{without} training identities give none: their one photo trains, or they are tested too")
        return ValidationSplit(train_rows, query, draws, notes)

    def _given(self, sides: Sides) -> ValidationSplit:
        train = in_path_order(self._rows_in_view(sides.train), self.paths)
        trained = {self.labels[row] for row in train}
        shared = [row for row in self._rows_in_view(sides.validation) if self.labels[row] in trained]
        new = [row for row in sides.validation if self.labels[row] not in trained]
        if not shared:
            validations = self.draw_galleries(new, [], "validation")
            self.check_queries(validations, new, "validation", "the given validation photos")
            check_validation(validations, self.labels, _MORE_GIVEN)
            return ValidationSplit(
                train, in_path_order(new, self.paths), validations, ["validation identities as given"]
            )
        query = in_path_order(shared, self.paths)
        notes = [f"{len(shared)} validation photos of training identities as given"]
        if new:
            notes.append(f"{len(new)} validation photos left out: their identities are not in training, others are")
        draws = (Draw(train, query),)
        check_validation(draws, self.labels, _MORE_GIVEN)
        return ValidationSplit(train, query, draws, notes)

    def check_queries(self, draws: Sequence[Draw], searched: Sequence[int], purpose: str, what: str) -> None:
        suffix = f" ({self.view})" if self.view else ""
        check_queries(draws, self.manifest, self.label, self._rows_in_view(searched), purpose, f"{what}{suffix}")

    def _rows_in_view(self, rows: Iterable[int]) -> list[int]:
        return [row for row in rows if row in self.in_view]

    def _with_two_photos(self, rows: Sequence[int]) -> list[int]:
        """Rows of identities with two photos or more."""
        count: dict[str, int] = {}
        for row in rows:
            count[self.labels[row]] = count.get(self.labels[row], 0) + 1
        return [row for row in rows if count[self.labels[row]] > 1]
