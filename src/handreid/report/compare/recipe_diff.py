"""The differences between recipes, by path.

* Items of a list that have a kind (stages, terms, augmentations) are matched by kind, not by position: the fine-tuning
  stage of a recipe with a prompt stage before it is compared with the fine-tuning stage of one without. The list itself
  has a line if its kinds or their order differ.
* A part that only some recipes have is one line, with what differs from its defaults, instead of a line per field.
* `name` and `about` are no part of the experiment and are left out.
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
    default: bool  # whether it is the default value


@dataclass(frozen=True)
class _Branch:
    """Fields of a model, or if `listed`, items of a list by their kinds."""

    below: "dict[str, _Leaf | _Branch]"
    listed: bool = False


_Node = _Leaf | _Branch
_Rows = dict[str, list[str]]


def recipe_changes(recipes: Sequence[Recipe]) -> list[dict[str, str]]:
    """For each recipe, path -> value in YAML, only where the recipes differ; "" if a recipe has no such path.

    All have the same paths, in the order of the recipe. Equal recipes have none.
    """
    rows: _Rows = {}
    _compare("", [_fields(recipe.experiment, None, _IGNORED) for recipe in recipes], rows)
    return [{path: texts[number] for path, texts in rows.items()} for number in range(len(recipes))]


def _compare(path: str, nodes: Sequence[_Node | None], rows: _Rows, *, in_parent: bool = False) -> None:
    """Adds rows for differences at and below `path`. None stands for a recipe without it; with `in_parent`, the row of
    the list above says so already.
    """
    branches = [node for node in nodes if isinstance(node, _Branch)]
    if not branches:
        _compare_leaves(path, [node if isinstance(node, _Leaf) else None for node in nodes], rows)
    elif branches[0].listed:
        _compare_lists(path, nodes, rows)
    else:
        _compare_models(path, nodes, branches, rows, in_parent=in_parent)


def _compare_leaves(path: str, leaves: Sequence[_Leaf | None], rows: _Rows) -> None:
    texts = [leaf.text if leaf else "" for leaf in leaves]
    everywhere = all(leaf is not None for leaf in leaves)
    not_default = any(leaf is not None and not leaf.default for leaf in leaves)
    if len(set(texts)) > 1 and (everywhere or not_default):
        rows[path] = texts


def _compare_lists(path: str, nodes: Sequence[_Node | None], rows: _Rows) -> None:
    texts = [_kinds(node) for node in nodes]
    if len(set(texts)) > 1:
        rows[path] = texts
    for name in _names(nodes):
        _compare(f"{path}.{name}", [_get(node, name) for node in nodes], rows, in_parent=True)


def _compare_models(
    path: str, nodes: Sequence[_Node | None], branches: Sequence[_Branch], rows: _Rows, *, in_parent: bool
) -> None:
    """Adds rows for fields that differ among the recipes with this model. If some recipes lack it, a row for `path`
    says so, with the fields in which the others agree.
    """
    names = _names(branches)
    if len(branches) < len(nodes):
        common = [name for name in names if len({repr(branch.below.get(name)) for branch in branches}) == 1]
        texts = [_model_text(node, common) for node in nodes]
        if not in_parent or set(texts) != {"", "yes"}:
            rows[path] = texts
    within: _Rows = {}
    for name in names:
        _compare(f"{path}.{name}".lstrip("."), [branch.below.get(name) for branch in branches], within)
    for below, texts in within.items():
        branch_texts = iter(texts)
        rows[below] = [next(branch_texts) if isinstance(node, _Branch) else "" for node in nodes]


def _names(nodes: Sequence[_Node | None]) -> list[str]:
    return list(dict.fromkeys(name for node in nodes if isinstance(node, _Branch) for name in node.below))


def _get(node: _Node | None, name: str) -> _Node | None:
    return node.below.get(name) if isinstance(node, _Branch) else None


def _kinds(node: _Node | None) -> str:
    if node is None:
        return ""
    return (", ".join(node.below) or "none") if isinstance(node, _Branch) else node.text


def _model_text(node: _Node | None, names: Sequence[str]) -> str:
    """The named fields whose values are not the defaults, in one line; "yes" if all are."""
    if not isinstance(node, _Branch):
        return node.text if node else ""
    parts = [
        f"{path} {text}"
        for name in names
        if name in node.below
        for path, text in _changed_leaves(node.below[name], name)
    ]
    return ", ".join(parts) or "yes"


def _changed_leaves(node: _Node, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, _Leaf):
        yield from [] if node.default else [(path, node.text)]
    else:
        for name, below in node.below.items():
            yield from _changed_leaves(below, f"{path}.{name}")


def _fields(model: BaseModel, default: Any, ignored: Sequence[str] = ()) -> _Branch:
    """The fields of a model; `default` is the recipe's default in its place."""
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
    """The items of a list by kind; further items of a kind are numbered from 2."""
    items_by_name: dict[str, _Node] = {}
    for item in items:
        kind = str(getattr(item, "kind", type(item).__name__.lower()))
        name = next(n for n in (kind, *(f"{kind}-{k}" for k in range(2, len(items) + 1))) if n not in items_by_name)
        items_by_name[name] = _fields(item, None, ("kind",))
    return _Branch(items_by_name, listed=True)


def _yaml(value: Any) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, tuple):
        return ", ".join(map(_yaml, value))
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).split("\n...")[0].strip()
