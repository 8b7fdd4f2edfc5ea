"""Finds subjects whose names look the same or nearly the same, but are different text."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from handreid.data.names import is_blank, is_invisible, visible
from handreid.data.tables import format_list


def similar_names(subjects: Sequence[str | None]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A message and its rows, if names differ only by case, width, blanks or invisible characters; else nothing.

    `subjects` has the name of every row. Letters of different alphabets that look alike are not compared.
    """
    by_likeness: dict[str, list[str]] = {}
    for name in sorted({name for name in subjects if name is not None}):
        by_likeness.setdefault(likeness(name), []).append(name)
    groups = [names for names in by_likeness.values() if len(names) > 1]
    if groups:
        similar = {name for names in groups for name in names}
        listing = format_list((" and ".join(map(visible, names)) for names in groups), separator="; ")
        message = (
            f"{len(similar)} names of subjects differ only by case, width, blanks or invisible characters, so that one "
            f"person may be several: {listing}; give each person one name"
        )
        yield message, tuple(row for row, name in enumerate(subjects) if name in similar)


@cache
def likeness(name: str) -> str:
    """A key that is equal for names that differ only by case, width, blanks or invisible characters.

    NFKC merges wide and narrow forms; it can produce blanks and fillers, which are removed last.
    """
    stripped = "".join(character for character in name if not is_invisible(character))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", stripped).casefold())
    return "".join(character for character in folded if not is_blank(character) and not is_invisible(character))
