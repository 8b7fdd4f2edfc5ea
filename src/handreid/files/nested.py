"""Nested values: flattened, and compared."""

from collections.abc import Mapping
from typing import Any


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first key, by path, in which nested values differ, with both values."""
    before, after = flat(old), flat(new)
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r}, now {after.get(key)!r}"
    return "differently written"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping; keys are paths joined by dots."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and value:
        return {k: v for key, item in enumerate(value) for k, v in flat(item, f"{path}.{key}").items()}
    return {path: value}
