"""Which setting comes next: a function of the sweep, the setting's number, and what the trials before it gave.

So a sweep that was killed goes on as it would have: there is no state but the trials in its folder. Optuna is asked
anew for each setting, with a seed of its own; Ray's OptunaSearch keeps a study in a pickle that is as old as its last
save, and draws on one stream of random numbers, of which nobody knows where it was.
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
_TRIES = 50  # of a searcher that proposes what has been tried


@dataclass(frozen=True)
class Known:
    """A trial as a searcher sees it; `values` of the metric by epoch, of a trial that goes on none."""

    setting: Setting
    state: str
    values: dict[int, float]


def propose(sweep: Sweep, number: int, known: Sequence[Known]) -> Setting | None:
    """The setting of a number from 0; None when there is no other that was not tried."""
    match sweep.search:
        case "grid":
            return next(itertools.islice(grid(sweep), number, None), None)
        case "random":
            return next(itertools.islice(_random(sweep), number, None), None)
        case "tpe":
            return _tpe(sweep, number, known)


def grid(sweep: Sweep) -> Iterable[Setting]:
    """All combinations, the last parameter fastest."""
    axes = [axis.listed or () for axis in sweep.space.values()]
    return (dict(zip(sweep.space, values, strict=True)) for values in itertools.product(*axes))


def one_at_a_time(sweep: Sweep) -> list[Setting]:
    """Settings in which every value, and both ends and the middle of every range, stands once beside others' first."""
    values = {name: axis.listed or _three(axis) for name, axis in sweep.space.items()}
    first: Setting = {name: of[0] for name, of in values.items()}
    return [first, *({**first, name: value} for name, of in values.items() for value in of[1:])]


def study_of(sweep: Sweep, known: Sequence[Known], sampler: Any = None) -> "Study":
    """Optuna's study of what is known; trials that go on are in it, so that no two search in the same place."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    spread = distributions(sweep)
    for one in known:
        last = list(one.values.values())[-1:]
        state = states.get(one.state, TrialState.RUNNING)
        study.add_trial(
            create_trial(
                params=one.setting,
                distributions=spread,
                state=state,
                value=last[0] if state == TrialState.COMPLETE else None,
                intermediate_values=one.values,
            )
        )
    return study


def distributions(sweep: Sweep) -> "dict[str, BaseDistribution]":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, axis in sweep.space.items():
        if axis.bounds is None:
            found[name] = CategoricalDistribution(list(axis.options))
        elif axis.integer:
            low, high = (int(end) for end in axis.bounds)
            found[name] = IntDistribution(low, high, log=axis.log_range is not None, step=int(axis.step or 1))
        else:
            found[name] = FloatDistribution(*axis.bounds, log=axis.log_range is not None, step=axis.step)
    return found


def _random(sweep: Sweep) -> Iterable[Setting]:
    """Settings drawn one after another, none twice."""
    seen: list[Setting] = []
    for number in itertools.count():
        if len(seen) == sweep.combinations:
            return
        rng = np.random.default_rng([sweep.seed, number])
        drawn: Setting = {name: _drawn(axis, rng) for name, axis in sweep.space.items()}
        if drawn not in seen:
            seen.append(drawn)
            yield drawn


def _drawn(axis: Axis, rng: np.random.Generator) -> str | int | float:
    if axis.listed is not None:
        return axis.listed[int(rng.integers(len(axis.listed)))]
    assert axis.bounds is not None  # noqa: S101 - for the type checker
    low, high = axis.bounds
    number = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if axis.log_range else float(rng.uniform(low, high))
    return _rounded(axis, number)


def _tpe(sweep: Sweep, number: int, known: Sequence[Known]) -> Setting | None:
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    tried = [one.setting for one in known]
    for again in range(_TRIES):
        seed = int(np.random.default_rng([sweep.seed, number, again]).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True)
        asked = study_of(sweep, known, sampler).ask(distributions(sweep)).params
        setting: Setting = {name: _asked(axis, asked[name]) for name, axis in sweep.space.items()}
        if setting not in tried:
            return setting
    untried = (setting for setting in _random(sweep) if setting not in tried)
    return next(iter(untried), None)


def _asked(axis: Axis, value: Any) -> str | int | float:
    return str(value) if axis.bounds is None else _rounded(axis, value)


def _rounded(axis: Axis, number: int | float) -> int | float:
    """Four digits, which is what people read, within the bounds; on its step where there is one."""
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
