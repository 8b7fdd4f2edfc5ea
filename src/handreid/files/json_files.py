"""JSON files with a checksum of their content, which is compared when they are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handreid.errors import RunError
from handreid.files.atomic import write_text
from handreid.files.checksums import CHECKSUM, checksum

_AGAIN = "restore a copy of it, or write it again"


def write_json(path: Path, content: Mapping[str, Any], *, by_line: bool = False) -> None:
    """Writes JSON with the hash of its content. `by_line`: one line per top-level key, for thousands of numbers.

    Raises OutputError.
    """
    whole = {**content, CHECKSUM: checksum(content)}
    if by_line:
        text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in whole.items()) + "\n}\n"
    else:
        text = json.dumps(whole, indent=1) + "\n"
    write_text(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, without its hash. Raises RunError for any other file, and for one that was changed.

    A file without a hash is accepted, unless it has the key `format`: handreid writes no such file without a hash.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        content = json.loads(text)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path} was not written by handreid: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path} line {error.lineno} is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, or a thousand nested lists
        raise RunError(f"{path} was not written by handreid: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} was not written by handreid: it holds {_kind(content)}, not an object")
    stated = content.pop(CHECKSUM, None)
    if stated is None and "format" in content:
        raise RunError(f"{path} was changed: its checksum is missing; {_AGAIN}")
    if stated is not None and stated != checksum(content):
        raise RunError(f"{path} was changed or damaged: its content does not match its checksum; {_AGAIN}")
    return content


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
