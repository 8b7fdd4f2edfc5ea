"""From a sweep's YAML, and the recipe that it names, to the recipe of each trial."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from handreid.errors import RecipeError
from handreid.messages import known, shown
from handreid.recipe.load import builtin_names, checked, file_of, parse_recipe, read_mapping, split_override, text_of
from handreid.recipe.schema import Recipe
from handreid.recipe.sweep import Sweep
from handreid.recipe.text import read_text

_BUILTIN = resources.files("handreid") / "sweep" / "builtin"
_RESOURCES = ("concurrent", "cpus", "gpus")


@dataclass(frozen=True)
class Design:
    """A sweep with the text of the recipe that it varies."""

    sweep: Sweep
    recipe: str
    where: str  # the recipe's place, for messages

    def recipe_of(self, parameters: Mapping[str, Any], **keys: object) -> Recipe:
        """The recipe of one setting; `keys` are further values by path. Raises RecipeError if it is not valid."""
        changes = {**self.sweep.fixed, **self.sweep.values(parameters), **keys}
        return parse_recipe(self.recipe, self.where, values=changes)

    def running(self, concurrent: int) -> "Design":
        """The same design with `concurrent` trials at a time."""
        return replace(self, sweep=self.sweep.model_copy(update={"concurrent": concurrent}))

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the sweep: everything except the number of trials at a time and their resources."""
        content = self.sweep.model_dump(mode="json", exclude={*_RESOURCES, "recipe", "about"})
        return {**content, "recipe": yaml.safe_load(self.recipe)}


def builtin_sweeps() -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in _BUILTIN.iterdir() if entry.name.endswith(".yaml"))


def load_sweep(source: str | Path, *, recipe: str | None = None, overrides: Sequence[str] = ()) -> Design:
    """A sweep by built-in name or file; `recipe` replaces the one that it names, `overrides` add to its `set`.

    Raises RecipeError, which names key, line and file.
    """
    text, where, folder = _text_of(source)
    return parse_sweep(text, where, folder, recipe=recipe, overrides=overrides)


def parse_sweep(
    text: str, where: str, folder: Path | None = None, *, recipe: str | None = None, overrides: Sequence[str] = ()
) -> Design:
    """A sweep from its text; a recipe's file is looked for in `folder` first."""
    raw, node = read_mapping(text, where, "a sweep is a mapping of keys like name, recipe, space, search")
    sweep = checked(Sweep, raw, node, where)
    varied = recipe or _beside(sweep.recipe, folder)
    fixed = sweep.fixed | dict(split_override(override) for override in overrides)
    return Design(sweep.model_copy(update={"recipe": varied, "fixed": fixed}), *text_of(varied))


def dump_sweep(sweep: Sweep) -> str:
    """The complete sweep as YAML that reads back to an equal one."""
    return yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False, width=120)


def _text_of(source: str | Path) -> tuple[str, str, Path | None]:
    names = builtin_sweeps()
    path = file_of(source, names)
    if path is not None:
        return read_text(path, "sweep"), str(path), path.parent
    if str(source) in names:
        return (_BUILTIN / f"{source}.yaml").read_text(encoding="utf-8"), f"built-in sweep {source}", None
    hint = known(str(source), names, "by `handreid sweeps`")
    raise RecipeError(f"no sweep {shown(str(source))}: it is neither a file nor the name of a built-in sweep; {hint}")


def _beside(recipe: str, folder: Path | None) -> str:
    if folder is None or recipe in builtin_names():
        return recipe
    with contextlib.suppress(OSError, ValueError):  # a name that is too long for a file, or holds a null byte
        return str(folder / recipe) if (folder / recipe).is_file() else recipe
    return recipe
