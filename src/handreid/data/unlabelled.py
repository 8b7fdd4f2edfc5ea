"""Photos of unknown subjects: the subject is empty, or says `unknown` or the like.

Two of them may show one person or two, and each may show any subject of the manifest. So they are used neither for
training nor for validation or testing, and no figure calls them right or wrong.
"""

import re
from collections.abc import Sequence

from handreid.data.tables import format_list

UNKNOWN = "identity unknown"  # shown instead of a name
NAMES = ("unknown", "unknowns", "unlabelled", "unlabeled", "unidentified", "unnamed")
_AROUND = r"[\W_]*"  # `_unknown`, `(unidentified)`
_SAYS_NOTHING = re.compile(rf"{_AROUND}(?:{'|'.join(NAMES)}){_AROUND}|\?+", re.IGNORECASE)


def says_nothing(name: str) -> bool:
    """Whether the name of a folder or a cell means unknown: one of `NAMES` in any case, with signs around it, or `?`.

    `unknown1` is a name: numbers say which photos show the same unknown person.
    """
    return _SAYS_NOTHING.fullmatch(name.strip()) is not None


def known_subjects(subjects: Sequence[str | None]) -> list[str | None]:
    """The subjects, with None for each that says nothing."""
    return [None if not subject or says_nothing(subject) else subject for subject in subjects]


def note(subjects: Sequence[str | None], what: str) -> tuple[str, ...]:
    """A note on how many of the subjects, as written, are unknown and how they are written; empty if none."""
    unknown = [subject for subject in subjects if not subject or says_nothing(subject)]
    if not unknown:
        return ()
    words = sorted({repr(subject) if subject else "empty" for subject in unknown})
    photos = "1 photo is" if len(unknown) == 1 else f"{len(unknown):,} photos are"
    return (f"{photos} without a subject ({what} {format_list(words)}): neither trained on nor tested",)
