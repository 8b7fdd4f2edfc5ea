"""Runs the checks: before a run and before each stage, with results in the stage's folder."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.recipe import Recipe
from handreid.runs.dataset import RunDataset
from handreid.training.checks import data, gradients, initial_state, texts
from handreid.training.checks.probe import Pass, Probe
from handreid.training.checks.restore import restored
from handreid.training.checks.result import CheckResult, raise_failed, timed, write_results
from handreid.training.checks.small_batches import small_batches
from handreid.training.context import Job
from handreid.training.epoch_callback import read_checkpoint_progress
from handreid.training.stage_module import StageModule


def before_run(
    recipe: Recipe, embedder: Embedder, text: TextEncoder, material: RunDataset, *, refusing: bool = True
) -> list[CheckResult]:
    """Checks before all photos are decoded: test subjects, preprocessing, the evaluation's sentences.

    Raises CheckError where one fails, unless `refusing` is False, and DataError for photos that cannot be aligned.
    """
    data.check_landmarks(embedder, material)
    results = timed(lambda: data.check_subject_disjoint(material))
    for stage in recipe.photo_stages:
        results += timed(partial(data.preprocessing, recipe, stage, embedder, material))
    results += timed(lambda: texts.texts_of_evaluation(recipe, text))
    included = [result for result in results if result.name not in recipe.checks.skip]
    if refusing:
        raise_failed(included, f"recipe {recipe.name}")
    return included


def before_stage(job: Job, number: int, probe: Probe[Any]) -> None:
    """Checks a stage before it is started or resumed, and writes checks.json into its folder. Raises CheckError."""
    stage, skipped = job.recipe.stages[number], job.recipe.checks.skip
    results = check_stage(job, probe, fresh=read_checkpoint_progress(job.folder(number)) is None)
    write_results(job.folder(number), results, skipped)
    raise_failed(results, f"stage {number} ({stage.kind})")
    left_out = f"; left out: {', '.join(skipped)}" if skipped else ""
    seconds = sum(result.seconds for result in results)
    job.progress.say(f"stage {number} ({stage.kind}): {len(results)} checks passed in {seconds:.1f} s{left_out}")


def check_stage(job: Job, probe: Probe[Any], *, fresh: bool = True) -> list[CheckResult]:
    """All checks of a stage except those that the recipe skips; the module is restored afterwards.

    A resumed stage (not `fresh`) is checked as built, with its initial weights: its learned weights are loaded from the
    checkpoint afterwards.
    """
    module: StageModule = probe.module
    with restored(module):
        module.train()
        results = [*_of_photos(job, probe), *_of_learning(probe, fresh=fresh)]
    if "overfit" in job.long_checks and all(result.passed for result in results):
        with restored(module):
            module.train()
            module.on_train_epoch_start()
            results += timed(probe.overfit)
    return [result for result in results if result.name not in job.recipe.checks.skip]


def _of_photos(job: Job, probe: Probe[Any]) -> Iterator[CheckResult]:
    yield from timed(lambda: data.check_subject_disjoint(job.material))
    yield from timed(lambda: initial_state.labels(probe, job.material.split))
    for question in probe.of_photos(job):
        yield from timed(question)


def _of_learning(probe: Probe[Any], *, fresh: bool) -> Iterator[CheckResult]:
    module: StageModule = probe.module
    try:
        configured = module.configure_optimizers()
    except ValueError as error:  # the same parameter twice
        yield gradients.optimised(module, str(error))
        return
    optimizer: torch.optim.Optimizer = configured["optimizer"]
    yield from timed(lambda: gradients.optimised(module, optimizer))
    yield from timed(lambda: initial_state.rates(probe, optimizer, configured["lr_scheduler"]))
    module.on_train_epoch_start()  # from here on as in the first epoch: layers to be unfrozen later are frozen
    statistics = gradients.frozen_statistics(module)
    passed: list[Pass] = []

    def gradients_of_a_pass() -> CheckResult:
        passed.append(probe.one_pass(next(small_batches(probe))))
        return gradients.gradients(probe, passed[0])

    yield from timed(gradients_of_a_pass)
    result = passed[0]
    for question in probe.of_learning(result, fresh=fresh):
        yield from timed(question)
    yield from timed(lambda: gradients.step(probe, optimizer, result, statistics))
