"""Writes the captions of a manifest from its columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import polars as pl

from handreid.data.captioning.chooser import Chooser
from handreid.data.captioning.columns import known_facts, other_fact, ring
from handreid.data.captioning.facts import Fact
from handreid.data.captioning.length import LONGEST, fits
from handreid.data.captioning.owner import owner
from handreid.data.captioning.selection import Said, select_columns
from handreid.data.captioning.sentence import distinct, sentence
from handreid.data.captioning.templates import template_fact, template_problem
from handreid.data.captioning.values import Value, bare, says_none
from handreid.data.captions import join_wordings
from handreid.data.manifest import Manifest
from handreid.data.tables import format_list, raise_all, short
from handreid.errors import ManifestError

NOTE = "captions: "  # how notes about them begin
MOST = 32  # wordings of a photo
_PAIRS = {"gender": "owner", "sex": "owner", "age": "owner", "ring": "ring", "ring finger": "ring"}  # said together
Row = dict[str, Value]


def add_captions(
    manifest: Manifest,
    columns: Sequence[str],
    *,
    wordings: int = 4,
    seed: int = 0,
    leave_out: float = 0.0,
    templates: Mapping[str, Sequence[str]] | None = None,
) -> Manifest:
    """The manifest with a caption of what `columns` say of each photo, in up to `wordings` different sentences.

    Unknown values are left out; a photo of which nothing is known has no caption. Gender and age are said only if they
    are among `columns`. Every wording fits CLIP's 77 tokens: one that would not leaves out facts that are too long by
    themselves, then those of the last columns. Wordings other than the first leave out each fact but the view with a
    chance of `leave_out`. `templates` are wordings for columns in place of ours, such as `under {value} light`; one
    without a place is said where the value is not no, none or 0. The same seed gives the same captions, whatever the
    order of the rows.

    Raises ManifestError for unknown columns and templates, and where nothing is known of any photo.
    """
    if not 1 <= wordings <= MOST or not 0 <= leave_out < 1:
        raise ManifestError(f"{wordings} wordings and {leave_out:g} left out: give 1 to {MOST}, and 0 to below 1")
    own = dict(templates or {})
    raise_all([f"template {short(t)} {what}" for ts in own.values() for t in ts if (what := template_problem(t))])
    selected = select_columns(manifest, [*columns, *own])
    own = {column.name: texts for name, texts in own.items() for column in select_columns(manifest, [name])}
    cells, too_long = [], 0
    for number, path in enumerate(manifest.table["path"]):
        row = {column.name: value for column in selected if (value := column.values[number]) is not None}
        view = {name: row.get(name) for name in ("aspect", "side") if name not in own}
        writer = _Writer(view, _facts(row, selected, own), seed, path)
        cells.append(join_wordings(writer.wordings(wordings, leave_out)) or None)
        too_long += writer.too_long
    if not any(cells):
        raise ManifestError(f"nothing is known of any photo in {format_list(column.name for column in selected)}")
    notes = [f"{NOTE}{note}" for note in _notes(manifest, cells, selected, too_long)]
    kept = [note for note in manifest.notes if not note.startswith(NOTE)]
    table = manifest.table.with_columns(pl.Series("caption", cells, dtype=pl.String))
    return replace(manifest, table=table, notes=(*kept, *notes))


def _notes(manifest: Manifest, cells: list[str | None], columns: Sequence[Said], too_long: int) -> Iterator[str]:
    empty = cells.count(None)
    yield f"{len(cells) - empty:,} of {len(cells):,} photos, from {format_list((one.name for one in columns), 30)}"
    if silent := [one.name for one in columns if one.values.count(None) == len(one.values)]:
        yield f"nothing is known in {format_list(silent, 30)}"
    if replaced := len(manifest) - manifest.table["caption"].null_count():
        yield f"{replaced:,} earlier ones replaced"
    if empty:
        yield f"{empty:,} photos without one, as none of these columns says anything of them"
    if too_long:
        yield f"{too_long:,} photos of which not everything is said, to fit CLIP's {LONGEST + 2} tokens"


def caption_notes(manifest: Manifest) -> list[str]:
    """The notes about captions."""
    return [note for note in manifest.notes if note.startswith(NOTE)]


def _facts(row: Row, columns: Sequence[Said], own: Mapping[str, Sequence[str]]) -> list[Fact]:
    """What a row says, in the order of the columns; columns that are said together stand where the first of them is."""
    facts: list[Fact | None] = []
    together: dict[str, Row] = {}
    for column in columns:
        pair = _PAIRS.get(column.words)
        if pair and column.name in row and column.name not in own:
            together.setdefault(pair, {})[column.words] = row[column.name]
    for column in columns:
        value = row.get(column.name)
        if value is None or (column.name in ("aspect", "side") and column.name not in own):
            continue
        pair = _PAIRS.get(column.words)
        if column.name in own:
            facts.append(template_fact(own[column.name], value))
        elif pair is None:
            facts += known_facts(column.words, value) or [other_fact(column.words, value)]
        elif pair in together:
            facts += _SAID_TOGETHER[pair](together.pop(pair))
    return [fact for fact in facts if fact is not None]


def _owner(values: Row) -> list[Fact]:
    return owner(values.get("gender", values.get("sex")), values.get("age"))


def _rings(values: Row) -> list[Fact]:
    """Ring and finger as one fact where both say that there is one."""
    kind, finger = values.get("ring"), values.get("ring finger")
    if isinstance(finger, str) and kind is not None and not says_none(kind) and not says_none(finger):
        return [ring(bare(kind, "ring") if isinstance(kind, str) else None, bare(finger))]
    return next(known_facts(words, value) or [other_fact(words, value)] for words, value in values.items())


_SAID_TOGETHER: dict[str, Callable[[Row], list[Fact]]] = {"owner": _owner, "ring": _rings}


class _Writer:
    """Writes the wordings of one photo."""

    def __init__(self, view: Mapping[str, Value | None], facts: Sequence[Fact], seed: int, path: str) -> None:
        self._aspect, self._side = (_text(view.get(name)) for name in ("aspect", "side"))
        self._facts, self._seed, self._path = facts, seed, path
        self.too_long = False

    def wordings(self, count: int, leave_out: float) -> list[str]:
        """Up to `count` different sentences; fewer where the facts have fewer, none without facts."""
        if not (self._facts or self._aspect or self._side):
            return []
        texts = distinct(lambda number: self._wording(number, leave_out if number else 0.0), count)
        return [text for text in texts if text]

    def _wording(self, number: int, leave_out: float) -> str:
        """Empty if what is known is too long."""
        chooser = Chooser(self._seed, self._path, number)
        facts = [fact for fact in self._facts if not (leave_out and chooser.chance(leave_out))]
        if not facts and self._no_view:
            facts = [chooser.one(self._facts)]
        text = self._sentence(facts, number)
        if not fits(text):
            self.too_long = True
            facts = [fact for fact in facts if fits(self._sentence([fact], number))]
            while not fits(text := self._sentence(facts, number)):
                facts = facts[:-1]
        return text if facts or not self._no_view else ""

    @property
    def _no_view(self) -> bool:
        return self._aspect is None and self._side is None

    def _sentence(self, facts: Sequence[Fact], number: int) -> str:
        return sentence(self._aspect, self._side, facts, Chooser(self._seed, f"{self._path}/words", number))


def _text(value: Value | None) -> str | None:
    return value if isinstance(value, str) else None
