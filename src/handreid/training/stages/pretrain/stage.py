"""The `pretrain` stage: its photos and captions, terms, validation, and final weights."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from handreid.build import build_augment, build_batches, enlargement
from handreid.data.sampling import TrainingPhotos
from handreid.errors import RecipeError
from handreid.models.embedder import Embedder
from handreid.models.sealed import digest_of
from handreid.recipe import Pretrain
from handreid.recipe.pretrain_terms import (
    AnyPretrainTerm,
    CrossEntropyTerm,
    ImageTextTerm,
    MeasurementsTerm,
    MocoTerm,
    SupConTerm,
)
from handreid.runs.dataset import RunDataset
from handreid.runs.stage_weights import belongs, checked
from handreid.runs.unknown_words import unknown_words_note
from handreid.training.context import Handover, Job, labels_of
from handreid.training.epoch_callback import ValidationSpec
from handreid.training.phrases import counted, joined, rate
from handreid.training.stages.base import Stage, load_text
from handreid.training.stages.photo_data import groups_of, identification, loader_workers
from handreid.training.stages.pretrain.captions import Captions, tokenise, wordings
from handreid.training.stages.pretrain.measured import measured_numbers
from handreid.training.stages.pretrain.module import PretrainModule
from handreid.training.stages.pretrain.probe import PretrainProbe
from handreid.training.stages.pretrain.terms import (
    CrossEntropy,
    ImageText,
    Measurements,
    Moco,
    PretrainTerm,
    SupCon,
)
from handreid.training.stages.pretrain.views import ViewedPhotos

_TOWERS = {
    "image": "the image tower is trained",
    "text": "the text tower is trained against the frozen image tower",
    "both": "both towers are trained",
}


class PretrainStage(Stage[Pretrain, PretrainModule]):
    """The towers learn; afterwards embedder and text tower have the stage's weights."""

    def check(self, handover: Handover, material: RunDataset) -> None:
        stage, rows = self.settings, material.split.train
        if stage.learns != "image" and self.recipe.model.head.makes_texts:
            raise RecipeError(
                f"stages.{self.number} trains the text tower, but model.head {self.recipe.model.head.kind!r} composes "
                "sentences with the tower of before: pre-train in a recipe of its own, and start this one with "
                "model.backbone.weights: RUN"
            )
        if stage.image_text:
            tokenise(wordings(material.manifest.table[rows]), handover.text)
        if stage.measurements:
            measured_numbers(material.manifest.table[rows], stage.measurements.columns)
        if stage.keep == "best" and not material.split.validation:
            raise RecipeError(
                f"stages.{self.number}.keep is best, but without identities nothing is validated: use keep: last"
            )
        build_augment(stage, handover.embedder.preprocessing)
        build_batches(stage, _labels(stage, material), groups_of(material, stage), seed=0)(0, 0, 1, None)

    def module(self, job: Job) -> PretrainModule:
        stage, rows = self.settings, job.material.split.train
        captions = self._captions(job) if stage.image_text else None
        measured = None
        if stage.measurements:
            measured = measured_numbers(job.material.manifest.table[rows], stage.measurements.columns)
        labels, seed = _labels(stage, job.material), job.seed(self.number)
        photos = TrainingPhotos(
            job.decoded(rows, enlarge=enlargement(stage)),
            np.arange(len(rows)),
            labels,
            build_augment(stage, job.embedder.preprocessing),
            conditions=job.conditions(rows),
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            sizes = Sizes(int(labels.max()) + 1, 0 if measured is None else measured.shape[1])
            terms = {f"{n}_{term.kind}": _term(term, stage, job.handover, sizes) for n, term in enumerate(stage.terms)}
        module = PretrainModule(
            job.embedder,
            job.text,
            terms,
            stage,
            ViewedPhotos(photos, 2 if stage.compares_views else 1, captions, measured),
            build_batches(stage, labels, groups_of(job.material, stage), seed=seed),
            seed=seed,
            workers=loader_workers(),
        )
        self._held = module.held
        return module

    def _captions(self, job: Job) -> Captions:
        """The captions as tokens; says which are cut, and which words a text tower that stays does not know."""
        stage = self.settings
        texts = wordings(job.material.manifest.table[job.material.split.train])
        captions, notes = tokenise(texts, job.text)
        if stage.learns == "image":
            distinct = {wording for parts in texts for wording in parts}
            notes += unknown_words_note(job.text, distinct, f"captions of stages.{self.number}")
        else:
            job.text.note_seen(captions.tokens)
        for note in notes:
            job.progress.say(f"note: {note}")
        return captions

    def validation(self, job: Job, module: PretrainModule) -> ValidationSpec:
        if not job.material.split.validation or self.settings.validated_weights is None:
            return ValidationSpec(lambda _: {}, self.settings.validate_every, monitor=None)
        return ValidationSpec(identification(job), self.settings.validate_every)

    def key(self, handover: Handover) -> bytes:
        embedder = handover.embedder
        stated = json.dumps(embedder.config(), default=str).encode()
        return (
            stated + digest_of(embedder.state_dict() | embedder.head.frozen()) + digest_of(handover.text.state_dict())
        )

    def load(self, folder: Path, handover: Handover) -> Handover:
        """Loads the stage's weights into both towers, in eval mode, with all layers as trainable as before."""
        which = "best" if self.settings.keep == "best" and belongs(folder / "best.safetensors") else "last"
        stored = Embedder.load(checked(folder / f"{which}.safetensors"))
        handover.embedder.load_state_dict(stored.state_dict())
        handover.embedder.eval()
        self._release()
        return handover if self.settings.learns == "image" else load_text(folder, which, handover)

    def probe(self, module: PretrainModule) -> PretrainProbe:
        return PretrainProbe(module)

    def untrained(self, module: PretrainModule, handover: Handover) -> Handover:
        handover.embedder.eval()
        handover.text.eval()
        self._release()
        return handover

    def describe(self) -> str:
        stage = self.settings
        terms = [f"{_phrase(term)}" + ("" if term.weight == 1 else f" x {term.weight:g}") for term in stage.terms]
        return (
            f"{_TOWERS[stage.learns]} for {counted(stage.epochs, 'epoch')} in batches of {stage.photos_per_batch} "
            f"photos with {joined(terms)} ({stage.optimizer.kind}, rate {rate(stage.optimizer.lr)})"
        )

    def _release(self) -> None:
        """What the stage has kept from learning may learn again."""
        for parameter in getattr(self, "_held", ()):
            parameter.requires_grad_(True)


def _labels(stage: Pretrain, material: RunDataset) -> np.ndarray:
    """Identities, or if no term reads them a label for each photo."""
    return labels_of(material) if stage.reads_identities else np.arange(len(material.split.train))


@dataclass(frozen=True)
class Sizes:
    """What terms need to know of the training photos."""

    identities: int
    numbers: int


def _term(term: AnyPretrainTerm, stage: Pretrain, handover: Handover, sizes: Sizes) -> PretrainTerm:
    backbone = handover.embedder.backbone
    match term:
        case MocoTerm():
            return Moco(backbone, **term.model_dump(exclude={"kind", "weight"}))
        case SupConTerm(labels=labels):
            arguments = term.model_dump(exclude={"kind", "weight", "labels"})
            return SupCon(backbone.widths[term.feature], by_photo=labels == "photo", **arguments)
        case CrossEntropyTerm(feature=feature, label_smoothing=smoothing):
            width = backbone.widths[feature]
            return CrossEntropy(width, sizes.identities, feature=feature, label_smoothing=smoothing)
        case MeasurementsTerm(feature=feature):
            return Measurements(backbone.widths[feature], sizes.numbers, feature=feature)
        case ImageTextTerm(loss=loss, starting_temperature=temperature):
            return ImageText(handover.text, loss=loss, temperature=temperature, learns=stage.learns)


def _phrase(term: AnyPretrainTerm) -> str:
    match term:
        case MocoTerm(version="v3"):
            return "momentum contrast (MoCo v3)"
        case MocoTerm(queue=queue):
            return f"momentum contrast (MoCo, a queue of {queue:,} keys)"
        case SupConTerm(labels="photo"):
            return "contrast of two views of every photo (SimCLR)"
        case SupConTerm(views=1):
            return "supervised contrast of the photos"
        case SupConTerm():
            return "supervised contrast of two views of every photo"
        case CrossEntropyTerm():
            return "cross-entropy over the identities"
        case MeasurementsTerm(columns=columns):
            return f"prediction of {joined(columns)}"
        case ImageTextTerm(loss=loss):
            return f"contrast of photos and captions ({'CLIP' if loss == 'clip' else 'SigLIP'})"
