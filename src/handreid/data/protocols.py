"""Protocols divide subjects into training and test: those of the papers on 11k Hands and HD, disjoint, and prepared.

A protocol gives `Sides`: rows to train on, rows of test identities, and distractors. The later steps (held-out
identities, gallery draws) are the same for all protocols and are in `splits`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import Bool

from handreid.data.draw_checks import labels_that_would_do
from handreid.data.draws import in_path_order, seeded_choice
from handreid.data.manifest import Manifest
from handreid.data.tables import closest_match, format_list
from handreid.draw import Draw
from handreid.errors import ProtocolError

# Ids up to this one train, the others test (the hand papers' published cut-offs for 11k Hands).
HANDS11K_LAST_TRAIN_ID = {"dorsal-right": 1050, "dorsal-left": 1037, "palmar-right": 1051, "palmar-left": 1042}
HD_LAST_TRAIN_ID = 447


@dataclass(frozen=True, eq=False)
class Sides:
    """Rows of a manifest on the two sides of a protocol.

    `train` and `test` hold all views; `splits` narrows them to one. `always` (distractors) are in every gallery.
    `validation` and `given` (draws as prepared) are filled by the prepared protocol only.
    """

    train: list[int]
    test: list[int]
    always: list[int] = field(default_factory=list)
    validation: list[int] = field(default_factory=list)
    given: tuple[Draw, ...] = ()
    notes: tuple[str, ...] = ()


def hands11k(manifest: Manifest, view: str | None) -> Sides:
    """The papers' protocol on 11k Hands.

    Photos with accessories are dropped. Every view has its own cut-off between training and test ids. Pooling the views
    (`view` None) would leak subjects who train in one view and test in another: they are dropped from training, never
    from the test.
    """
    trains, tests = _hands11k_sides(manifest)
    notes = [f"{len(manifest) - int((trains | tests).sum()):,} photos with accessories dropped"]
    if view is not None:
        in_view = np.array(manifest.views) == view
        beside = _subjects(manifest, trains & in_view) & _subjects(manifest, tests & ~in_view)
        notes.append(
            f"{len(beside)} subjects train in {view} and are distractors in the gallery with another view, "
            "as in the papers"
        )
    elif leaking := hands11k_leak(manifest):
        pooled = manifest.table["subject"].is_in(leaking).to_numpy() & trains
        notes.append(
            f"{len(leaking)} subjects train in one view and test in another; {int(pooled.sum())} photos dropped from "
            f"training: {', '.join(sorted(leaking))}"
        )
        trains = trains & ~pooled
    return Sides(_rows(trains), _rows(tests), notes=tuple(notes))


def hands11k_leak(manifest: Manifest) -> set[str]:
    """Subjects of 11k Hands who are on both sides of the protocol as soon as the views are pooled."""
    manifest = manifest.labelled
    trains, tests = _hands11k_sides(manifest)
    return _subjects(manifest, trains) & _subjects(manifest, tests)


def hd(manifest: Manifest) -> Sides:
    """The papers' protocol on PolyU Hand Dorsal: ids up to 447 train; photos of folder 502-712 are in every gallery."""
    numbers = np.array(_numbers(manifest, "hd"))
    extra = _is_distractor(manifest)
    if not extra.any():
        raise ProtocolError(
            "the protocol hd needs the distractors of folder 502-712 in every gallery, but the manifest has none; "
            "prepare it with `handreid data prepare hd`, or choose the protocol disjoint"
        )
    trains = (numbers <= HD_LAST_TRAIN_ID) & ~extra
    tests = (numbers > HD_LAST_TRAIN_ID) & ~extra
    subject = manifest.table["subject"].to_numpy()
    note = (
        f"{len(set(subject[trains]))} training ids, {len(set(subject[tests]))} test ids, "
        f"{int(extra.sum()):,} distractors of {len(set(subject[extra]))} ids in every gallery"
    )
    return Sides(_rows(trains), _rows(tests), _rows(extra), notes=(note,))


def disjoint(manifest: Manifest, test_share: float, seed: int) -> Sides:
    """A share of the subjects, chosen by the hash of their names, is tested and never trained on."""
    extra = _is_distractor(manifest)
    subjects = _subjects(manifest, ~extra)
    count = max(1, round(test_share * len(subjects)))
    if not 0 < test_share < 1 or count >= len(subjects):
        raise ProtocolError(
            f"a test share of {test_share} of {len(subjects)} subjects leaves none for training or none for testing"
        )
    tested = seeded_choice(subjects, count, seed, "test")
    tests = manifest.table["subject"].is_in(tested).to_numpy() & ~extra
    notes = [f"{count} of {len(subjects)} subjects are used for testing, the others for training"]
    ignored = sorted(set(manifest.table["split"].drop_nulls()) - {"distractor"})
    if ignored:
        notes.append(
            f"the split of the manifest ({format_list(ignored)}) is not used; the protocol prepared would use it"
        )
    return Sides(_rows(~tests & ~extra), _rows(tests), _rows(extra), notes=tuple(notes))


def prepared(manifest: Manifest, labels: Sequence[str]) -> Sides:
    """The split that the manifest states; gallery draws too if there are query and gallery photos.

    Subjects on both sides stay on both, and the notes name them; validation photos of tested subjects are left out.
    """
    split = manifest.table["split"]
    rows = {name: _rows((split == name).fill_null(value=False).to_numpy()) for name in split.drop_nulls().unique()}
    if "train" not in rows or not rows.keys() & {"test", "query"}:
        raise ProtocolError(
            f"the protocol prepared needs photos with split 'train', and 'test' or 'query'; found "
            f"{format_list(sorted(rows)) or 'no split at all'}. Choose the protocol disjoint to split the "
            "subjects at random"
        )
    notes = [f"{split.null_count()} photos without a split left out"] if split.null_count() else []
    draws: tuple[Draw, ...] = ()
    test, always = rows.get("test", []), rows.get("distractor", [])
    if "query" in rows:
        draws, dropped = _given_draws(manifest, labels)
        notes += dropped
        if test:
            notes.append(f"{len(test)} photos of split 'test' left out: query and gallery are given")
        test, always = [], []
    subjects = manifest.table["subject"].to_list()
    tested = {subjects[row] for row in [*test, *(row for draw in draws for row in draw.query)]}
    overlap = {subjects[row] for row in rows["train"]} & tested
    if overlap:
        listing = format_list(sorted(overlap))
        notes.append(f"LEAK: {len(overlap)} subjects are trained on and tested, as given: {listing}")
    validation = [row for row in rows.get("validation", []) if subjects[row] not in tested]
    if len(validation) < len(rows.get("validation", [])):
        lost = len(rows["validation"]) - len(validation)
        notes.append(f"{lost} validation photos of tested subjects left out: no test identity chooses a model")
    return Sides(rows["train"], test, always, validation, draws, tuple(notes))


def view_rows(manifest: Manifest, view: str | None) -> Bool[np.ndarray, " rows"]:
    """Which rows show the view. Raises ProtocolError, listing the existing views, if none does."""
    if view is None:
        return np.ones(len(manifest), dtype=np.bool_)
    views = sorted({name for name in manifest.views if name})
    if view not in views:
        listing = format_list(views) or "none: the manifest has neither aspect nor side"
        raise ProtocolError(f"no photo of view {view!r}{closest_match(view, views)}; views in the manifest: {listing}")
    return np.array([name == view for name in manifest.views], dtype=np.bool_)


def _given_draws(manifest: Manifest, labels: Sequence[str]) -> tuple[tuple[Draw, ...], list[str]]:
    split, numbers = manifest.table["split"].to_list(), manifest.table["draw"].to_list()
    paths = manifest.table["path"].to_list()
    parts: dict[tuple[str | None, int | None], list[int]] = {}
    for row, place in enumerate(zip(split, numbers, strict=True)):
        parts.setdefault(place, []).append(row)
    draws, notes = [], []
    drawn = sorted({number for name, number in parts if name == "query"}, key=lambda number: (number is None, number))
    for number in drawn:
        queries, gallery = parts["query", number], parts.get(("gallery", number), [])
        enrolled = {labels[row] for row in gallery}
        answered = [row for row in queries if labels[row] in enrolled]
        name = "the queries" if number is None else f"query{number}"
        if not answered:
            raise ProtocolError(
                f"{name}: no identity of its {len(queries)} photos is in the gallery of {len(gallery)} photos; "
                "identities are matched by name, so a person must have the same folder or subject in both"
                f"{_other_labels(manifest, queries, gallery)}"
            )
        if len(answered) < len(queries):
            notes.append(f"{name}: {len(queries) - len(answered)} photos have no right answer in the gallery, left out")
        extra = {row for where in (number, None) for row in parts.get(("distractor", where), [])}
        draws.append(Draw(in_path_order([*gallery, *extra], paths), in_path_order(answered, paths)))
    return tuple(draws), notes


def _other_labels(manifest: Manifest, queries: Sequence[int], gallery: Sequence[int]) -> str:
    """Advice on labels with which queries have an answer in the gallery: with `view` a palm does not match a back."""

    def answered(labels: Sequence[str | None]) -> int:
        enrolled = {labels[row] for row in gallery}
        return sum(labels[row] in enrolled for row in queries)

    if not any(answered(manifest.labels(kind)) for kind in manifest.label_kinds):
        return ""
    return f"; {labels_that_would_do(manifest, answered, 'query', 'with an answer there')}"


def _hands11k_sides(manifest: Manifest) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    clean = _without_accessories(manifest)
    unknown = sorted({str(name) for name in manifest.views} - HANDS11K_LAST_TRAIN_ID.keys())
    if unknown:
        raise ProtocolError(f"the protocol hands11k needs aspect and side of every photo; found {format_list(unknown)}")
    cutoffs = [HANDS11K_LAST_TRAIN_ID[str(name)] for name in manifest.views]
    low = np.array(_numbers(manifest, "hands11k")) <= np.array(cutoffs)
    return low & clean, ~low & clean


def _without_accessories(manifest: Manifest) -> Bool[np.ndarray, " rows"]:
    if "accessories" not in manifest.table.columns:
        raise ProtocolError(
            "the protocol hands11k drops photos with accessories, but the manifest has no column 'accessories'; "
            "prepare it with `handreid data prepare hands11k`, or choose the protocol disjoint"
        )
    flag = manifest.table["accessories"].cast(pl.Int64, strict=False)
    wrong = manifest.table.filter(~flag.is_in([0, 1]).fill_null(value=False))
    if wrong.height:
        raise ProtocolError(f"{wrong['origin'][0]}: accessories {wrong['accessories'][0]!r} is not 0 or 1")
    return (flag == 0).to_numpy()


def _numbers(manifest: Manifest, protocol: str) -> list[int]:
    subjects = manifest.table["subject"].to_list()
    wrong = sorted(
        {subject for subject in subjects if not (subject.isascii() and subject.isdigit() and len(subject) <= 18)}
    )
    if wrong:
        raise ProtocolError(f"the protocol {protocol} splits by numeric subject ids; found {format_list(wrong, 3)}")
    return [int(subject) for subject in subjects]


def _is_distractor(manifest: Manifest) -> Bool[np.ndarray, " rows"]:
    return (manifest.table["split"] == "distractor").fill_null(value=False).to_numpy()


def _subjects(manifest: Manifest, rows: Bool[np.ndarray, " rows"]) -> set[str]:
    return set(manifest.table["subject"].filter(pl.Series(rows)))


def _rows(which: Bool[np.ndarray, " rows"]) -> list[int]:
    return [int(row) for row in np.flatnonzero(which)]
