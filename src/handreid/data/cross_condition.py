"""Cross-condition evaluation: gallery photos of one view (or side), query photos of another. Draws of every cell.

* Enrolment is drawn once: one photo of every view of every subject, as `splits` draws it for the label "view". The same
  photo stands for the hand in every cell, and in the merged gallery of the last column, whose cells are thus those of
  a plain evaluation.
* A cell's gallery holds photos of its own condition only, one of each identity, so there is one right answer. The
  subject's other views are not in it: they would be better answers, counted as wrong.
* All photos of the query's condition are queries, except the one enrolled in that draw, and those whose identity is
  not enrolled.
* A mirrored photo is a row of its own: row r of n is mirrored in row n + r.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from handreid.data.draw_checks import check_galleries, check_queries
from handreid.data.draws import gallery_draw, in_path_order, one_per_label
from handreid.data.manifest import LabelKind, Manifest, names_of
from handreid.draw import Draw
from handreid.errors import ProtocolError

CrossedBy = Literal["view", "side"]
ALL = {"view": "all views", "side": "both sides"}
SAME = {"view": "same view", "side": "same hand"}
_ORDER = ("dorsal-right", "dorsal-left", "palmar-right", "palmar-left", "dorsal", "palmar", "right", "left")


@dataclass(frozen=True, eq=False)
class Cell:
    """`identities`: one per row, then one per mirrored row; `blank`: why there are no draws."""

    gallery: str
    query: str
    kind: str
    mirrored: bool
    draws: tuple[Draw, ...]
    identities: tuple[str, ...]
    blank: str | None = None


@dataclass(frozen=True, eq=False)
class Crossing:
    """`cells` in reading order, query by query. `shared` are those over the `identities` that have photos of all
    conditions: the same people are enrolled in every gallery.

    There are `people` identities in all; `rows` are the photos whose condition is known, `unknown` counts the others.
    """

    conditions: tuple[str, ...]
    cells: tuple[Cell, ...]
    shared: tuple[Cell, ...]
    identities: tuple[str, ...]
    people: int
    rows: Int[np.ndarray, " photos"]
    unknown: int


@dataclass(frozen=True, eq=False)
class _Shots:
    """Columns of the manifest; `rows` may be enrolled or queried, `always` (distractors) are in every gallery."""

    by: CrossedBy
    rows: tuple[int, ...]
    always: tuple[int, ...]
    aspects: Sequence[str | None]
    sides: Sequence[str | None]
    views: Sequence[str | None]
    subjects: Sequence[str]
    paths: Sequence[str]

    def condition(self, row: int) -> str:
        return str((self.views if self.by == "view" else self.sides)[row])

    def identity(self, row: int) -> str:
        """A subject, or with sides crossed one aspect of a subject: the palm is no right answer for the back."""
        aspect = self.aspects[row] if self.by == "side" else None
        return f"{self.subjects[row]}/{aspect}" if aspect else self.subjects[row]

    def enrolled_as(self, row: int) -> str:
        return f"{self.subjects[row]}/{self.views[row]}"

    def kind(self, gallery: int, query: int) -> str:
        """How the query's condition relates to the gallery's, from a photo of each."""
        aspect_known, side_known = self.aspects[query] is not None, self.sides[query] is not None
        same_aspect = self.aspects[gallery] == self.aspects[query] or self.by == "side"
        if self.sides[gallery] != self.sides[query]:
            return f"other hand, {'same' if same_aspect else 'other'} aspect" if aspect_known else "other hand"
        if same_aspect:
            return SAME["view" if aspect_known else "side"]
        return "other aspect of the same hand" if side_known else "other aspect"

    def of_identities(self, identities: Collection[str]) -> "_Shots":
        return replace(self, rows=tuple(row for row in self.rows if self.identity(row) in identities), always=())


def cross_views(
    manifest: Manifest,
    rows: Int[np.ndarray, " photos"],
    by: CrossedBy,
    *,
    seed: int,
    draws: int,
    mirrors: bool = True,
) -> Crossing:
    """Every view (or side) of the photos as gallery, every one as query.

    Rows of split `distractor` are in the galleries of their condition. `mirrors` adds, where gallery and query are of
    different hands, a cell whose queries are mirrored. Raises ProtocolError where the photos show fewer than two.
    """
    shots, unknown = _shots(manifest, rows, by)
    names = {shots.condition(row) for row in shots.rows}
    conditions = tuple(sorted(names, key=_ORDER.index))
    if len(conditions) < 2:
        raise ProtocolError(
            f"a matrix over {by} needs test photos of two {'views' if by == 'view' else 'sides'} or more; all test "
            f"photos of {manifest.dataset} show {conditions[0]}"
        )
    shared = _identities_everywhere(shots, conditions)
    return Crossing(
        conditions,
        tuple(_cells(shots, conditions, seed, draws, mirrors=mirrors, merged=True)),
        tuple(_cells(shots.of_identities(shared), conditions, seed, draws, mirrors=mirrors) if shared else ()),
        tuple(sorted(shared)),
        len({shots.identity(row) for row in shots.rows}),
        np.array(sorted({*shots.rows, *shots.always}), np.int64),
        unknown,
    )


def drop_rows(draws: Sequence[Draw], out: Collection[int]) -> tuple[Draw, ...]:
    """The draws without the rows in `out`, in gallery and queries."""
    left_out = np.array(sorted(out), np.int64)
    return tuple(Draw(*(part[~np.isin(part, left_out)] for part in (draw.gallery, draw.query))) for draw in draws)


def draw_all_subjects(
    manifest: Manifest, label: LabelKind, view: str | None, *, seed: int, draws: int
) -> tuple[Draw, ...]:
    """Draws over all subjects, for photos that no model was trained on; distractors are in every gallery.

    Photos without a subject are in no draw. Raises ProtocolError where there is one identity only, or none has two
    photos.
    """
    labels, paths = names_of(manifest, label), manifest.table["path"].to_list()
    labelled = manifest.table["subject"].is_not_null()
    extra = {row for row in _distractors(manifest) if labelled[row]}
    searched = [row for row in range(len(manifest)) if labelled[row] and row not in extra]
    queried = {row for row in searched if view is None or manifest.views[row] == view}
    test_draws = tuple(
        gallery_draw(searched, queried, sorted(extra), labels, paths, seed, "gallery", draw) for draw in range(draws)
    )
    check_queries(test_draws, manifest, label, queried, "test", f"everyone of {manifest.dataset}")
    check_galleries(test_draws, labels, "test", "give photos of more people")
    return test_draws


def _shots(manifest: Manifest, rows: Int[np.ndarray, " photos"], by: CrossedBy) -> tuple[_Shots, int]:
    """The usable rows, and how many are not. If one photo states the other of aspect and side, all must state it:
    otherwise one view would have two names (`dorsal`, `dorsal-right`).
    """
    table = manifest.table
    columns = {name: table[name].to_list() for name in ("aspect", "side")}
    needed = {"aspect" if by == "view" else "side"} | {
        name for name, values in columns.items() if any(values[row] for row in rows)
    }
    labelled = table["subject"].is_not_null()
    usable = [int(row) for row in rows if labelled[int(row)] and all(columns[name][row] for name in needed)]
    if not usable:
        raise ProtocolError(
            f"a matrix over {by} needs the {' and '.join(sorted(needed))} of photos; no test photo of "
            f"{manifest.dataset} has {'them' if len(needed) > 1 else 'it'}: fill in the manifest's columns"
        )
    extra = _distractors(manifest)
    shots = _Shots(
        by,
        tuple(row for row in usable if row not in extra),
        tuple(row for row in usable if row in extra),
        columns["aspect"],
        columns["side"],
        manifest.views,
        names_of(manifest, "subject"),
        table["path"].to_list(),
    )
    return shots, len(rows) - len(usable)


def _distractors(manifest: Manifest) -> set[int]:
    return set((manifest.table["split"] == "distractor").fill_null(value=False).arg_true().to_list())


def _identities_everywhere(shots: _Shots, conditions: Sequence[str]) -> set[str]:
    """Identities with a photo of every condition: they can be enrolled in every gallery."""
    pairs = {(shots.identity(row), shots.condition(row)) for row in shots.rows}
    return {name for name, _ in pairs if all((name, condition) in pairs for condition in conditions)}


def _cells(
    shots: _Shots, conditions: Sequence[str], seed: int, draws: int, *, mirrors: bool, merged: bool = False
) -> Iterator[Cell]:
    count = len(shots.paths)
    enrolled = {row: shots.enrolled_as(row) for row in shots.rows}
    labels = [enrolled.get(row, "") for row in range(count)]
    enrolments = [one_per_label(shots.rows, labels, shots.paths, seed, "gallery", draw) for draw in range(draws)]
    identities = tuple(shots.identity(row) for row in range(count)) * 2
    rows_of = {name: [row for row in shots.rows if shots.condition(row) == name] for name in conditions}
    extra = {name: [row for row in shots.always if shots.condition(row) == name] for name in conditions}
    for query in conditions:
        for gallery in conditions:
            cell_draws = tuple(
                _draw(shots, [row for row in rows_of[gallery] if row in enrolment], extra[gallery], rows_of[query])
                for enrolment in enrolments
            )
            kind = shots.kind(rows_of[gallery][0], rows_of[query][0])
            blank = _blank(shots, gallery, query, cell_draws, shots.identity)
            cell = Cell(gallery, query, kind, False, () if blank else cell_draws, identities, blank)
            yield cell
            if mirrors and kind.startswith("other hand"):
                yield replace(cell, mirrored=True, draws=tuple(_searched_mirrored(draw, count) for draw in cell.draws))
        if merged:
            yield _merged(shots, query, enrolments, rows_of[query], labels)


def _draw(shots: _Shots, enrolled: Sequence[int], extra: Sequence[int], searched: Sequence[int]) -> Draw:
    gallery, identities = set(enrolled), {shots.identity(row) for row in enrolled}
    queries = [row for row in searched if row not in gallery and shots.identity(row) in identities]
    return Draw(in_path_order([*enrolled, *extra], shots.paths), in_path_order(queries, shots.paths))


def _searched_mirrored(draw: Draw, count: int) -> Draw:
    return Draw(draw.gallery, draw.query + count)


def _merged(
    shots: _Shots, query: str, enrolments: Sequence[set[int]], searched: Sequence[int], labels: Sequence[str]
) -> Cell:
    """As in a plain evaluation: the gallery holds all views, and only the query's own view is a right answer."""
    cell_draws = []
    for enrolment in enrolments:
        queries = _draw(shots, [row for row in searched if row in enrolment], (), searched).query
        cell_draws.append(Draw(in_path_order([*enrolment, *shots.always], shots.paths), queries))
    blank = _blank(shots, query, query, cell_draws, shots.enrolled_as)
    identities = tuple(label or shots.enrolled_as(row) for row, label in enumerate(labels)) * 2
    kind = f"{shots.kind(searched[0], searched[0])}, among {ALL[shots.by]}"
    return Cell(ALL[shots.by], query, kind, False, () if blank else tuple(cell_draws), identities, blank)


def _blank(shots: _Shots, gallery: str, query: str, draws: Sequence[Draw], name: Callable[[int], str]) -> str | None:
    """Why a cell has no numbers: no query, or one identity only in the gallery, which any model finds."""
    if not len(draws[0].query):
        return _reason(shots, gallery, query)
    if any(len({name(row) for row in draw.gallery.tolist()}) < 2 for draw in draws):
        return f"only one identity has photos of {gallery}: rank-1 would be 100 % for any model"
    return None


def _reason(shots: _Shots, gallery: str, query: str) -> str:
    if gallery == query:
        return f"no test subject has two photos of {query}{' of one aspect' if shots.by == 'side' else ''}"
    return f"no test subject has photos of both {gallery} and {query}"
