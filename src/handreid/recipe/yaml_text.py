"""YAML text to plain values, or one RecipeError with the line at fault.

PyYAML is too lenient for recipes: of two equal keys it takes the last, a key `on` becomes true, and a few lines of
aliases become gigabytes as soon as they are traversed. So the nodes are checked before any value is constructed.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from handreid.errors import RecipeError
from handreid.recipe.text import check_value

MOST_CHARACTERS = 1_000_000
MOST_NODES = 20_000  # keys and values, those behind an alias counted each time
DEEPEST = 50
_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_TOO_DEEP = f"more than {DEEPEST} levels in one another"
# what PyYAML raises besides its YAMLError: `!!bool x` is a KeyError, `!!timestamp x` an AttributeError
_STRAY = (ValueError, OverflowError, TypeError, LookupError, AttributeError, AssertionError)
_SHOWN = 60  # characters of a value in a message


def read_yaml(text: str, where: str, *, lines: bool = True) -> tuple[Any, yaml.Node | None]:
    """The value of a text, and its root node, which has the lines. `where` is its file, for messages.

    Without `lines` (text of one line) messages name no line. Raises RecipeError for what is not YAML, for a key that is
    given twice or is not text, for nesting over `DEEPEST` levels, and for aliases of over `MOST_NODES` values in total.
    """
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(f"{where} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are allowed")
    try:
        node = _nodes(text)
        if node is not None:
            _check(node, where, lines=lines)
        value = None if node is None else _Loader("").construct_document(node)
    except _RefusedError as error:
        raise RecipeError(f"{where}{f' line {error.line}' if lines else ''}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not YAML: {_explained(error, lines=lines)}") from None
    except RecursionError:
        raise RecipeError(f"{where}: {_TOO_DEEP}") from None
    except _STRAY as error:  # an escape such as "\U99999999", which fails in the scanner
        raise RecipeError(f"{where} is not YAML: {error}") from None
    check_value(value, where)
    return value, node


def _nodes(text: str) -> yaml.Node | None:
    """By libyaml where PyYAML has it, several times as fast; PyYAML's own parser says better what is wrong."""
    if yaml.__with_libyaml__:
        with suppress(yaml.YAMLError, RecursionError, *_STRAY):
            return _FastComposer(text).get_single_node()
    return yaml.compose(text, Loader=_Loader)


def cut(text: str, limit: int = _SHOWN) -> str:
    """The text, cut to `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class _RefusedError(yaml.YAMLError):
    """Valid YAML that a recipe must not contain."""

    def __init__(self, problem: str, node: yaml.Node) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = _line(node)


if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _FastComposer(Composer, CParser, Resolver):
        """libyaml's parser with PyYAML's composer: libyaml's own composer ends the process where nesting is deep."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)


class _Loader(yaml.SafeLoader):
    """A SafeLoader that gives the line of a value that cannot be made: a number of 5,000 digits, the 32nd of May."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _STRAY as error:
            value = cut(str(node.value)) if isinstance(node, yaml.ScalarNode) else "this"
            raise _RefusedError(f"{value!r} cannot be read ({type(error).__name__}: {cut(str(error))})", node) from None


@dataclass(frozen=True)
class _Extent:
    """Size of a node with all below it, aliases followed."""

    nodes: int
    depth: int


def _check(root: yaml.Node, where: str, *, lines: bool) -> None:
    wrong = [
        f"{where}{f' line {_line(key)}' if lines else ''}: {what}"
        for path, node in _mappings(root)
        for key, what in _wrong_keys(path, node, lines=lines)
    ]
    if wrong:
        raise RecipeError("\n".join(wrong))


def _mappings(root: yaml.Node) -> Iterator[tuple[str, yaml.MappingNode]]:
    """Every mapping of the text once, with its path. Measures all nodes first, so that their number is limited."""
    extents: dict[int, _Extent | None] = {}
    _measure(root, extents)
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    visited: set[int] = set()
    while waiting:
        path, node = waiting.pop(0)
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield path, node
        waiting += [(f"{path}.{name}" if path else name, child) for name, child in _children(node)]


def _measure(node: yaml.Node, extents: dict[int, _Extent | None]) -> _Extent:
    """Raises _RefusedError for an alias that contains itself, and for too many nodes or levels."""
    if id(node) in extents:
        extent = extents[id(node)]
        if extent is None:
            raise _RefusedError("an alias that contains itself", node)
        return extent
    extents[id(node)] = None
    below = [_measure(child, extents) for _, child in _children(node)]
    extent = _Extent(1 + sum(part.nodes for part in below), 1 + max((part.depth for part in below), default=0))
    if extent.nodes > MOST_NODES:
        raise _RefusedError(f"more than {MOST_NODES:,} values, counting each use of an alias", node)
    if extent.depth > DEEPEST:
        raise _RefusedError(_TOO_DEEP, node)
    extents[id(node)] = extent
    return extent


def _children(node: yaml.Node) -> list[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        keys = [(cut(_written(key)), child) for key, child in node.value]
        return [*keys, *((cut(_written(key)), key) for key, _ in node.value if not isinstance(key, yaml.ScalarNode))]
    if isinstance(node, yaml.SequenceNode):
        return [(str(number), child) for number, child in enumerate(node.value)]
    return []


def _wrong_keys(path: str, node: yaml.MappingNode, *, lines: bool) -> Iterator[tuple[yaml.Node, str]]:
    first: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        name = cut(f"{path}.{_written(key)}" if path else _written(key), 2 * _SHOWN)
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_STRING, _MERGE):
            yield key, f"key {name!r} is not text ({_kind(key)}): put it in quotes"
        elif key.value in first:
            before = _line(first[key.value])
            place = f", {'both in this line' if before == _line(key) else f'first in line {before}'}" if lines else ""
            yield key, f"key {name!r} is given twice{place}: keep one of them"
        else:
            first[key.value] = key


def _written(key: yaml.Node) -> str:
    return str(key.value) if isinstance(key, yaml.ScalarNode) else "..."


def _kind(key: yaml.Node) -> str:
    """Its type in YAML 1.1, such as a truth value for `on`."""
    names = {"bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date"}
    return names.get(str(key.tag).rsplit(":", 1)[-1], "a list or mapping")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _explained(error: yaml.YAMLError, *, lines: bool) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:200]
    mark = error.problem_mark or error.context_mark
    message = " ".join(str(error.problem or "").split())[:200]
    if error.context and (not message or message.startswith("but ")):
        message = f"{error.context}, {message}"
    advice = "; indent with spaces, not with tabs" if "'\\t'" in message else ""
    return (f"line {mark.line + 1}: " if mark is not None and lines else "") + message + advice
