"""How much each parameter mattered: functional ANOVA over finished trials.

Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance" (2014), as Optuna has
it: a random forest learns the metric from the parameters, and a parameter's importance is the share of the forest's
variance that it explains alone, all made to sum to 1. The seed of a trial counts as a parameter where there are
several: a parameter with less than the seed's share is within noise.

Trials that were stopped early are excluded: their metrics are of fewer epochs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handreid.recipe.sweep import Sweep
from handreid.sweep.search import distributions

SEED = "seed"
_FEW = 10  # finished trials for each parameter, under which the forest guesses


def importance(sweep: Sweep, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`parameters` by name, in 0 to 1, most important first; empty, with a `remark` that says why, where there is none.

    `trials` are entries of sweep.json.
    """
    done = [trial for trial in trials if trial["state"] == "finished"]
    seeded = len({trial["seed"] for trial in done}) > 1
    names = [*sweep.space, *([SEED] if seeded else [])]
    facts = {"method": "fANOVA", "trials": len(done)}
    if len(done) < 4 or len({trial["value"] for trial in done}) < 2:
        why = "no two finished trials differ" if len(done) >= 4 else f"only {len(done)} trials finished"
        return {**facts, "parameters": {}, "remark": f"importance is not known: {why}"}
    if len(names) == 1:
        return {**facts, "parameters": {names[0]: 1.0}, "remark": "one parameter alone has no rivals: all is due to it"}
    shares = _shares(sweep, done, seeded=seeded)
    few = len(done) < _FEW * len(names)
    remark = f"{len(done)} trials are few for {len(names)} parameters: a hint, not a measurement" if few else None
    return {**facts, "parameters": dict(sorted(shares.items(), key=lambda item: -item[1])), "remark": remark}


def _shares(sweep: Sweep, done: Sequence[Mapping[str, Any]], *, seeded: bool) -> dict[str, float]:
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spread: dict[str, Any] = dict(distributions(sweep))
    if seeded:
        spread[SEED] = CategoricalDistribution(sorted({trial["seed"] for trial in done}))
    study = optuna.create_study(direction="maximize")
    for trial in done:
        params = {**trial["parameters"], **({SEED: trial["seed"]} if seeded else {})}
        study.add_trial(create_trial(params=params, distributions=spread, value=trial["value"]))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=sweep.seed), params=list(spread))
    return {name: float(share) for name, share in shares.items()}
