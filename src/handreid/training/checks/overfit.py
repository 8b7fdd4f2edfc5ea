"""Can the stage learn anything at all: a few photos by heart.

* Of the stage's own first batch, without augmentation, dropout, mixing and label smoothing, and with the labels of
  different people exchanged: what the tower knows already is of no help, and a classifier alone, over features that do
  not move, cannot make photos of one label each other's nearest.
* Adam at a rate that a few photos take, whatever the recipe's: it is asked whether gradients lead down, not how fast.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handreid.data.sampling import TrainingPhotos
from handreid.objectives.cross_entropy import CrossEntropy
from handreid.objectives.image_to_text import ImageToText
from handreid.training.checks.result import Gate, verdict
from handreid.training.checks.small_batches import exchanged, few, labels_in, small_batches
from handreid.training.optimizers import Group
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.training.stages.learn_prompts.module import LearnPromptsModule
from handreid.types import Batch, Outputs

STEPS = 150
SHARE = 0.5  # of its start that the loss must fall below
RATE, PROMPT_RATE = 1e-3, 1e-2
EVERY = 10  # steps between looks


def overfit(module: FineTuneModule | LearnPromptsModule, photos: TrainingPhotos | None = None) -> Gate:
    """`photos` are the stage's without augmentation; a stage of prompts needs none. Leaves a trace."""
    if isinstance(module, LearnPromptsModule):
        return _overfit_prompts(module)
    assert photos is not None  # noqa: S101 - for the type checker
    return _overfit_photos(module, photos)


def _overfit_photos(module: FineTuneModule, photos: TrainingPhotos) -> Gate:
    drawn = next(iter(module.train_dataloader().sampler))
    batch: Batch = photos[few(drawn, photos.labels, 3, 2)]
    batch = Batch(batch.photos, exchanged(batch.labels), batch.rows, batch.conditions)
    _make_easy(module)
    seen: list[Outputs] = []
    handle = module.embedder.register_forward_hook(lambda _, __, found: seen.append(found))
    moves = any(own.requires_grad for own in module.embedder.parameters())

    def right() -> tuple[int, int]:
        compared = module.embedder.compared(seen[-1])
        ranked = _ranked_right(compared, batch.labels) if moves else len(batch)
        return min(ranked, _classified_right(module, seen[-1], batch.labels)), len(batch)

    try:
        losses = _learn(module, batch, module.groups(), RATE)
        return _judge(losses, right, f"{len(batch)} photos of {len(set(batch.labels.tolist()))} labels", RATE)
    finally:
        handle.remove()


def _overfit_prompts(module: LearnPromptsModule) -> Gate:
    positions: Tensor = next(small_batches(module, identities=6, images=1))
    module.learner.dropout.p = 0.0
    with torch.no_grad():
        module.features[positions] = _apart(module.features[positions])
    labels = labels_in(module)[positions]

    def right() -> tuple[int, int]:
        with torch.no_grad():
            texts = module.learner.mean(module.learner(module.text, labels))
            found = module.similarities(module.features[positions], texts).argmax(dim=1)
        return int((labels[found] == labels).sum()), len(labels)

    losses = _learn(module, positions, module.groups(), PROMPT_RATE)
    return _judge(losses, right, f"{len(labels)} photos of as many identities", PROMPT_RATE)


def _apart(features: Tensor) -> Tensor:
    """As long as before, and their mean taken away: what is asked is whether contexts lead texts to where photos are,
    and to an untrained tower all photos are alike.
    """
    centred = F.normalize(features - features.mean(dim=0), dim=1)
    apart: Tensor = centred * features.norm(dim=1).mean()
    return apart


def _learn(module: Any, batch: Any, groups: list[Group], rate: float) -> Iterator[float]:
    """The loss before each step."""
    optimizer = torch.optim.Adam([own for group in groups for own in group["params"] if own.requires_grad], lr=rate)
    for _ in range(STEPS):
        loss = module.training_step(batch, 0)
        yield float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([own for group in optimizer.param_groups for own in group["params"]], 1.0)
        optimizer.step()


def _judge(losses: Iterator[float], right: Any, what: str, rate: float) -> Gate:
    start = now = next(losses)
    steps = good = count = 0
    for steps, now in enumerate(losses, 1):
        if steps % EVERY:
            continue
        good, count = right()
        if good == count and now < SHARE * start:
            break
    found = f"{what}: loss {start:.3g} to {now:.3g} in {steps} steps at {rate:g}, {good} of {count} right"
    wrong = []
    if not now < SHARE * start:
        wrong.append(f"the loss of {what} went from {start:.3g} to {now:.3g} in {steps} steps at a rate of {rate:g}")
    if good < count:
        wrong.append(f"{good} of {count} photos are classified or ranked right after {steps} steps ({what})")
    return verdict("overfit", wrong, found, "the model cannot memorise one batch, so training cannot work")


def _make_easy(module: FineTuneModule) -> None:
    """Nothing random, nothing smoothed."""
    module.mix = None
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
        elif isinstance(part, CrossEntropy | ImageToText):
            part.label_smoothing = 0.0


def _ranked_right(features: Tensor, labels: Tensor) -> int:
    unit = F.normalize(features.detach().float(), dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    alone = (labels[:, None] == labels).sum(dim=1) == 1
    return int(((labels[cosines.argmax(dim=1)] == labels) | alone).sum())


def _classified_right(module: FineTuneModule, outputs: Outputs, labels: Tensor) -> int:
    """By the classifier that gets the most wrong; all where there is none."""
    counts = [len(labels)]
    for objective in module.objectives.values():
        if isinstance(objective, CrossEntropy):
            for name, classifier in objective.classifiers.items():
                found = classifier(outputs.after[name].detach()).argmax(dim=1)
                counts.append(int((found == labels).sum()))
    return min(counts)
