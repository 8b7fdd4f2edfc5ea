"""A user's loss: imported by its name and built from the recipe's arguments; its results are checked.

Any `nn.Module` can be used whose `forward(outputs, targets)` gives one number: outputs are `handreid.types.Outputs`,
targets `handreid.types.Targets`. `undecayed()` and `at_epoch(epoch)` are called if it has them, see `Objective`.
"""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.objectives.objective import Objective
from handreid.types import Outputs, Targets


class CustomObjective(Objective):
    """A user's module as an objective. `forward` raises RecipeError for a result that is not one number, and for a
    feature that does not exist.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        try:
            loss = self.module(outputs, targets)
        except KeyError as error:
            names = f"before the neck {', '.join(outputs.before)}; after it {', '.join(outputs.after) or 'none'}"
            raise RecipeError(
                f"objective {self.name} looks for {error.args[0]!r} and does not find it. Features are, {names}: name "
                "what it reads in `features`, and `neck: after` where it reads behind the neck"
            ) from error
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            result = (
                f"a tensor of {loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            )
            raise RecipeError(
                f"objective {self.name} gave {result[:100]} for a batch; give one number, a tensor without dimensions, "
                "such as losses.mean()"
            )
        return loss

    def undecayed(self) -> list[nn.Parameter]:
        method = getattr(self.module, "undecayed", None)
        return list(method()) if callable(method) else []

    def at_epoch(self, epoch: float) -> None:
        method = getattr(self.module, "at_epoch", None)
        if callable(method):
            method(epoch)


def make_module(kind: str, arguments: Mapping[str, object], offered: Mapping[str, object]) -> nn.Module:
    """An object of the class that `kind` names, with `arguments`, and those of `offered` that its constructor takes.

    Raises RecipeError if it cannot be imported, is no class of modules, or refuses its arguments.
    """
    cls = import_class(kind)
    try:
        parameters = inspect.signature(cls).parameters
        extra = {name: value for name, value in offered.items() if name in parameters}
        module = cls(**{**extra, **arguments})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"objective {kind} cannot be made of its arguments: {error}") from error
    return module


def import_class(kind: str) -> type[nn.Module]:
    """The class of `package.module:Class`. Importing the module runs its code. Raises RecipeError."""
    path, _, name = kind.partition(":")
    try:
        target: Any = import_module(path)
    except Exception as error:
        raise RecipeError(f"objective {kind}: {_not_imported(path, error)}") from error
    for part in name.split("."):
        if not hasattr(target, part):
            raise RecipeError(f"objective {kind}: {_missing_name(target, part)}")
        target = getattr(target, part)
    if not isinstance(target, type) or not issubclass(target, nn.Module):
        raise RecipeError(f"objective {kind} is no class of torch's nn.Module: give one with forward(outputs, targets)")
    return target


def _not_imported(path: str, error: Exception) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return f"importing {path} fails: {type(error).__name__}: {error}"
    if error.name != path:
        return f"importing {path} fails: it needs the module {error.name}, which is not installed"
    file = Path(*path.split(".")).with_suffix(".py")
    if file.is_file():
        return f"{file} lies here, but Python looks elsewhere: set PYTHONPATH=. before the command, or install it"
    return f"there is no module {path}: install its package, or set PYTHONPATH to the folder in which it lies"


def _missing_name(target: Any, name: str) -> str:
    if name == "<locals>":
        return "it is defined in a function, where it cannot be imported: define it at the top of a module"
    near = get_close_matches(name, [key for key in vars(target) if not key.startswith("_")], n=1, cutoff=0.5)
    return f"{target.__name__} has no {name}" + (f"; did you mean {near[0]}?" if near else "")
