"""From YAML to a checked recipe and back; every complaint names the key, its line and file, and what to do."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from handreid.errors import RecipeError, RunError
from handreid.messages import known, listed, shortened, shown
from handreid.recipe.rerank import Rerank
from handreid.recipe.schema import Recipe
from handreid.recipe.text import read_text
from handreid.recipe.yaml_text import read_yaml

_BUILTIN = resources.files("handreid") / "recipe" / "builtin"
_MOST = 8  # complaints about one file that are told
_DEEP = 20  # keys in keys
_KEYS = "in docs/recipes.md, below Keys"
Location = tuple[str | int, ...]
Kind = TypeVar("Kind", bound=BaseModel)


def builtin_names() -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in _BUILTIN.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by built-in name or file, with `path.to.key=value` overrides applied before checking.

    Raises RecipeError that names key, line, file and the nearest right spelling.
    """
    text, where = text_of(source)
    return parse_recipe(text, where, overrides)


def parse_recipe(
    text: str, where: str, overrides: Sequence[str] = (), values: Mapping[str, object] | None = None
) -> Recipe:
    """`overrides` as `--set` says them, then `values` by path; of two paths the outer comes first."""
    raw, node = read_mapping(text, where, "a recipe is a mapping of keys like name, data, model, stages")
    for override in overrides:
        _apply(raw, override)
    for path, value in sorted((values or {}).items(), key=lambda item: item[0].count(".")):
        set_value(raw, path, copy.deepcopy(value), path)
    return checked(Recipe, raw, node, where)


def check_names(recipes: Sequence[Recipe]) -> None:
    """Raises RunError for two rungs of one name, which would be one folder."""
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RunError(f"two rungs have the name {twice!r}; change `name` in one of the recipes")


def read_mapping(text: str, where: str, what: str) -> tuple[dict[str, Any], yaml.Node | None]:
    """A file's keys, and where in it they are. Raises RecipeError when it holds something else."""
    raw, node = read_yaml(text, where)
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else f"a {type(raw).__name__}" if isinstance(raw, list) else shown(raw)
        raise RecipeError(f"{where}: {what}; found {found} (if it is a manifest, give it with --data)")
    return raw, node


def checked(model: type[Kind], raw: dict[str, Any], node: yaml.Node | None, where: str) -> Kind:
    """The model of the keys. Raises RecipeError that says of each wrong one where it is and what would be right."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(_explain(error, node, where, raw, model)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The complete recipe, defaults written out, as YAML that reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


def text_of(source: str | Path) -> tuple[str, str]:
    """A recipe's text, and what to call its place."""
    path = file_of(source, builtin_names())
    if path is not None:
        return read_text(path, "recipe"), str(path)
    if str(source) in builtin_names():
        return (_BUILTIN / f"{source}.yaml").read_text(encoding="utf-8"), f"built-in recipe {source}"
    hint = known(str(source), builtin_names(), "by `handreid recipes`")
    raise RecipeError(f"no recipe {shown(str(source))}: it is neither a file nor the name of a built-in recipe; {hint}")


def file_of(source: str | Path, names: Sequence[str]) -> Path | None:
    """The file that is meant, unless a built-in name is: a folder of that name, such as its run, is not."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return path
    try:
        there = path.exists() and not (path.is_dir() and str(source) in names)
    except OSError:  # such as a name that is too long for one
        there = False
    return path if there else None


def _apply(raw: dict[str, Any], override: str) -> None:
    path, value = split_override(override)
    set_value(raw, path, value, f"--set {shown(override)}")


def split_override(override: str) -> tuple[str, Any]:
    """Path and value of what `--set` says."""
    path, equals, value = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {shown(override)}: write it as path.to.key=value")
    if path.count(".") > _DEEP:
        raise RecipeError(f"--set {shown(override)}: the key is nested too deeply")
    return path, _value(override, value)


def set_value(raw: dict[str, Any], path: str, value: Any, said: str) -> None:
    """Puts a value into nested keys and lists. Raises RecipeError, after `said`, when there is no such place."""
    keys = path.split(".")
    place: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list):
            if not _is_index(key) or int(key) >= len(place):
                raise RecipeError(f"{said}: {shown(key)} is not an index of a list of length {len(place)}")
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
            if not last and _is_index(keys[depth + 1]) and key not in place:
                raise RecipeError(f"{said}: the recipe has no {'.'.join(keys[: depth + 1])} to change")
            if not last:
                place.setdefault(key, {})
        else:
            raise RecipeError(f"{said}: {'.'.join(keys[:depth])} holds {shown(place)}, not keys")
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


def _explain(
    error: ValidationError, node: yaml.Node | None, where: str, raw: dict[str, Any], model: type[BaseModel]
) -> str:
    lines = []
    problems = error.errors()
    for problem in problems:
        if _beside_the_point(problem, problems):
            continue
        keys = _written(problem["loc"], raw)
        line = _line_of(node, keys)
        place = f"{where}{f' line {line}' if line else ''}"
        lines.append(shortened(f"{place}: {_complaint(keys, problem, raw, model)}", 500))
    told = list(dict.fromkeys(lines))
    more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
    return "\n".join([*told[:_MOST], *more])


def _beside_the_point(problem: Any, problems: list[Any]) -> bool:
    """Keys were given where words may stand too: that they are no words is not what is wrong with them."""
    place = problem["loc"][:-1]
    others = [other for other in problems if other is not problem and other["loc"][: len(place)] == place]
    return problem["type"] == "string_type" and problem["loc"][-1] == "str" and bool(others)


def _complaint(keys: Location, problem: Any, raw: dict[str, Any], root: type[BaseModel]) -> str:
    path = shortened(".".join(map(str, keys)), 100)
    match problem["type"]:
        case "extra_forbidden":
            there = _known_keys(keys[:-1], raw, root)
            near = difflib.get_close_matches(str(keys[-1])[:100], there, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else known(str(keys[-1]), there, _KEYS)
            return f"unknown key {path!r}; {hint}"
        case "missing":
            return f"key {path!r} is missing"
        case "union_tag_invalid":
            found = str(problem["ctx"]["tag"])
            kinds = [tag.strip(" '") for tag in str(problem["ctx"]["expected_tags"]).split(",")]
            near = difflib.get_close_matches(found[:100], kinds, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"{path}.kind {shown(found)} is not one of {listed(kinds)}{hint}"
        case "union_tag_not_found":
            return f"{path}: key 'kind' is missing"
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            value = "" if isinstance(problem["input"], dict | list) else f" is {shown(problem['input'])}"
            return f"{path}{value}: {message}"


def _written(location: Location, raw: Any) -> Location:
    """Pydantic's location without the tags of unions, which are nowhere in the file."""
    keys: list[str | int] = []
    for position, key in enumerate(location):
        if isinstance(key, str) and key.startswith("tagged-union["):
            continue
        if isinstance(raw, dict) and key not in raw and raw.get("kind") == key and position < len(location) - 1:
            continue
        if isinstance(raw, dict) and key not in raw and position < len(location) - 1:
            continue
        keys.append(key)
        raw = raw[key] if isinstance(raw, dict) and key in raw else _item(raw, key)
    return tuple(keys)


def _item(raw: Any, key: str | int) -> Any:
    return raw[key] if isinstance(raw, list) and isinstance(key, int) and key < len(raw) else None


def _line_of(node: yaml.Node | None, keys: Location) -> int | None:
    """Line (from 1) of the deepest of the keys that is in the file."""
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line


def _known_keys(keys: Location, raw: Any, root: type[BaseModel]) -> list[str]:
    model: type[BaseModel] | None = root
    for key in keys:
        raw = raw[key] if isinstance(raw, dict) else _item(raw, key)
        if isinstance(key, str) and model is not None and key in model.model_fields:
            candidates = _models_in(model.model_fields[key].annotation)
            kind = raw.get("kind") if isinstance(raw, dict) else None
            model = _of_kind(candidates, kind)
            options = candidates
        elif isinstance(key, int):
            model = _of_kind(options, raw.get("kind") if isinstance(raw, dict) else None)
    return [field.alias or name for name, field in model.model_fields.items()] if model is not None else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _of_kind(models: list[type[BaseModel]], kind: object) -> type[BaseModel] | None:
    for model in models:
        if "kind" in model.model_fields and model.model_fields["kind"].default == kind:
            return model
    return models[0] if models else None


def changed(
    recipe: Recipe, changes: Mapping[str, Any], mirrored: bool | None, rerank: Sequence[Rerank] | None = None
) -> Recipe:
    """The recipe with other keys of `data`, None for those that stay, mirrored photos or not, re-ranked otherwise."""
    raw = recipe.model_dump()
    raw["data"] |= {name: value for name, value in changes.items() if value is not None}
    if mirrored is not None:
        raw["evaluate"]["mirrored"] = mirrored
    if rerank is not None:
        raw["evaluate"]["rerank"] = [way.model_dump() for way in rerank]
    return Recipe.model_validate(raw)
