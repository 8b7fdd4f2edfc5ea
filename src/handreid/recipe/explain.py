"""Messages from pydantic's errors in a recipe: the key, its line, and what would be right."""

import difflib
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from handreid.messages import known, listed, shortened, shown

_MOST = 8  # problems of one file that are listed
_KEYS = "in docs/recipes.md, below Keys"
# Former names of keys and values, to name the present one for an old recipe.
_RENAMED_KEYS = {
    "start": "init_from",
    "gates": "checks",
    "data.aspect": "data.view",
    "evaluate.mirrored": "evaluate.flip_tta",
}
_RENAMED_VALUES = {
    ("data.label", "aspect"): "view",
    ("data.validation", "held-back"): "held-out",
    ("checks.skip", "strangers"): "subject_disjoint",
}
Location = tuple[str | int, ...]


def explained(
    error: ValidationError, node: yaml.Node | None, where: str, raw: dict[str, Any], model: type[BaseModel]
) -> str:
    lines = []
    problems = error.errors()
    for problem in problems:
        if _is_side_effect(problem, problems):
            continue
        keys = _written(problem["loc"], raw)
        line = _line_of(node, keys)
        place = f"{where}{f' line {line}' if line else ''}"
        lines.append(shortened(f"{place}: {_complaint(keys, problem, raw, model)}", 500))
    unique = list(dict.fromkeys(lines))
    more = [f"and {len(unique) - _MOST} more"] if len(unique) > _MOST else []
    return "\n".join([*unique[:_MOST], *more])


def _is_side_effect(problem: Any, problems: list[Any]) -> bool:
    """Keys were given where a text is allowed too: the error that they are no text is not the actual problem."""
    place = problem["loc"][:-1]
    siblings = [sibling for sibling in problems if sibling is not problem and sibling["loc"][: len(place)] == place]
    return problem["type"] == "string_type" and problem["loc"][-1] == "str" and bool(siblings)


def _complaint(keys: Location, problem: Any, raw: dict[str, Any], root: type[BaseModel]) -> str:
    path = shortened(".".join(map(str, keys)), 100)
    match problem["type"]:
        case "extra_forbidden" if path in _RENAMED_KEYS:
            return f"unknown key {path!r}: it is called {_RENAMED_KEYS[path]!r} now"
        case "extra_forbidden":
            names = _known_keys(keys[:-1], raw, root)
            near = difflib.get_close_matches(str(keys[-1])[:100], names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else known(str(keys[-1]), names, _KEYS)
            return f"unknown key {path!r}; {hint}"
        case "missing":
            return f"key {path!r} is missing"
        case "union_tag_invalid":
            given = str(problem["ctx"]["tag"])
            kinds = [tag.strip(" '") for tag in str(problem["ctx"]["expected_tags"]).split(",")]
            near = difflib.get_close_matches(given[:100], kinds, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"{path}.kind {shown(given)} is not one of {listed(kinds)}{hint}"
        case "union_tag_not_found":
            return f"{path}: key 'kind' is missing"
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            value = "" if isinstance(problem["input"], dict | list) else f" is {shown(problem['input'])}"
            new_name = _RENAMED_VALUES.get((_without_numbers(keys), str(problem["input"])))
            if new_name is not None:
                return f"{path}{value}: it is called {new_name!r} now"
            prefix = f"{path}{value}"
            return f"{prefix}: {message}" if prefix else message


def _without_numbers(keys: Location) -> str:
    return ".".join(key for key in keys if isinstance(key, str))


def _written(location: Location, raw: Any) -> Location:
    """Pydantic's location without the tags of unions, which are not in the file."""
    keys: list[str | int] = []
    for position, key in enumerate(location):
        if isinstance(key, str) and (key.startswith("tagged-union[") or key == "package.module:Class"):
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
            entry = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
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
    custom = isinstance(kind, str) and ":" in kind  # package.module:Class, whose model has no kind of its own
    for model in models:
        field = model.model_fields.get("kind")
        if field is not None and (field.is_required() if custom else field.default == kind):
            return model
    return models[0] if models else None
