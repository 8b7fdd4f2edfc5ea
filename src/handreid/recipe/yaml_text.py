"""YAML text to plain values, or one RecipeError that says which line is at fault.

PyYAML is lenient where a recipe must not be: of two equal keys it takes the last, a key `on` becomes true, and a few
lines of aliases become gigabytes as soon as somebody walks over them. So the nodes are looked at before any value is
made of them.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

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
_SHOWN = 60  # characters of what was found


def read_yaml(text: str, where: str, *, lines: bool = True) -> tuple[Any, yaml.Node | None]:
    """The value that a text says, and its nodes, which know their lines. `where` is its file, for messages.

    Without `lines` (text of one line) none are named. Raises RecipeError for what is not YAML, for a key that is given
    twice or is not text, for nesting over `DEEPEST` levels, and for aliases that stand for over `MOST_NODES` values.
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
    except _STRAY as error:  # an escape such as "\U99999999", met while the text is split up
        raise RecipeError(f"{where} is not YAML: {error}") from None
    check_value(value, where)
    return value, node


def _nodes(text: str) -> yaml.Node | None:
    """By libyaml where PyYAML has it, several times as fast; PyYAML's own parser says better what is wrong."""
    if yaml.__with_libyaml__:
        with suppress(yaml.YAMLError, RecursionError, *_STRAY):
            return cast("yaml.Node | None", _FastComposer(text).get_single_node())
    return yaml.compose(text, Loader=_Loader)


def cut(text: str, most: int = _SHOWN) -> str:
    """The text, or its beginning where it is longer."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


class _RefusedError(yaml.YAMLError):
    """YAML, but no value for us."""

    def __init__(self, problem: str, node: yaml.Node) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = _line(node)


if yaml.__with_libyaml__:

    class _FastComposer(Composer, yaml.cyaml.CParser, Resolver):  # type: ignore[misc]
        """libyaml's parser with PyYAML's composer: libyaml's own composer ends the process where nesting is deep."""

        def __init__(self, text: str) -> None:
            yaml.cyaml.CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)


class _Loader(yaml.SafeLoader):
    """A SafeLoader that knows the line of a value that cannot be made: a number of 5,000 digits, the 32nd of May."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _STRAY as error:
            found = cut(str(node.value)) if isinstance(node, yaml.ScalarNode) else "this"
            raise _RefusedError(f"{found!r} cannot be read ({type(error).__name__}: {cut(str(error))})", node) from None


@dataclass(frozen=True)
class _Extent:
    """Of a node with all below it, aliases followed."""

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
    """Every mapping of the text once, with its path. Measures each node first, so that there is an end of them."""
    known: dict[int, _Extent | None] = {}
    _measure(root, known)
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    met: set[int] = set()
    while waiting:
        path, node = waiting.pop(0)
        if id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield path, node
        waiting += [(f"{path}.{name}" if path else name, child) for name, child in _children(node)]


def _measure(node: yaml.Node, known: dict[int, _Extent | None]) -> _Extent:
    """Raises _RefusedError for an alias that holds itself, and where there is too much of it."""
    if id(node) in known:
        extent = known[id(node)]
        if extent is None:
            raise _RefusedError("an alias that contains itself", node)
        return extent
    known[id(node)] = None
    below = [_measure(child, known) for _, child in _children(node)]
    extent = _Extent(1 + sum(one.nodes for one in below), 1 + max((one.depth for one in below), default=0))
    if extent.nodes > MOST_NODES:
        raise _RefusedError(f"more than {MOST_NODES:,} values, counting each use of an alias", node)
    if extent.depth > DEEPEST:
        raise _RefusedError(_TOO_DEEP, node)
    known[id(node)] = extent
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
    """What YAML 1.1 takes it for, such as a truth value for `on`."""
    names = {"bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date"}
    return names.get(str(key.tag).rsplit(":", 1)[-1], "a list or mapping")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _explained(error: yaml.YAMLError, *, lines: bool) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:200]
    mark = error.problem_mark or error.context_mark
    told = " ".join(str(error.problem or "").split())[:200]
    if error.context and (not told or told.startswith("but ")):
        told = f"{error.context}, {told}"
    advice = "; indent with spaces, not with tabs" if "'\\t'" in told else ""
    return (f"line {mark.line + 1}: " if mark is not None and lines else "") + told + advice
