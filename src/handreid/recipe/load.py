"""From YAML to a checked recipe and back; every error names the key, its line and file, and what to do."""

import copy
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from handreid.errors import RecipeError, RunError
from handreid.messages import known, shown
from handreid.recipe.explain import explained
from handreid.recipe.rerank import Rerank
from handreid.recipe.schema import Recipe
from handreid.recipe.text import read_text
from handreid.recipe.yaml_text import read_yaml

_BUILTIN = resources.files("handreid") / "recipe" / "builtin"
_DEEP = 20  # keys in keys
Kind = TypeVar("Kind", bound=BaseModel)


def builtin_names() -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in _BUILTIN.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by built-in name or file, with `path.to.key=value` overrides applied before checking.

    Raises RecipeError, which names key, line, file and the closest valid name.
    """
    text, where = text_of(source)
    return parse_recipe(text, where, overrides)


def parse_recipe(
    text: str, where: str, overrides: Sequence[str] = (), values: Mapping[str, object] | None = None
) -> Recipe:
    """Applies `overrides` in the form of `--set`, then `values` by path, outer paths before inner ones."""
    raw, node = read_mapping(text, where, "a recipe is a mapping of keys like name, data, model, stages")
    for override in overrides:
        _apply(raw, override)
    for path, value in sorted((values or {}).items(), key=lambda item: item[0].count(".")):
        set_value(raw, path, copy.deepcopy(value), path)
    return checked(Recipe, raw, node, where)


def check_names(recipes: Sequence[Recipe]) -> None:
    """Raises RunError for two rungs with the same name, which would share a folder."""
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RunError(f"two rungs have the name {twice!r}; change `name` in one of the recipes")


def read_mapping(text: str, where: str, what: str) -> tuple[dict[str, Any], yaml.Node | None]:
    """A file's keys, and its YAML node for line numbers. Raises RecipeError when it holds something else."""
    raw, node = read_yaml(text, where)
    if not isinstance(raw, dict):
        content = "nothing" if raw is None else f"a {type(raw).__name__}" if isinstance(raw, list) else shown(raw)
        raise RecipeError(f"{where}: {what}; found {content} (if it is a manifest, give it with --data)")
    return raw, node


def checked(model: type[Kind], raw: dict[str, Any], node: yaml.Node | None, where: str) -> Kind:
    """The model of the keys. Raises RecipeError, which says for each wrong key where it is and what would be right."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(explained(error, node, where, raw, model)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The complete recipe, defaults written out, as YAML that reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


def text_of(source: str | Path) -> tuple[str, str]:
    """A recipe's text, and its place for messages."""
    path = file_of(source, builtin_names())
    if path is not None:
        return read_text(path, "recipe"), str(path)
    if str(source) in builtin_names():
        return (_BUILTIN / f"{source}.yaml").read_text(encoding="utf-8"), f"built-in recipe {source}"
    hint = known(str(source), builtin_names(), "by `handreid recipes`")
    raise RecipeError(f"no recipe {shown(str(source))}: it is neither a file nor the name of a built-in recipe; {hint}")


def file_of(source: str | Path, names: Sequence[str]) -> Path | None:
    """The file, or None for a built-in name, even if a folder of that name, such as its run, exists."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return path
    try:
        exists = path.exists() and not (path.is_dir() and str(source) in names)
    except OSError:  # such as a name that is too long for one
        exists = False
    return path if exists else None


def _apply(raw: dict[str, Any], override: str) -> None:
    path, value = split_override(override)
    set_value(raw, path, value, f"--set {shown(override)}")


def split_override(override: str) -> tuple[str, Any]:
    """Path and value of a `--set` argument. Raises RecipeError."""
    path, equals, value = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {shown(override)}: write it as path.to.key=value")
    if path.count(".") > _DEEP:
        raise RecipeError(f"--set {shown(override)}: the key is nested too deeply")
    return path, _value(override, value)


def set_value(raw: dict[str, Any], path: str, value: Any, source: str) -> None:
    """Puts a value into nested keys and lists. Raises RecipeError, prefixed by `source`, if the path does not exist."""
    keys = path.split(".")
    place: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list):
            if not _is_index(key) or int(key) >= len(place):
                raise RecipeError(f"{source}: {shown(key)} is not an index of a list of length {len(place)}")
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
            if not last and _is_index(keys[depth + 1]) and key not in place:
                raise RecipeError(f"{source}: the recipe has no {'.'.join(keys[: depth + 1])} to change")
            if not last:
                place.setdefault(key, {})
        else:
            raise RecipeError(f"{source}: {'.'.join(keys[:depth])} holds {shown(place)}, not keys")
        if last:
            place[index] = value
        else:
            place = place[index]


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 10


def _value(override: str, text: str) -> Any:
    try:
        return read_yaml(text, "the value", lines=False)[0]
    except RecipeError as error:
        advice = "; quote what is meant as text" if "is not YAML" in str(error) else ""
        raise RecipeError(f"--set {shown(override, 120)}: {error}{advice}") from None


def override_recipe(
    recipe: Recipe, changes: Mapping[str, Any], flip_tta: bool | None, rerank: Sequence[Rerank] | None = None
) -> Recipe:
    """The recipe with changed keys of `data`, flip test-time augmentation and re-ranking; None changes nothing."""
    raw = recipe.model_dump()
    raw["data"] |= {name: value for name, value in changes.items() if value is not None}
    if flip_tta is not None:
        raw["evaluate"]["flip_tta"] = flip_tta
    if rerank is not None:
        raw["evaluate"]["rerank"] = [way.model_dump() for way in rerank]
    return Recipe.model_validate(raw)
