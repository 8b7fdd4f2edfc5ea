"""One person under several names: names that look the same, or nearly, and are different text."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from handreid.data.names import is_blank, is_invisible, visible
from handreid.data.tables import format_list


def similar_names(subjects: Sequence[str | None]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What to say, and the rows that it is about, where names differ only by case, width, blanks or invisible
    characters.

    `subjects` has the name of every row. Letters of other alphabets that look alike are not compared.
    """
    alike: dict[str, list[str]] = {}
    for name in sorted({name for name in subjects if name is not None}):
        alike.setdefault(likeness(name), []).append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if groups:
        every = {name for names in groups for name in names}
        told = format_list((" and ".join(map(visible, names)) for names in groups), separator="; ")
        message = (
            f"{len(every)} names of subjects differ only by case, width, blanks or invisible characters, so that one "
            f"person may be several: {told}; give each person one name"
        )
        yield message, tuple(row for row, name in enumerate(subjects) if name in every)


@cache
def likeness(name: str) -> str:
    """The same for names that differ only so.

    NFKC makes wide and narrow forms one; it can bring forth blanks and fillers, which go last.
    """
    seen = "".join(character for character in name if not is_invisible(character))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
    return "".join(character for character in folded if not is_blank(character) and not is_invisible(character))
