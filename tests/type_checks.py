"""While tests run, every function of handreid checks the types and shapes of what it gets and gives.

Shapes cost. `jaxtyped` binds the arguments of each call anew, and checks each of them twice: before the call, and with
what it returns. Here beartype checks all of them once, within names of dimensions of the call's own, and only where an
annotation has a shape; all other functions are checked by beartype alone. Functions within functions are made anew at
every call, and checked only where they state shapes.
"""

import ast
import functools
import hashlib
import importlib.util
import inspect
import marshal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping._storage import pop_shape_memo, push_shape_memo

CHECKED = "__checked__"
_SHAPED = tuple(
    name for name in ("Float", "Int", "Bool", "UInt8", "Shaped", "Num", "Integer", "Inexact", "Real", "Key")
)
_WITH_SHAPES = BeartypeConf(violation_type=jaxtyping.TypeCheckError)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def install(package: str) -> None:
    """Checks whatever is imported of the package from now on."""
    already = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    assert not already, f"{already[0]} was imported before its functions could be checked"
    sys.meta_path.insert(0, _Finder(package))


def checked(made: Any) -> Any:
    """A class or function that checks what it is given."""
    if isinstance(made, type):
        if is_dataclass(made) and "__init__" in vars(made):
            made.__init__ = checked(made.__init__)  # type: ignore[method-assign]
        return made
    annotations = made.__annotations__.values()
    unread = any(map(_names_a_class, annotations))
    shapes = [shape for annotation in annotations for shape in _shapes(annotation)]
    if not shapes and not unread:
        return beartype(made)
    goes_on = inspect.isgeneratorfunction(made) or inspect.iscoroutinefunction(made)  # after the call
    if unread or goes_on or any("{" in shape.dim_str for shape in shapes):  # "{size} {size}": an argument's value
        return jaxtyping.jaxtyped(made, typechecker=beartype)
    return _within_dimensions(made)


def _within_dimensions(function: FunctionType) -> Callable[..., Any]:
    checking = beartype(conf=_WITH_SHAPES)(function)

    @functools.wraps(function)
    def with_dimensions(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        push_shape_memo({})
        try:
            return checking(*arguments, **named)
        finally:
            pop_shape_memo()

    return with_dimensions


def _shapes(annotation: Any) -> Iterator[type[jaxtyping.AbstractArray]]:
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__args__", ())):
        yield from _shapes(part)


def _names_a_class(annotation: Any) -> bool:
    """A class further down, whose name can stand for anything."""
    return isinstance(annotation, str) or any(map(_names_a_class, getattr(annotation, "__args__", ())))


class _Decorate(ast.NodeTransformer):
    """`@checked` on each definition: the outermost decorator of a class, the innermost of a function."""

    def __init__(self) -> None:
        self._within = 0

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list.insert(0, _decorator(node))
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: _Definition) -> ast.AST:
        if not self._within or _states_a_shape(node):
            node.decorator_list.append(_decorator(node))
        self._within += 1
        self.generic_visit(node)
        self._within -= 1
        return node


def _states_a_shape(node: _Definition) -> bool:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    annotations = [argument.annotation for argument in arguments if argument is not None]
    parts = [part for one in (*annotations, node.returns) if one is not None for part in ast.walk(one)]
    return any(isinstance(part, ast.Name) and part.id in _SHAPED for part in parts)


def _decorator(node: ast.AST) -> ast.expr:
    return ast.copy_location(ast.Name(CHECKED, ast.Load()), node)


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiled once for each content of the file, and kept beside Python's own compiled files."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        digest = hashlib.sha256(_OWN_SOURCE + source).digest()
        kept = Path(importlib.util.cache_from_source(path, optimization="checked"))
        try:
            content = kept.read_bytes()
        except OSError:
            content = b""
        if content.startswith(digest):
            code = marshal.loads(content[len(digest) :])  # noqa: S302 - written below
            assert isinstance(code, CodeType)
            return code
        tree = ast.fix_missing_locations(_Decorate().visit(ast.parse(source, path)))
        code = compile(tree, path, "exec", dont_inherit=True)
        self.set_data(str(kept), digest + marshal.dumps(code))
        return code

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, CHECKED, checked)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._package and not fullname.startswith(f"{self._package}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


_OWN_SOURCE = Path(__file__).read_bytes()
