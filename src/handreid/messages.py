"""Text that is safe to print on a terminal, and short lists of names.

Names, notes and paths may hold any character. Control characters can move a terminal's cursor, rename its window or
paste commands into it; characters that change the direction of writing can disguise a name. All are shown as escapes.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 2_800  # characters of a message
_FEW = 12  # up to so many names are all listed; of more, only the nearest

# control characters, surrogates (bytes of a file name that are no UTF-8), line separators, and those that turn the
# direction of writing
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARKUP = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;"})


def line(words: str) -> str:
    """Text as one line that is safe on a terminal: control characters, line breaks included, become escapes."""
    return _UNSAFE.sub(_escape, words)


def lines(text: str) -> str:
    """As `line`, but line breaks stay. Later lines are indented, so that none can pass for a message of its own."""
    head, *tail = text.split("\n")
    return "\n".join([line(head), *(line(part if part[:1] in ("", " ") else f"  {part}") for part in tail)])


def text(several: str) -> str:
    """Text of several lines, such as a file's; line breaks stay, each line is made safe."""
    return "\n".join(map(line, several.split("\n")))


def shortened(text: str, limit: int = LONGEST) -> str:
    """The beginning of a long text, and how much more there is."""
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit:,} more characters)"


def shown(value: object, limit: int = 60) -> str:
    """A value as Python writes it, its beginning where that is long."""
    try:
        return shortened(repr(value), limit)
    except ValueError:  # whole numbers of more than 4,300 digits
        return "a number of thousands of digits"


def listed(names: Iterable[object], limit: int = _FEW) -> str:
    """`a, b, c and 4 more`."""
    texts = [shortened(str(name), 200) for name in names]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit:,} more" if len(texts) > limit else "")


def known(name: str, names: Sequence[str], where: str) -> str:
    """A hint for a misspelt name: all names if they are few, else the nearest three and `where` all are listed."""
    near = difflib.get_close_matches(name[:100], names, n=3, cutoff=0.5)
    few = len(names) <= _FEW
    guess = " or ".join(map(repr, near[:1] if few else near))
    if few:
        return f"known are {', '.join(names)}" + (f"; did you mean {guess}?" if guess else "")
    return (f"did you mean {guess}? " if guess else "") + f"All {len(names)} are listed {where}"


def json_text(content: Any) -> str:
    """JSON that is safe on a terminal and parses to the same content."""
    return _UNSAFE.sub(_json_escape, json.dumps(content, indent=1, ensure_ascii=False))


def csv_cell(value: Any) -> Any:
    """A value that is harmless in a spreadsheet, which would run text that begins like a formula; numbers stay numbers.

    OWASP, "CSV Injection": an apostrophe before `=`, `+`, `-`, `@`, tab and carriage return.
    """
    if not isinstance(value, str):
        return value
    risky = value.lstrip()[:1] in ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20") or value[:1] in "\t\r\n"
    return f"'{value}" if value and risky and not _NUMBER.fullmatch(value) else value


def markdown(text: str) -> str:
    """Text escaped for Markdown: it cannot end a table cell, and contains no HTML, link or picture."""
    return line(text).translate(_MARKUP).replace("](", "]\\(")


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    escape = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter)
    if escape:
        return escape
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _json_escape(match: re.Match[str]) -> str:
    return match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}"  # json itself escapes line breaks in texts
