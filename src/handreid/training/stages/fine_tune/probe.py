"""What the checks ask of a stage in which the encoder learns.

* A term is read by a hook on its objective, at the stage's own `training_step`.
* A term's gradient is taken at the tower's features, from where the way down is that of the sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from handreid.data.sampling import TrainingPhotos
from handreid.data.splits import Split
from handreid.models.lora import LowRank
from handreid.objectives.cross_entropy import CrossEntropy
from handreid.objectives.image_to_text import ImageToText
from handreid.objectives.text_to_image import TextToImage
from handreid.recipe.objectives import term_name
from handreid.training.checks import CheckResult, Pass, Probe, initial_state
from handreid.training.checks import data as data_checks
from handreid.training.checks.overfit import memorise
from handreid.training.checks.probe import Question
from handreid.training.checks.small_batches import roll_labels, subsample
from handreid.training.checks.texts import texts_of_objectives
from handreid.training.context import Job
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.types import Batch, Outputs, Targets

RATE = 1e-3  # of Adam, at which a few photos are memorised


@dataclass(frozen=True)
class PhotoPass(Pass):
    """With what the terms were made of."""

    outputs: Outputs
    targets: Targets


class FineTuneProbe(Probe[FineTuneModule]):
    moving = frozenset({"encoder", "visual prompts", "side information"})
    shared_name = "the features"

    @property
    def labels(self) -> Tensor:
        return self.module.photos.labels

    def expected_labels(self, split: Split) -> list[int]:
        labels = super().expected_labels(split)
        if self.module.photos.unmirrored == len(self.module.photos):
            return labels
        return [*labels, *(label + len(split.train_identities()) for label in labels)]

    def unlike_labels(self, identities: int) -> list[str]:
        return [
            f"{name} has {len(objective.texts)} texts for {identities} identities"
            for name, objective in self.module.objectives.items()
            if isinstance(objective, ImageToText | TextToImage) and len(objective.texts) != identities
        ]

    def one_pass(self, batch: Any) -> PhotoPass:
        losses: dict[str, Tensor] = {}
        seen: list[tuple[Outputs, Targets]] = []
        handles = []
        for name, objective in self.module.objectives.items():

            def note(_: nn.Module, arguments: Any, loss: Tensor, name: str = name) -> None:
                losses[name] = loss
                seen.append(arguments)

            handles.append(objective.register_forward_hook(note))
        try:
            total = self.module.training_step(batch, 0)
        finally:
            for handle in handles:
                handle.remove()
        weights = [term.weight for term in self.module.stage.objectives]
        outputs, targets = seen[0]
        return PhotoPass(total, losses, dict(zip(self.module.objectives, weights, strict=True)), outputs, targets)

    def frozen(self) -> dict[str, nn.Parameter]:
        stage, backbone = self.module.stage, self.module.embedder.backbone
        count = stage.freeze_blocks + 1 if stage.freeze_blocks else 0
        if stage.freeze_encoder:
            count = len(backbone.layers)
        if stage.unfreeze_every:
            count = len(backbone.layers) - 1
        frozen = {id(own) for layer in backbone.layers[:count] for own in layer}
        if stage.lora:
            changes = {id(own) for part in backbone.modules() if isinstance(part, LowRank) for own in part.parameters()}
            frozen |= {id(own) for own in backbone.visual.parameters()} - changes
        return {name: own for name, own in self.module.named_parameters() if id(own) in frozen}

    def shared(self, now: Pass, name: str) -> list[Tensor]:
        features = _outputs(now)[0].features
        read: list[Tensor] = [getattr(features, one.name) for one in fields(features)]
        reached = [value for value in read if value.requires_grad]
        learning: list[Tensor] = [own for own in self.module.embedder.backbone.parameters() if own.requires_grad]
        if reached or learning:
            return reached or learning  # features that are cut off from an encoder that learns: it will be zero
        return [] if self.own(name) else [own for own in self.module.embedder.head.parameters() if own.requires_grad]

    def own(self, name: str) -> list[Tensor]:
        return [value for value in self.module.objectives[name].parameters() if value.requires_grad]

    def exchanged(self, now: Pass, name: str) -> Tensor:
        objective, (outputs, targets) = self.module.objectives[name], _outputs(now)
        loss: Tensor = objective(outputs, Targets(roll_labels(targets.labels), targets.mixed))
        return loss

    def of_photos(self, job: Job) -> Iterator[Question]:
        stage, own = self.module.stage, self.module.photos
        yield partial(data_checks.preprocessing, job.recipe, stage, job.embedder, job.material, own)
        wanting = [f"{n}_{term_name(term)}" for n, term in enumerate(stage.objectives) if term.needs_pairs]
        yield lambda: initial_state.pairs(wanting, own.labels, self.drawn())

    def of_learning(self, first: Pass, *, fresh: bool) -> Iterator[Question]:
        objectives = dict(self.module.objectives.items())
        if fresh:
            yield partial(initial_state.loss, objectives, self.module.photos.identities, first.losses)
        yield partial(texts_of_objectives, objectives, _outputs(first)[0].texts)

    def overfit(self) -> CheckResult:
        """Without augmentation, dropout, mixing and label smoothing, and with the labels of different people exchanged:
        what the tower knows already is of no help, and a classifier alone, over features that do not move, cannot make
        photos of one label each other's nearest.
        """
        photos = self._plain_photos()
        batch: Batch = photos[subsample(next(self.drawn()), photos.labels, 3, 2)]
        batch = Batch(batch.photos, roll_labels(batch.labels), batch.rows, batch.conditions)
        module = self.module
        _make_easy(module)
        seen: list[Outputs] = []
        handle = module.embedder.register_forward_hook(lambda _, __, found: seen.append(found))
        moves = any(own.requires_grad for own in module.embedder.parameters())

        def right() -> tuple[int, int]:
            compared = module.embedder.concat_features(seen[-1])
            ranked = _ranked_right(compared, batch.labels) if moves else len(batch)
            return min(ranked, _classified_right(module, seen[-1], batch.labels)), len(batch)

        try:
            what = f"{len(batch)} photos of {len(set(batch.labels.tolist()))} labels"
            return memorise(module, batch, right, what, RATE)
        finally:
            handle.remove()

    def _plain_photos(self) -> TrainingPhotos:
        """The stage's photos at the tower's size, without augmentation."""
        given, size = self.module.photos, self.module.embedder.preprocessing.size
        count = given.unmirrored
        return TrainingPhotos(
            given.photos,
            given.rows[:count].numpy(),
            given.labels[:count].numpy(),
            v2.Compose([v2.CenterCrop(size), v2.PILToTensor()]),
            mirror=count < len(given),
            conditions=None if given.conditions is None else given.conditions[:count].numpy(),
        )


def _outputs(now: Pass) -> tuple[Outputs, Targets]:
    assert isinstance(now, PhotoPass)  # noqa: S101 - for the type checker
    return now.outputs, now.targets


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
