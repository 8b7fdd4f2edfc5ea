"""The next setting: a function of the sweep, the setting's number, and the results of the trials before it.

So a sweep that was killed continues as if it had not been: its only state is the trials in its folder. Each setting has
an Optuna study and sampler of its own, with its own seed. Ray's OptunaSearch would not do: it keeps one study in a
pickle, which is as old as its last save, and one stream of random numbers, whose position is lost.
"""

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handreid.recipe.sweep import Axis, Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

Setting = dict[str, str | int | float]  # by parameter: an option's name, or a number
_TRIES = 50  # for TPE to propose a setting that was not tried


@dataclass(frozen=True)
class Known:
    """A trial as a searcher sees it; `values` are the metric by epoch, empty while the trial runs."""

    setting: Setting
    state: str
    values: dict[int, float]


def propose(sweep: Sweep, number: int, trials: Sequence[Known]) -> Setting | None:
    """The setting of this number (from 0); None when every combination was tried."""
    match sweep.search:
        case "grid":
            return next(itertools.islice(grid(sweep), number, None), None)
        case "random":
            return next(itertools.islice(_random(sweep), number, None), None)
        case "tpe":
            return _tpe(sweep, number, trials)


def grid(sweep: Sweep) -> Iterable[Setting]:
    """All combinations, the last parameter fastest."""
    axes = [axis.listed or () for axis in sweep.space.values()]
    return (dict(zip(sweep.space, values, strict=True)) for values in itertools.product(*axes))


def one_at_a_time(sweep: Sweep) -> list[Setting]:
    """Settings that vary one parameter at a time: each value, or both ends and the middle of a range, with the first
    value of all other parameters.
    """
    values = {name: axis.listed or _three(axis) for name, axis in sweep.space.items()}
    start: Setting = {name: options[0] for name, options in values.items()}
    return [start, *({**start, name: value} for name, options in values.items() for value in options[1:])]


def study_of(sweep: Sweep, trials: Sequence[Known], sampler: Any = None) -> "Study":
    """Optuna's study of these trials; running ones are included, so that no two search in the same place."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    spread = distributions(sweep)
    for trial in trials:
        values = list(trial.values.values())[-1:]
        state = states.get(trial.state, TrialState.RUNNING)
        study.add_trial(
            create_trial(
                params=trial.setting,
                distributions=spread,
                state=state,
                value=values[0] if state == TrialState.COMPLETE else None,
                intermediate_values=trial.values,
            )
        )
    return study


def distributions(sweep: Sweep) -> "dict[str, BaseDistribution]":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    result: dict[str, BaseDistribution] = {}
    for name, axis in sweep.space.items():
        if axis.bounds is None:
            result[name] = CategoricalDistribution(list(axis.options))
        elif axis.integer:
            low, high = (int(end) for end in axis.bounds)
            result[name] = IntDistribution(low, high, log=axis.log_range is not None, step=int(axis.step or 1))
        else:
            result[name] = FloatDistribution(*axis.bounds, log=axis.log_range is not None, step=axis.step)
    return result


def _random(sweep: Sweep) -> Iterable[Setting]:
    """Settings drawn one after another, none twice."""
    earlier: list[Setting] = []
    for number in itertools.count():
        if len(earlier) == sweep.combinations:
            return
        rng = np.random.default_rng([sweep.seed, number])
        drawn: Setting = {name: _drawn(axis, rng) for name, axis in sweep.space.items()}
        if drawn not in earlier:
            earlier.append(drawn)
            yield drawn


def _drawn(axis: Axis, rng: np.random.Generator) -> str | int | float:
    if axis.listed is not None:
        return axis.listed[int(rng.integers(len(axis.listed)))]
    assert axis.bounds is not None  # noqa: S101 - for the type checker
    low, high = axis.bounds
    number = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if axis.log_range else float(rng.uniform(low, high))
    return _rounded(axis, number)


def _tpe(sweep: Sweep, number: int, trials: Sequence[Known]) -> Setting | None:
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    tried = [trial.setting for trial in trials]
    for again in range(_TRIES):
        seed = int(np.random.default_rng([sweep.seed, number, again]).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True)
        params = study_of(sweep, trials, sampler).ask(distributions(sweep)).params
        setting: Setting = {name: _asked(axis, params[name]) for name, axis in sweep.space.items()}
        if setting not in tried:
            return setting
    untried = (setting for setting in _random(sweep) if setting not in tried)
    return next(iter(untried), None)


def _asked(axis: Axis, value: Any) -> str | int | float:
    return str(value) if axis.bounds is None else _rounded(axis, value)


def _rounded(axis: Axis, number: int | float) -> int | float:
    """Four significant digits, for readable names, within the bounds; on its step where there is one."""
    assert axis.bounds is not None  # noqa: S101 - for the type checker
    if axis.integer:
        return round(number)
    digits = round(number, 12) if axis.step else float(f"{number:.4g}")
    return min(max(digits, axis.bounds[0]), axis.bounds[1])


def _three(axis: Axis) -> tuple[int | float, ...]:
    assert axis.bounds is not None  # noqa: S101 - for the type checker
    low, high = axis.bounds
    middle = (low * high) ** 0.5 if axis.log_range else low + (high - low) * 0.4567
    ends = (int(low), int(high)) if axis.integer else (low, high)
    return (ends[0], _rounded(axis, middle), ends[1])
