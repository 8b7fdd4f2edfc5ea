"""In what do recipes differ? Only that, by names that people use.

* Things of a list that have a kind (stages, terms, augmentations) are told by it, not by their place: the fine-tuning
  of a recipe with a stage of prompts before it is still compared with the fine-tuning of one without. The list itself
  has a line when not the same kinds are in it, or in another order.
* What only some recipes have is one line, of what it says beyond its defaults: a line per field would be noise.
* `name` and `about` say nothing of an experiment and are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from handreid.recipe import Recipe

_IGNORED = ("name", "about")


@dataclass(frozen=True)
class _Leaf:
    text: str
    default: bool  # whether a recipe that does not say it has the same


@dataclass(frozen=True)
class _Branch:
    """Fields of a model, or, `listed`, things of a list by their kinds."""

    below: "dict[str, _Leaf | _Branch]"
    listed: bool = False


_Node = _Leaf | _Branch
_Rows = dict[str, list[str]]


def recipe_changes(recipes: Sequence[Recipe]) -> list[dict[str, str]]:
    """For each recipe, path -> value as YAML would say it, only where they differ; "" where a recipe has no such path.

    All have the same paths, in the order of the recipe. Equal recipes have none.
    """
    rows: _Rows = {}
    _compare("", [_fields(recipe.experiment, None, _IGNORED) for recipe in recipes], rows)
    return [{path: texts[number] for path, texts in rows.items()} for number in range(len(recipes))]


def _compare(path: str, nodes: Sequence[_Node | None], rows: _Rows, *, told: bool = False) -> None:
    """Adds what differs at and below `path`. None is a recipe without it, which is `told` if a line says so already."""
    branches = [node for node in nodes if isinstance(node, _Branch)]
    if not branches:
        _compare_leaves(path, [node if isinstance(node, _Leaf) else None for node in nodes], rows)
    elif branches[0].listed:
        _compare_lists(path, nodes, rows)
    else:
        _compare_models(path, nodes, branches, rows, told=told)


def _compare_leaves(path: str, leaves: Sequence[_Leaf | None], rows: _Rows) -> None:
    texts = [leaf.text if leaf else "" for leaf in leaves]
    everywhere = all(leaf is not None for leaf in leaves)
    said = any(leaf is not None and not leaf.default for leaf in leaves)
    if len(set(texts)) > 1 and (everywhere or said):
        rows[path] = texts


def _compare_lists(path: str, nodes: Sequence[_Node | None], rows: _Rows) -> None:
    texts = [_kinds(node) for node in nodes]
    if len(set(texts)) > 1:
        rows[path] = texts
    for name in _names(nodes):
        _compare(f"{path}.{name}", [_get(node, name) for node in nodes], rows, told=True)


def _compare_models(
    path: str, nodes: Sequence[_Node | None], branches: Sequence[_Branch], rows: _Rows, *, told: bool
) -> None:
    """Fields that differ among the recipes that have it, and a line of what these have in common if others have not."""
    names = _names(branches)
    if len(branches) < len(nodes):
        common = [name for name in names if len({repr(branch.below.get(name)) for branch in branches}) == 1]
        texts = [_said(node, common) for node in nodes]
        if not told or set(texts) != {"", "yes"}:
            rows[path] = texts
    within: _Rows = {}
    for name in names:
        _compare(f"{path}.{name}".lstrip("."), [branch.below.get(name) for branch in branches], within)
    for below, texts in within.items():
        told_of = iter(texts)
        rows[below] = [next(told_of) if isinstance(node, _Branch) else "" for node in nodes]


def _names(nodes: Sequence[_Node | None]) -> list[str]:
    return list(dict.fromkeys(name for node in nodes if isinstance(node, _Branch) for name in node.below))


def _get(node: _Node | None, name: str) -> _Node | None:
    return node.below.get(name) if isinstance(node, _Branch) else None


def _kinds(node: _Node | None) -> str:
    if node is None:
        return ""
    return (", ".join(node.below) or "none") if isinstance(node, _Branch) else node.text


def _said(node: _Node | None, names: Sequence[str]) -> str:
    """Those of the named fields that are not as they would be anyway, in one line."""
    if not isinstance(node, _Branch):
        return node.text if node else ""
    told = [f"{path} {text}" for name in names if name in node.below for path, text in _spoken(node.below[name], name)]
    return ", ".join(told) or "yes"


def _spoken(node: _Node, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, _Leaf):
        yield from [] if node.default else [(path, node.text)]
    else:
        for name, below in node.below.items():
            yield from _spoken(below, f"{path}.{name}")


def _fields(model: BaseModel, default: Any, ignored: Sequence[str] = ()) -> _Branch:
    """`default` is what a recipe has in the place of the model if it says nothing."""
    usual = default if type(default) is type(model) else None
    return _Branch(
        {
            field.alias or name: _node(
                getattr(model, name), getattr(usual, name) if usual else field.get_default(call_default_factory=True)
            )
            for name, field in type(model).model_fields.items()
            if name not in ignored
        }
    )


def _node(value: Any, default: Any) -> _Node:
    match value:
        case BaseModel():
            return _fields(value, default)
        case tuple() if all(isinstance(item, BaseModel) for item in value):  # an empty list as well
            return _listed(value)
        case dict() if value:
            return _Branch({str(name): _node(item, None) for name, item in value.items()})
        case _:
            return _Leaf(_yaml(value), value == default)


def _listed(items: Sequence[BaseModel]) -> _Branch:
    """By kind; the second of a kind gets a number."""
    found: dict[str, _Node] = {}
    for item in items:
        kind = str(getattr(item, "kind", type(item).__name__.lower()))
        name = next(n for n in (kind, *(f"{kind}-{k}" for k in range(2, len(items) + 1))) if n not in found)
        found[name] = _fields(item, None, ("kind",))
    return _Branch(found, listed=True)


def _yaml(value: Any) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, tuple):
        return ", ".join(map(_yaml, value))
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).split("\n...")[0].strip()
