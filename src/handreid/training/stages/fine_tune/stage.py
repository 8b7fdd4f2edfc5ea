"""The `fine_tune` stage: its photos, objectives, validation, and final weights."""

import copy
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handreid.build import build_augment, build_batches, build_mix, build_objectives, enlargement
from handreid.data.sampling import TrainingPhotos
from handreid.files import write_json
from handreid.models.embedder import Embedder
from handreid.models.lora import add_lora, merge_lora
from handreid.models.sealed import digest_of
from handreid.recipe import FineTune
from handreid.recipe.objectives import term_name
from handreid.runs.dataset import RunDataset
from handreid.runs.stage_weights import belongs, checked, noting
from handreid.training.context import Handover, Job, labels_of
from handreid.training.epoch_callback import ValidationSpec
from handreid.training.parameter_counts import check_trainable, count_all, count_parameters
from handreid.training.phrases import counted, joined, rate
from handreid.training.stages.base import Stage
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.training.stages.fine_tune.probe import FineTuneProbe
from handreid.training.stages.fine_tune.wise_ft import interpolation_curve
from handreid.training.stages.photo_data import groups_of, identification, loader_workers

_TERMS = {
    "cross_entropy": "cross-entropy",
    "arcface": "ArcFace",
    "cosface": "CosFace",
    "triplet": "triplet",
    "center": "center",
    "supcon": "supervised contrastive",
    "contrast": "photo-to-sentence contrastive",
    "symmetric_contrast": "photo-to-sentence contrastive",
    "image_to_text": "image-to-text",
    "text_to_image": "text-to-image",
}


class FineTuneStage(Stage[FineTune, FineTuneModule]):
    """The encoder learns; afterwards the embedder has the stage's weights, with all layers unfrozen."""

    def check(self, handover: Handover, material: RunDataset) -> None:
        stage, labels, embedder = self.settings, labels_of(material), handover.embedder
        identities = int(labels.max()) + 1
        texts = torch.zeros(identities, embedder.backbone.widths["joint"])  # placeholders: an earlier stage learns them
        check_trainable(stage, embedder, build_objectives(stage, embedder.head, identities, self.recipe.seed, texts))
        build_augment(stage, embedder.preprocessing)
        build_batches(stage, labels, groups_of(material, stage), seed=self.recipe.seed)(0, 0, 1, None)
        embedder.backbone.freeze(stage.freeze_blocks)
        embedder.backbone.unfreeze()
        if stage.lora:
            add_lora(copy.deepcopy(embedder.backbone.visual), **stage.lora.model_dump())

    def module(self, job: Job) -> FineTuneModule:
        return fine_tune_module(job, self.number, self._texts(job.handover))

    def validation(self, job: Job, module: FineTuneModule) -> ValidationSpec:
        stopping = self.settings.early_stopping
        return ValidationSpec(
            identification(job), self.settings.validate_every, patience=stopping.patience if stopping else None
        )

    def counts(self, job: Job, module: FineTuneModule) -> tuple[dict[str, int], int]:
        parts = module.embedder, module.objectives
        return count_parameters(*parts), count_all(*parts)

    def key(self, handover: Handover) -> bytes:
        embedder, texts = handover.embedder, self._texts(handover)
        weights = embedder.state_dict() | embedder.head.frozen()
        stated = json.dumps(embedder.config(), default=str).encode() + digest_of(weights)
        return stated if texts is None else stated + texts.numpy().tobytes()

    def begin(self, job: Job) -> None:
        if self.settings.wise_ft:
            self._start = {name: value.clone() for name, value in job.embedder.backbone.state_dict().items()}

    def finish(self, job: Job) -> None:
        folder = job.folder(self.number)
        if self.settings.wise_ft and not _interpolated(folder).exists():
            self.load(folder, job.handover)
            _interpolate(job, folder, self.settings.wise_ft.alphas, self._start)

    def load(self, folder: Path, handover: Handover) -> Handover:
        """Loads the stage's weights into the embedder, without LoRA adapters, averaging or frozen layers."""
        stage, embedder = self.settings, handover.embedder
        best = folder / "best.safetensors"
        path = best if stage.keep == "best" and belongs(best) else folder / "last.safetensors"
        if stage.wise_ft and belongs(_interpolated(folder)):
            path = _interpolated(folder)
        merge_lora(embedder.backbone.visual)
        embedder.load_state_dict(Embedder.load(checked(path)).state_dict())
        embedder.eval().backbone.unfreeze()
        return handover

    def probe(self, module: FineTuneModule) -> FineTuneProbe:
        return FineTuneProbe(module)

    def untrained(self, module: FineTuneModule, handover: Handover) -> Handover:
        merge_lora(handover.embedder.backbone.visual)
        handover.embedder.eval().backbone.unfreeze()
        return handover

    def describe(self) -> str:
        stage = self.settings
        terms = [
            _TERMS.get(term.kind, term_name(term).replace("_", " "))
            + ("" if term.weight == 1 else f" x {term.weight:g}")
            for term in stage.objectives
        ]
        learns = (
            "only what was added to the frozen encoder is trained" if stage.freeze_encoder else "the encoder is trained"
        )
        by = " with LoRA adapters" if stage.lora else ""
        sampler = stage.sampler
        batches = f"batches of {stage.photos_per_batch} photos"
        if sampler.kind in ("pk", "hard_identity"):
            batches = f"batches of {sampler.identities} identities x {sampler.images} photos"
        selection = (
            "the epoch with the best validation mAP is kept" if stage.keep == "best" else "the last epoch is kept"
        )
        return (
            f"{learns}{by} for {counted(stage.epochs, 'epoch')} in {batches} with {joined(terms)} "
            f"({stage.optimizer.kind}, rate {rate(stage.optimizer.lr)}), and {selection}"
        )

    def _texts(self, handover: Handover) -> Tensor | None:
        """The text features of the identities, if an objective uses them."""
        return handover.texts if self.settings.reads_texts else None


def fine_tune_module(job: Job, number: int, texts: Tensor | None) -> FineTuneModule:
    """The untrained stage; this changes the embedder (freezing, LoRA adapters).

    `texts` are the identities' text features, in the order of their labels, for objectives that use them.
    """
    stage = FineTuneStage(job.recipe, number).settings
    photos = _training_photos(job, stage)
    return FineTuneModule(
        job.embedder,
        build_objectives(stage, job.embedder.head, photos.identities, job.recipe.seed, texts),
        stage,
        photos,
        build_batches(stage, photos.labels.numpy(), groups_of(job.material, stage), seed=job.seed(number)),
        seed=job.seed(number),
        mix=build_mix(stage),
        workers=loader_workers(),
    )


def _training_photos(job: Job, stage: FineTune) -> TrainingPhotos:
    rows = job.material.split.train
    photos = job.decoded(rows, enlarge=enlargement(stage))
    augment = build_augment(stage, job.embedder.preprocessing)
    mirror = stage.chirality == "mirror_as_new_identity"
    positions, labels, conditions = np.arange(len(rows)), labels_of(job.material), job.conditions(rows)
    return TrainingPhotos(photos, positions, labels, augment, mirror=mirror, conditions=conditions)


def _interpolated(folder: Path) -> Path:
    return folder / "wise_ft.safetensors"


def _interpolate(job: Job, folder: Path, alphas: tuple[float, ...], start: dict[str, Tensor]) -> None:
    """Sets the stage's weights to the best interpolation, by validation, with its initial ones, and saves them."""
    rows, size = job.material.split.train, job.recipe.evaluate.batch_size
    photos, conditions = job.decoded(rows), job.conditions(rows)
    curve = interpolation_curve(
        job.embedder, start, alphas, photos, identification(job), conditions=conditions, batch_size=size
    )
    for line in curve.lines():
        job.progress.say(line)
    write_json(folder / "wise_ft.json", curve.content())
    job.embedder.save(_interpolated(folder), before=noting(_interpolated(folder)))
