"""Names in Unicode: one letter may be encoded in two ways, and some characters are invisible.

`é` is one character (NFC, as most systems write it) or an `e` and an accent (NFD, as a Mac's zip has it). They look the
same, and a Linux disk takes them for two names.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

_BRAILLE_BLANK = "\u2800"
# Unicode's Default_Ignorable_Code_Point, as far as it is not in the category Cf
_IGNORABLE = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2065, 0x2065),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0xE0000, 0xE0FFF),
)


def nfc(text: str) -> str:
    """Composed Unicode (NFC), in which names of a manifest are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """NFC without the difference between capitals and small letters."""
    return nfc(nfc(text).casefold())


def is_blank(character: str) -> bool:
    return character.isspace() or character == _BRAILLE_BLANK


@cache
def is_invisible(character: str) -> bool:
    """Control and format characters (zero-width, byte order mark, soft hyphen, direction marks) and other ignorable
    ones; blanks are none.
    """
    if is_blank(character):
        return False
    code = ord(character)
    return unicodedata.category(character) in ("Cc", "Cf") or any(low <= code <= high for low, high in _IGNORABLE)


def visible(text: str) -> str:
    """In quotes; invisible characters, such as a zero-width space, become escapes. Plain spaces stay."""
    return "'" + "".join(map(_escaped, text)) + "'"


def is_utf8(name: str) -> bool:
    """Whether a name from the disk is valid text; other names cannot be put into a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: object) -> str:
    """A path as text that can be encoded: bytes that are not UTF-8 become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode()


class Spellings:
    """Finds files on disk by names that are spelled otherwise, equal by `key`; each folder is listed once."""

    def __init__(self, root: Path, key: Callable[[str], str] = nfc) -> None:
        self.root = root
        self.key = key
        self._listings: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """The path below the root as the disk spells it; None if it exists in no spelling.

        The given spelling is preferred, then the first in the order of code points.
        """
        if os.path.lexists(self.root / path):
            return path
        return next(iter(self.candidates(path)), None)

    def candidates(self, path: str) -> list[str]:
        """All paths below the root that equal this one by `key`."""
        matches = [""]
        for part in path.split("/"):
            matches = [
                f"{folder}/{name}" if folder else name for folder in matches for name in self._matching(folder, part)
            ]
        return matches

    def _matching(self, folder: str, name: str) -> list[str]:
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            for entry in _names(self.root / folder):
                listing.setdefault(self.key(entry), []).append(entry)
            self._listings[folder] = listing
        entries = self._listings[folder].get(self.key(name), [])
        return sorted(entries, key=lambda entry: (entry != name, entry))


def spelled_on_disk(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Path to its spelling on disk, for the paths below the root that the disk spells otherwise."""
    spellings = Spellings(root)
    spellings_of = {path: spellings.find(path) for path in paths if not path.isascii()}
    return {path: spelling for path, spelling in spellings_of.items() if spelling is not None and spelling != path}


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        return []


def _escaped(character: str) -> str:
    hidden = is_invisible(character) or (is_blank(character) and character != " ") or not character.isprintable()
    return character.encode("unicode_escape").decode() if hidden else character
