"""Photos of nobody known: a subject that is empty, or that only says that nobody knows.

They are nobody's: two of them may be one person or two, and each may be anybody who is named. So they never train,
validate or are tested, and no figure calls them right or wrong.
"""

import re
from collections.abc import Sequence

from handreid.data.tables import format_list

UNKNOWN = "identity unknown"  # in the place of a name, for people to read
NAMES = ("unknown", "unknowns", "unlabelled", "unlabeled", "unidentified", "unnamed")
_AROUND = r"[\W_]*"  # `_unknown`, `(unidentified)`
_SAYS_NOTHING = re.compile(rf"{_AROUND}(?:{'|'.join(NAMES)}){_AROUND}|\?+", re.IGNORECASE)


def says_nothing(name: str) -> bool:
    """Whether a folder or a cell called so names nobody: one of `NAMES` in any case, with signs around it, or `?`.

    `unknown1` is a name: whoever numbers unknown people says which photos are of one.
    """
    return _SAYS_NOTHING.fullmatch(name.strip()) is not None


def named(subjects: Sequence[str | None]) -> list[str | None]:
    """The subjects, None in the place of each that says nothing."""
    return [None if not subject or says_nothing(subject) else subject for subject in subjects]


def note(subjects: Sequence[str | None], what: str) -> tuple[str, ...]:
    """Of subjects as they were written: how many photos are of nobody known and how that was said; none if none."""
    said = [subject for subject in subjects if not subject or says_nothing(subject)]
    if not said:
        return ()
    words = sorted({repr(subject) if subject else "empty" for subject in said})
    photos = "1 photo is" if len(said) == 1 else f"{len(said):,} photos are"
    return (f"{photos} without a subject ({what} {format_list(words)}): neither trained on nor tested",)
