"""While tests run, every function of handreid checks the types and shapes of what it gets and gives.

Shapes cost: `jaxtyped` binds the arguments of each call anew, and checks them a second time with what is returned. So
a function with a shape in its annotations mostly gets jaxtyping's context alone, within which a size has a name, and
beartype checks both at once; one without gets beartype alone. Functions within functions are made anew at every call,
and checked only where they state shapes.
"""

import ast
import hashlib
import importlib.util
import marshal
import sys
from collections.abc import Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

CHECKED = "__checked__"
_UNKNOWN = "?"
_AS_JAXTYPING = BeartypeConf(violation_type=jaxtyping.TypeCheckError)
_SHAPED = tuple(
    name for name in ("Float", "Int", "Bool", "UInt8", "Shaped", "Num", "Integer", "Inexact", "Real", "Key")
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def install(package: str) -> None:
    """Checks whatever is imported of the package from now on."""
    already = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    assert not already, f"{already[0]} was imported before its functions could be checked"
    sys.meta_path.insert(0, _Finder(package))


def checked(made: Any) -> Any:
    """A class or function that checks what it is given."""
    if not isinstance(made, FunctionType):
        return jaxtyping.jaxtyped(made, typechecker=beartype)
    annotations = made.__annotations__.values()
    shapes = [shape for annotation in annotations for shape in _shapes(annotation)]
    if any(shape == _UNKNOWN or "{" in shape for shape in shapes):
        return jaxtyping.jaxtyped(made, typechecker=beartype)
    if not shapes:
        return beartype(made)
    typed = beartype(made, conf=_AS_JAXTYPING)

    @wraps(typed)
    def with_sizes_of_its_own(*args: Any, **kwargs: Any) -> Any:
        with jaxtyping.jaxtyped("context"):  # a name of a dimension stands for one size within a call
            return typed(*args, **kwargs)

    return with_sizes_of_its_own


def _shapes(annotation: Any) -> list[str]:
    """All shapes in an annotation. A name of a class, which may be further down, can have any; a size in braces is an
    argument.
    """
    if isinstance(annotation, str):
        return [_UNKNOWN]
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return [str(annotation.dim_str)]
    parts = get_args(annotation) or getattr(annotation, "__args__", ())
    return [shape for part in parts for shape in _shapes(part)]


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
