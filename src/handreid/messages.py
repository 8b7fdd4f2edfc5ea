"""Words for people: what a terminal may be shown of text that others wrote, and lists that stay short.

A name, a note or a path may hold anything. Control characters move a terminal's cursor, rename its window or paste
commands into it; characters that turn the direction of writing show a name as another. All are shown as escapes.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 2_800  # characters of a message; what is longer nobody reads
_FEW = 12  # names that are listed without looking for a near one

# control characters, surrogates (bytes of a file name that are no UTF-8), line separators, and those that turn the
# direction of writing
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARKUP = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;"})


def line(words: str) -> str:
    """As one line that any terminal can be shown; what would act on it, line breaks included, becomes an escape."""
    return _UNSAFE.sub(_escape, words)


def lines(text: str) -> str:
    """The same with line breaks, after which every line is indented: none can pose as a message of its own."""
    first, *others = text.split("\n")
    return "\n".join([line(first), *(line(other if other[:1] in ("", " ") else f"  {other}") for other in others)])


def text(several: str) -> str:
    """Text in lines of its own, such as a file's, with its line breaks as they are."""
    return "\n".join(map(line, several.split("\n")))


def shortened(text: str, most: int = LONGEST) -> str:
    """The beginning of a long text, and how much more there is."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} more characters)"


def shown(value: object, most: int = 60) -> str:
    """A value as Python writes it, its beginning where that is long."""
    try:
        return shortened(repr(value), most)
    except ValueError:  # whole numbers of more than 4,300 digits
        return "a number of thousands of digits"


def listed(names: Iterable[object], most: int = _FEW) -> str:
    """`a, b, c and 4 more`."""
    every = [shortened(str(name), 200) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most:,} more" if len(every) > most else "")


def known(found: str, names: Sequence[str], where: str) -> str:
    """What a misspelt name may have meant: few names are listed, of many the nearest three, and `where` all are."""
    near = difflib.get_close_matches(found[:100], names, n=3, cutoff=0.5)
    few = len(names) <= _FEW
    meant = " or ".join(map(repr, near[:1] if few else near))
    if few:
        return f"known are {', '.join(names)}" + (f"; did you mean {meant}?" if meant else "")
    return (f"did you mean {meant}? " if meant else "") + f"All {len(names)} are listed {where}"


def json_text(content: Any) -> str:
    """JSON that a terminal can be shown too; it reads back to the same."""
    return _UNSAFE.sub(_json_escape, json.dumps(content, indent=1, ensure_ascii=False))


def csv_cell(value: Any) -> Any:
    """Harmless in a spreadsheet, which takes text that begins like a formula for one; numbers stay numbers.

    OWASP, "CSV Injection": an apostrophe before `=`, `+`, `-`, `@`, tab and carriage return.
    """
    if not isinstance(value, str):
        return value
    risky = value.lstrip()[:1] in ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20") or value[:1] in "\t\r\n"
    return f"'{value}" if value and risky and not _NUMBER.fullmatch(value) else value


def markdown(text: str) -> str:
    """Text in Markdown: nothing of it is taken for a cell's end, for HTML, or for a link or picture to be fetched."""
    return line(text).translate(_MARKUP).replace("](", "]\\(")


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter)
    if named:
        return named
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _json_escape(found: re.Match[str]) -> str:
    return found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}"  # json itself escapes line breaks in texts
