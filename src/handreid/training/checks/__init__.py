"""Checks of what is about to be trained, before its first step: the objects, not the recipe's words.

* Whatever a check does to a stage is undone: a run with checks ends with the same weights as one without.
* All that is wrong is said at once, each with where.
* A few photos are enough. What a check cannot know of few photos it does not claim.
"""

from handreid.training.checks.preflight import before_run, before_stage, check_stage
from handreid.training.checks.probe import Pass, Probe
from handreid.training.checks.result import CheckResult

__all__ = ["CheckResult", "Pass", "Probe", "before_run", "before_stage", "check_stage"]
