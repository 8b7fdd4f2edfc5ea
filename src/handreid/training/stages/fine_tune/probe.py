"""Interface of the `fine_tune` stage for the checks before the first step.

* A term is read by a hook on its objective, in the stage's own `training_step`.
* A term's gradient is computed at the tower's features; from there down the path is the same as for the sum.
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

RATE = 1e-3  # learning rate of Adam to memorise a few photos


@dataclass(frozen=True)
class PhotoPass(Pass):
    """With the input of the terms."""

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
        inputs: list[tuple[Outputs, Targets]] = []
        handles = []
        for name, objective in self.module.objectives.items():

            def note(_: nn.Module, arguments: Any, loss: Tensor, name: str = name) -> None:
                losses[name] = loss
                inputs.append(arguments)

            handles.append(objective.register_forward_hook(note))
        try:
            total = self.module.training_step(batch, 0)
        finally:
            for handle in handles:
                handle.remove()
        weights = [term.weight for term in self.module.stage.objectives]
        outputs, targets = inputs[0]
        return PhotoPass(total, losses, dict(zip(self.module.objectives, weights, strict=True)), outputs, targets)

    def frozen(self) -> dict[str, nn.Parameter]:
        stage, backbone = self.module.stage, self.module.embedder.backbone
        count = stage.freeze_blocks + 1 if stage.freeze_blocks else 0
        if stage.freeze_encoder:
            count = len(backbone.layers)
        if stage.unfreeze_every:
            count = len(backbone.layers) - 1
        frozen = {id(parameter) for layer in backbone.layers[:count] for parameter in layer}
        if stage.lora:
            changes = {
                id(parameter)
                for part in backbone.modules()
                if isinstance(part, LowRank)
                for parameter in part.parameters()
            }
            frozen |= {id(parameter) for parameter in backbone.visual.parameters()} - changes
        return {name: parameter for name, parameter in self.module.named_parameters() if id(parameter) in frozen}

    def shared(self, result: Pass, name: str) -> list[Tensor]:
        features = _outputs(result)[0].features
        read: list[Tensor] = [getattr(features, field.name) for field in fields(features)]
        reached = [value for value in read if value.requires_grad]
        learning: list[Tensor] = [
            parameter for parameter in self.module.embedder.backbone.parameters() if parameter.requires_grad
        ]
        if reached or learning:
            return reached or learning  # features detached from a trainable encoder: the gradient will be zero
        return (
            []
            if self.own_parameters(name)
            else [parameter for parameter in self.module.embedder.head.parameters() if parameter.requires_grad]
        )

    def own_parameters(self, name: str) -> list[Tensor]:
        return [value for value in self.module.objectives[name].parameters() if value.requires_grad]

    def exchanged(self, result: Pass, name: str) -> Tensor:
        objective, (outputs, targets) = self.module.objectives[name], _outputs(result)
        loss: Tensor = objective(outputs, Targets(roll_labels(targets.labels), targets.mixed))
        return loss

    def of_photos(self, job: Job) -> Iterator[Question]:
        stage, photos = self.module.stage, self.module.photos
        yield partial(data_checks.preprocessing, job.recipe, stage, job.embedder, job.material, photos)
        wanting = [f"{n}_{term_name(term)}" for n, term in enumerate(stage.objectives) if term.needs_pairs]
        yield lambda: initial_state.pairs(wanting, photos.labels, self.drawn())

    def of_learning(self, result: Pass, *, fresh: bool) -> Iterator[Question]:
        objectives = dict(self.module.objectives.items())
        if fresh:
            yield partial(initial_state.loss, objectives, self.module.photos.identities, result.losses)
        yield partial(texts_of_objectives, objectives, _outputs(result)[0].texts)

    def overfit(self) -> CheckResult:
        """Without augmentation, dropout, mixing and label smoothing, and with labels exchanged between people: what the
        tower has learned before does not help, and a classifier alone, on constant features, cannot make photos of one
        label nearest neighbours.
        """
        photos = self._plain_photos()
        batch: Batch = photos[subsample(next(self.drawn()), photos.labels, 3, 2)]
        batch = Batch(batch.photos, roll_labels(batch.labels), batch.rows, batch.conditions)
        module = self.module
        _make_easy(module)
        outputs: list[Outputs] = []
        handle = module.embedder.register_forward_hook(lambda _, __, output: outputs.append(output))
        moves = any(parameter.requires_grad for parameter in module.embedder.parameters())

        def right() -> tuple[int, int]:
            compared = module.embedder.concat_features(outputs[-1])
            ranked = _ranked_right(compared, batch.labels) if moves else len(batch)
            return min(ranked, _classified_right(module, outputs[-1], batch.labels)), len(batch)

        try:
            what = f"{len(batch)} photos of {len(set(batch.labels.tolist()))} labels"
            return memorise(module, batch, right, what, RATE)
        finally:
            handle.remove()

    def _plain_photos(self) -> TrainingPhotos:
        """The stage's photos at the tower's size, without augmentation."""
        photos, size = self.module.photos, self.module.embedder.preprocessing.size
        count = photos.unmirrored
        return TrainingPhotos(
            photos.photos,
            photos.rows[:count].numpy(),
            photos.labels[:count].numpy(),
            v2.Compose([v2.CenterCrop(size), v2.PILToTensor()]),
            mirror=count < len(photos),
            conditions=None if photos.conditions is None else photos.conditions[:count].numpy(),
        )


def _outputs(result: Pass) -> tuple[Outputs, Targets]:
    assert isinstance(result, PhotoPass)  # noqa: S101 - for the type checker
    return result.outputs, result.targets


def _make_easy(module: FineTuneModule) -> None:
    """Switches off mixing, dropout and label smoothing."""
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
    """Photos that the worst classifier classifies correctly; all photos where there is none."""
    counts = [len(labels)]
    for objective in module.objectives.values():
        if isinstance(objective, CrossEntropy):
            for name, classifier in objective.classifiers.items():
                predicted = classifier(outputs.after[name].detach()).argmax(dim=1)
                counts.append(int((predicted == labels).sum()))
    return min(counts)
