"""A sweep as data: a recipe, the keys that are varied, and how values are chosen.

* A parameter is a path of the recipe with its values, or a label with several paths that change together.
* Sweeps choose by validation. Other metrics are refused here; `sweep/` checks on the data that validation subjects are
  not test subjects.
* `data`, `evaluate` and the seed are not varied: trials would be validated on different photos, or by chance.
"""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from handreid.metric_table import RANKING
from handreid.recipe.base import Name, Seed, Value

MEASURED = RANKING
VALIDATED = tuple(f"validation_{name}" for name in MEASURED)
_FIXED = {
    "data": "trials would be trained and validated on different photos; fix it with `set`",
    "evaluate": "it decides how test identities are searched for, which a sweep never does; fix it with `set`",
    "seed": "name the seeds in `seeds`",
    "name": "trials are named by the sweep",
    "about": "trials are named by the sweep",
}


class Axis(Value):
    """The values of one parameter: exactly one of `choice`, `range`, `log_range` and `together`."""

    choice: list[object] | dict[str, object] | None = None
    """Values of any kind, from numbers to whole lists of objectives; a mapping gives them names for tables."""
    range: tuple[float, float] | None = None
    """Lowest and highest number, both included."""
    log_range: tuple[float, float] | None = None
    """The same on a log scale, for learning rates."""
    together: dict[str, dict[str, object]] | None = None
    """Names, each with the paths and values that belong together; the parameter itself can then have any name."""
    step: float | None = Field(None, gt=0)
    """Step between the values of `range`; null is any number between."""
    integer: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _one_way(self) -> "Axis":
        ways = [name for name in ("choice", "range", "log_range", "together") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(f"give one of choice, range, log_range and together; found {' and '.join(ways) or 'none'}")
        if self.step and not self.range:
            raise ValueError("step can only be used with range")
        if self.integer and not self.bounds:
            raise ValueError("integer can only be used with range or log_range")
        return self

    @model_validator(mode="after")
    def _values_differ(self) -> "Axis":
        if self.bounds is None and len(self.options) < 2:
            raise ValueError("a choice needs two values or more; to fix one value use `set`")
        if self.choice is not None and isinstance(self.choice, list):
            twice = next((value for place, value in enumerate(self.choice) if value in self.choice[:place]), None)
            if twice is not None:
                raise ValueError(f"the value {twice!r} is listed twice")
        return self

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> "Axis":
        if self.bounds is None:
            return self
        low, high = self.bounds
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(f"[{low:g}, {high:g}] must be a lower and a higher number")
        if self.log_range and low <= 0:
            raise ValueError(f"log_range begins at {low:g}, but must be over 0")
        if self.integer and any(number != int(number) for number in (low, high, self.step or 1)):
            raise ValueError("integer: the ends and the step must be whole numbers")
        if self.step and self.step > high - low:
            raise ValueError(f"step {self.step:g} is longer than the range")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        return self.range or self.log_range

    @property
    def options(self) -> dict[str, object]:
        """Values of a choice, or of `together`, by name; empty for a range."""
        if self.together is not None:
            return dict(self.together)
        if isinstance(self.choice, dict):
            return self.choice
        return _named(self.choice or [])

    @property
    def listed(self) -> tuple[str | int | float, ...] | None:
        """All values, options by name; None if there are infinitely many."""
        if self.bounds is None:
            return tuple(self.options)
        step = self.step or (1.0 if self.integer and self.range else None)
        if step is None:
            return None
        low, high = self.bounds
        numbers = [low + step * place for place in range(int((high - low) / step + 1e-9) + 1)]
        return tuple(int(number) if self.integer else round(number, 12) for number in numbers)


class Asha(Value):
    """Asynchronous successive halving (Li et al. 2020): after `grace` epochs, and each time after `reduction` times as
    many, a trial continues only if it is among the best 1 / `reduction` of the trials that got there before it.
    """

    kind: Literal["asha"] = "asha"
    grace: int = Field(1, ge=1)
    """Epochs of fine-tuning that every trial gets."""
    reduction: float = Field(3.0, gt=1)
    """One in this number of trials continues."""


class Sweep(Value):
    """A search for better values of a recipe's keys, by validation."""

    name: Name
    """At most 100 letters, digits, dot, dash, underscore."""
    about: str = ""
    """One line for `handreid sweeps`."""
    recipe: str
    """The recipe that is varied: a built-in one, or a YAML file beside the sweep's file."""
    fixed: dict[str, object] = Field({}, alias="set")
    """Keys of the recipe that are changed for all trials, by path, as with `--set`."""
    space: dict[str, Axis] = Field(min_length=1)
    """The varied keys, by path, such as `stages.0.optimizer.lr`."""
    search: Literal["grid", "random", "tpe"] = "grid"
    """`grid`: all combinations; `random`: `trials` random ones; `tpe`: `trials` settings by Optuna's tree-structured
    Parzen estimator (Bergstra et al. 2011), 10 at random and then preferably near good ones."""
    trials: int | None = Field(None, ge=1)
    """Number of settings that are tried; not for `grid`."""
    seed: Seed = 0
    """Random seed of the search: the same seed tries the same settings, with one trial at a time."""
    seeds: tuple[Seed, ...] | None = Field(None, min_length=1)
    """Each setting is trained once with each of these seeds; null is once, with the recipe's seed."""
    metric: str = "validation_map"
    """The metric to maximise: `validation_` with `rank1`, `rank5`, `rank10`, `map`, `map_trapezoid`, `mrr`, `minp`,
    `r_precision`, `map_at_r`, `identity_rank1`, `identity_rank5` or `identity_rank10`."""
    scheduler: Asha | None = None
    """Stops trials early; null does not."""
    concurrent: int | None = Field(None, ge=1)
    """Trials at a time; null is one per machine, or one per GPU."""
    cpus: int | None = Field(None, ge=1)
    """Cores and threads of each trial; null divides the machine's cores among its parallel trials."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of each trial, also fractions; null is one if there are any, else none."""

    @model_validator(mode="after")
    def _looks_at_validation_only(self) -> "Sweep":
        if self.metric in VALIDATED:
            return self
        near = f"validation_{self.metric}"
        if near in VALIDATED:
            raise ValueError(f"metric {self.metric!r}: sweeps choose by validation, never by a test; use {near}")
        if re.search("test|eval", self.metric):
            raise ValueError(
                f"metric {self.metric!r} would choose by test identities, which makes the test invalid: "
                f"choose by {', '.join(VALIDATED)}"
            )
        raise ValueError(f"metric {self.metric!r} is not one of {', '.join(VALIDATED)}")

    @model_validator(mode="after")
    def _varies_what_may_be(self) -> "Sweep":
        for path in self.paths:
            why = _FIXED.get(path.split(".")[0])
            if why:
                raise ValueError(f"space varies {path}: {why}")
        twice = next((path for path in self.paths if self.paths.count(path) > 1), None)
        if twice:
            raise ValueError(f"space varies {twice} twice")
        return self

    @model_validator(mode="after")
    def _searches_as_it_can(self) -> "Sweep":
        endless = [name for name, axis in self.space.items() if axis.listed is None]
        if self.search == "grid" and endless:
            raise ValueError(
                f"a grid needs a finite number of values of {', '.join(endless)}: give a choice, or a range with a step"
            )
        if self.search == "grid" and self.trials:
            raise ValueError("trials: a grid tries all combinations; remove trials, or use search: random or tpe")
        if self.search != "grid" and not self.trials:
            raise ValueError(f"search {self.search} needs trials, the number of settings to try")
        if self.combinations is not None and (self.trials or 0) > self.combinations:
            raise ValueError(
                f"{self.trials} trials, but there are only {self.combinations} combinations; use search: grid"
            )
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)}: equal seeds give equal trials; list each once")
        return self

    @property
    def paths(self) -> list[str]:
        """All paths of the recipe that are varied."""
        groups = [
            list(dict.fromkeys(itertools.chain.from_iterable(axis.together.values()))) if axis.together else [name]
            for name, axis in self.space.items()
        ]
        return list(itertools.chain.from_iterable(groups))

    @property
    def combinations(self) -> int | None:
        """The number of possible settings; None if there are infinitely many."""
        listed = [axis.listed for axis in self.space.values()]
        return None if None in listed else math.prod(len(values or ()) for values in listed)

    @property
    def settings(self) -> int:
        """The number of settings that are tried."""
        return self.trials or self.combinations or 0

    def values(self, parameters: Mapping[str, str | int | float]) -> dict[str, object]:
        """The changes of a setting (options by name, numbers) to the recipe, by path."""
        changes: dict[str, object] = {}
        for name, axis in self.space.items():
            option = parameters[name]
            if axis.bounds is not None:
                changes[name] = option
            elif axis.together is not None:
                changes |= axis.together[str(option)]
            else:
                changes[name] = axis.options[str(option)]
        return changes


def short_names(names: list[str]) -> dict[str, str]:
    """For each path its last key, or as many last keys as make it unique; a list's index is shown with its list."""
    shortened = {}
    for name in names:
        keys = name.split(".")
        for count in range(1, len(keys) + 1):
            short = ".".join(keys[-count:])
            matches = [candidate for candidate in names if candidate == short or candidate.endswith(f".{short}")]
            if matches == [name] and not keys[-count].isdigit():
                break
        shortened[name] = short
    return shortened


def number_words(value: int | float) -> str:
    """A number in short form: 5e-6 and 2e7."""
    return re.sub(r"e(-?)\+?0*", r"e\1", f"{value:g}")


def _named(values: list[object]) -> dict[str, object]:
    """Values by short names, or by full ones where short names are equal."""
    short = [_words(value) for value in values]
    words = [_words(v, full=True) if short.count(s) > 1 else s for s, v in zip(short, values, strict=True)]
    numbered = [f"{word} #{place}" if words.count(word) > 1 else word for place, word in enumerate(words, 1)]
    return dict(zip(numbered, values, strict=True))


def _words(value: object, *, full: bool = False) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return number_words(value)
        case dict() if full or "kind" not in value:
            return ", ".join(str(v) if k == "kind" else f"{k} {_words(v)}" for k, v in value.items()) or "{}"
        case dict():
            return str(value["kind"])
        case list() if value and all(isinstance(item, int) for item in value):
            return "x".join(map(str, value))
        case list():
            return " + ".join(_words(item, full=full) for item in value) or "none"
        case _:
            return str(value)
