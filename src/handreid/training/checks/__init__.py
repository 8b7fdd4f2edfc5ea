"""Checks of a stage before its first training step: of the built objects, not of the recipe.

* Everything a check changes is restored: a run with checks ends with the same weights as one without.
* All failures are reported at once, each with its place.
* A few photos are enough; checks make no claims that would need more.
"""

from handreid.training.checks.preflight import before_run, before_stage, check_stage
from handreid.training.checks.probe import Pass, Probe
from handreid.training.checks.result import CheckResult

__all__ = ["CheckResult", "Pass", "Probe", "before_run", "before_stage", "check_stage"]
