"""Reads YAML files of unknown content: one clear error for any file, huge numbers or deep nesting."""

import math
from pathlib import Path
from typing import Any

from handreid.errors import RecipeError
from handreid.messages import shown

LARGEST = 2**32  # limit of whole numbers: seeds are below it, and all others are far smaller
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
    """Raises RecipeError for values that no recipe can have, and that libraries would fail on."""
    remaining, path = _MOST, set[int]()

    def look(node: Any, depth: int) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise RecipeError(f"{where} holds more than {_MOST:,} values")
        if depth > _DEEPEST or id(node) in path:
            raise RecipeError(f"{where} is nested more than {_DEEPEST} levels deep, or contains itself")
        problem = _problem(node)
        if problem:
            raise RecipeError(f"{where} {problem}")
        if isinstance(node, dict | list):
            path.add(id(node))
            for key in node if isinstance(node, dict) else ():
                look(key, depth + 1)
            for item in node.values() if isinstance(node, dict) else node:
                look(item, depth + 1)
            path.discard(id(node))

    look(value, 0)


def _problem(value: Any) -> str:
    match value:
        case bool():
            return ""
        case int() if abs(value) >= LARGEST:
            return f"holds the whole number {shown(value)}; numbers are under {LARGEST:,}"
        case float() if not math.isfinite(value):
            return f"holds {value}, which is no number"
        case str() if "\0" in value:
            return f"holds a null byte, in {shown(value)}"
        case None | int() | float() | str() | dict() | list():
            return ""
        case _:
            return f"holds {shown(value)}, which YAML takes for a {type(value).__name__}: quote it"
