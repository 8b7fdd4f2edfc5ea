"""YAML of others, read with one clear error: whatever the file is, however large its numbers or deep its lists."""

import math
from pathlib import Path
from typing import Any

from handreid.errors import RecipeError
from handreid.messages import shown

LARGEST = 2**32  # of whole numbers: seeds are below it, and nothing else comes near
_BYTES = 1_000_000
_DEEPEST = 50
_MOST = 20_000  # values; a few lines of YAML can stand for billions
_NO_TEXT = "a photo, a manifest or a model? photos are given as --data"


def read_text(path: Path, what: str) -> str:
    """The text of a file that should be `what`, a recipe or a sweep. Raises RecipeError."""
    try:
        if path.is_dir():
            raise RecipeError(f"{path} is a folder, not a {what}; the recipe of a run is its recipe.yaml")
        with path.open("rb") as file:
            content = file.read(_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{what} {path} cannot be read: {error.strerror}") from None
    except ValueError:  # a null byte in the name
        raise RecipeError(f"no {what} {shown(str(path))}: no such file") from None
    if len(content) > _BYTES:
        raise RecipeError(f"{path} is not a {what}: it is longer than {_BYTES:,} bytes ({_NO_TEXT})")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path} is not a {what}: line {line} is not UTF-8 text ({_NO_TEXT})") from None


def check_value(value: Any, where: str) -> None:
    """Raises RecipeError for what no recipe can mean, and what libraries below would choke on."""
    left, path = _MOST, set[int]()

    def look(one: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RecipeError(f"{where} holds more than {_MOST:,} values")
        if depth > _DEEPEST or id(one) in path:
            raise RecipeError(f"{where} is nested more than {_DEEPEST} levels deep, or contains itself")
        problem = _problem(one)
        if problem:
            raise RecipeError(f"{where} {problem}")
        if isinstance(one, dict | list):
            path.add(id(one))
            for key in one if isinstance(one, dict) else ():
                look(key, depth + 1)
            for item in one.values() if isinstance(one, dict) else one:
                look(item, depth + 1)
            path.discard(id(one))

    look(value, 0)


def _problem(one: Any) -> str:
    match one:
        case bool():
            return ""
        case int() if abs(one) >= LARGEST:
            return f"holds the whole number {shown(one)}; numbers are under {LARGEST:,}"
        case float() if not math.isfinite(one):
            return f"holds {one}, which is no number"
        case str() if "\0" in one:
            return f"holds a null byte, in {shown(one)}"
        case None | int() | float() | str() | dict() | list():
            return ""
        case _:
            return f"holds {shown(one)}, which YAML takes for a {type(one).__name__}: quote it"
