"""Reads text files in the encodings that spreadsheets save; other files give a message that says what they are."""

import codecs
import stat
from pathlib import Path

from handreid.data.names import printable
from handreid.errors import ManifestError

_BOMS = (  # the longer ones first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_AS_CSV = "save the table as CSV (in Excel: File > Save As > CSV UTF-8) and give that"
_PHOTO = "give a table that names photos, or `handreid data prepare folders` the folder they are in"
_OTHERS = (
    (b"PAR1", "a parquet file", "if it is a manifest, it is prepared already: `handreid data check` it"),
    (b"PK\x03\x04", "a workbook of Excel or LibreOffice, or a zip archive", _AS_CSV),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel", _AS_CSV),
    (b"\x89PNG", "a picture", _PHOTO),
    (b"\xff\xd8\xff", "a picture", _PHOTO),
    (b"GIF8", "a picture", _PHOTO),
    (b"RIFF", "a picture", _PHOTO),
    (b"II*\0", "a picture", _PHOTO),
    (b"MM\0*", "a picture", _PHOTO),
    (b"%PDF", "a PDF", _AS_CSV),
    (b"\x1f\x8b", "a compressed file", "unpack it first"),
    (b"SQLite", "a database", _AS_CSV),
)


def read_text(path: Path, missing: str = "") -> str:
    """The whole file: UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one.

    Raises ManifestError, with the line at fault, for a file that is no text, or in another encoding; `missing` is added
    to the message if there is no file.
    """
    data = read_bytes(path, missing)
    for start, what, advice in _OTHERS:
        if data.startswith(start):
            raise ManifestError(f"{printable(path)} is {what}, not a text table; {advice}")
    mark, encoding, name = next((bom for bom in _BOMS if data.startswith(bom[0])), (b"", "utf-8", "UTF-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecoded(path, data, len(mark), name, error) from None
    if "\0" in text:
        line = _line(text[: text.index("\0")])
        raise ManifestError(
            f"{printable(path.name)} line {line}: a NUL character: the file is not text, is damaged, or is UTF-16 "
            "without its byte order mark; save it as CSV in UTF-8"
        )
    return text


def read_bytes(path: Path, missing: str = "") -> bytes:
    """Raises ManifestError for a path that does not exist, is no file, or cannot be read."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{printable(path)}: no such file" + (f"; {missing}" if missing else "")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ManifestError(f"{printable(path)} cannot be read ({reason})") from None
    what = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a folder"
    raise ManifestError(f"{printable(path)} is {what}; give a file")


def _undecoded(path: Path, data: bytes, mark: int, encoding: str, error: UnicodeDecodeError) -> ManifestError:
    """Most tables that are not UTF-8 are in Windows-1252: the character in that encoding helps to find the place."""
    before, place = error.object[: error.start], mark + error.start
    if encoding != "UTF-8":
        return ManifestError(f"{printable(path)} is damaged: byte {place} is not {encoding}, as its first bytes say")
    line = _line(before.decode("utf-8"))
    wrong = data[place : place + 1]
    character = wrong.decode("cp1252", "replace")
    looks = f", {character!r} in Windows-1252" if character.isprintable() and character != "\ufffd" else ""
    return ManifestError(
        f"{printable(path.name)} line {line}: byte {place} is not UTF-8 (0x{wrong.hex()}{looks}); save the table as "
        "UTF-8 (in Excel: CSV UTF-8)"
    )


def _line(before: str) -> int:
    return len(before.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
