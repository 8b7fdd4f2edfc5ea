"""Which checks are made when, and where they are noted."""

from collections.abc import Iterator
from functools import partial

import torch
from torchvision.transforms import v2

from handreid.data.sampling import TrainingPhotos
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.recipe import Recipe
from handreid.runs.dataset import Material
from handreid.training.checks import data, gradients, initial_state, texts
from handreid.training.checks.overfit import overfit
from handreid.training.checks.restore import leaving_no_trace
from handreid.training.checks.result import Gate, note, refuse, timed
from handreid.training.checks.small_batches import Module, small_batches
from handreid.training.context import Job
from handreid.training.epoch_callback import checkpoint_state
from handreid.training.stages.fine_tune.module import FineTuneModule


def before_run(
    recipe: Recipe, embedder: Embedder, text: TextEncoder, material: Material, *, refusing: bool = True
) -> list[Gate]:
    """What can be checked before anything is decoded: who is tested, preprocessing, the evaluation's sentences.

    Raises GateError where one fails, if it is `refusing`.
    """
    gates = timed(lambda: data.strangers(material))
    for _, stage in recipe.fine_tunes:
        gates += timed(partial(data.preprocessing, recipe, stage, embedder, material))
    gates += timed(lambda: texts.texts_of_evaluation(recipe, text))
    kept = [gate for gate in gates if gate.name not in recipe.gates.skip]
    if refusing:
        refuse(kept, f"recipe {recipe.name}")
    return kept


def before_stage(job: Job, number: int, module: Module) -> None:
    """Checks a stage that is about to begin, or to go on, and notes it in its folder. Raises GateError."""
    stage, skipped = job.recipe.stages[number], job.recipe.gates.skip
    gates = check_stage(job, module, fresh=checkpoint_state(job.folder(number)) is None)
    note(job.folder(number), gates, skipped)
    refuse(gates, f"stage {number} ({stage.kind})")
    left_out = f"; left out: {', '.join(skipped)}" if skipped else ""
    seconds = sum(gate.seconds for gate in gates)
    job.progress.say(f"stage {number} ({stage.kind}): {len(gates)} checks passed in {seconds:.1f} s{left_out}")


def check_stage(job: Job, module: Module, *, fresh: bool = True) -> list[Gate]:
    """All checks of a stage, but for those that the recipe skips; the module is then as it was.

    A stage that goes on (not `fresh`) is checked as it was built, with the weights it began with: what it has learned
    since comes from its checkpoint afterwards, and with it classifiers that are no longer untrained.
    """
    with leaving_no_trace(module):
        module.train()
        gates = [*_of_photos(job, module), *_of_learning(module, fresh=fresh)]
    if "overfit" in job.gates and all(gate.passed for gate in gates):
        with leaving_no_trace(module):
            module.train()
            module.on_train_epoch_start()
            gates += timed(lambda: overfit(module, _plain_photos(job, module)))
    return [gate for gate in gates if gate.name not in job.recipe.gates.skip]


def _of_photos(job: Job, module: Module) -> Iterator[Gate]:
    material = job.material
    yield from timed(lambda: data.strangers(material))
    yield from timed(lambda: initial_state.labels(module, material.split))
    if isinstance(module, FineTuneModule):
        stage, own = module.stage, module.photos
        yield from timed(lambda: data.preprocessing(job.recipe, stage, job.embedder, material, own))
        yield from timed(lambda: initial_state.pairs(module))


def _of_learning(module: Module, *, fresh: bool) -> Iterator[Gate]:
    try:
        chosen = module.configure_optimizers()
    except ValueError as error:  # the same parameter twice
        yield gradients.optimised(module, str(error))
        return
    optimizer: torch.optim.Optimizer = chosen["optimizer"]
    yield from timed(lambda: gradients.optimised(module, optimizer))
    yield from timed(lambda: initial_state.rates(module, optimizer, chosen["lr_scheduler"]))
    module.on_train_epoch_start()  # from here on as in the first epoch: layers that thaw later are frozen
    statistics = gradients.frozen_statistics(module)
    passed: list[gradients.Pass] = []

    def gradients_of_a_pass() -> Gate:
        passed.append(gradients.one_pass(module, next(small_batches(module))))
        return gradients.gradients(module, passed[0])

    yield from timed(gradients_of_a_pass)
    first = passed[0]
    if isinstance(module, FineTuneModule):
        if fresh:
            yield from timed(lambda: initial_state.loss(module, first.losses))
        yield from timed(lambda: texts.texts_of_stage(module, first))
    else:
        yield from timed(lambda: texts.texts_of_prompts(module))
    yield from timed(lambda: gradients.step(module, optimizer, first, statistics))


def _plain_photos(job: Job, module: Module) -> TrainingPhotos | None:
    """The stage's photos at the tower's size, without augmentation."""
    if not isinstance(module, FineTuneModule):
        return None
    given, size = module.photos, job.embedder.preprocessing.size
    count = given.unmirrored
    return TrainingPhotos(
        given.photos,
        given.rows[:count].numpy(),
        given.labels[:count].numpy(),
        v2.Compose([v2.CenterCrop(size), v2.PILToTensor()]),
        mirror=count < len(given),
        conditions=None if given.conditions is None else given.conditions[:count].numpy(),
    )
