"""A recipe and a manifest to a finished run folder, from wherever an earlier attempt was stopped."""

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch

from handreid.data.loading import decode_all
from handreid.data.manifest import Manifest, read
from handreid.data.sampling import TrainingPhotos
from handreid.data.splits import Split, make_split, natural_protocol
from handreid.errors import RunError
from handreid.evaluation.extraction import embed_photos
from handreid.evaluation.protocol import score
from handreid.models.embedder import Embedder
from handreid.progress import Progress, Silent
from handreid.recipe import FineTune, Recipe
from handreid.training.build import build_augment, build_embedder, build_objectives, build_towers, enlargement
from handreid.training.keeping import Keeper, Validate, checkpoint_state
from handreid.training.runs import Run, check_free, check_same, open_run, start_run, truncate_metrics
from handreid.training.stages.fine_tune import FineTuneModule


@dataclass(frozen=True)
class Material:
    """What a run works on: photos as a manifest, and who trains, validates and tests."""

    path: Path
    manifest: Manifest
    split: Split

    @property
    def facts(self) -> dict[str, Any]:
        """What every result carries of the data it was got on."""
        return {
            "manifest": str(self.path.absolute()),
            "manifest_hash": self.manifest.hash,
            "split_hash": self.split.hash,
            "draws_hash": self.split.draws_hash,
            "notes": list(self.split.notes),
        }


def read_material(recipe: Recipe, data: Path | None) -> Material:
    path = data or recipe.data.manifest
    if path is None:
        raise RunError("which photos? give --data MANIFEST, or data.manifest in the recipe")
    manifest = read(path)
    chosen = recipe.data
    split = make_split(
        manifest,
        protocol=natural_protocol(manifest) if chosen.protocol == "auto" else chosen.protocol,
        view=None if chosen.aspect == "all" else chosen.aspect,
        label=manifest.label_kinds[-1] if chosen.label == "auto" else chosen.label,
        validation=chosen.validation,
        validation_share=chosen.validation_share,
        test_share=chosen.test_share,
        draws=recipe.evaluate.draws,
        seed=chosen.seed,
    )
    return Material(path, manifest, split)


def train(
    recipe: Recipe | None, data: Path | None, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> Run:
    """The run, finished. With `resume` an unfinished run goes on and ends with the weights it would have had.

    Raises RunError when `out` holds something and `resume` is not given, or when it was started otherwise.
    """
    progress = progress or Silent()
    if resume and (out / "run.json").is_file():
        run = open_run(out)
        material = read_material(recipe or run.recipe, data or Path(run.facts["manifest"]))
        check_same(run, recipe, material.facts)
        if run.finished:
            return run
        embedder = _untrained(run.recipe)
    elif recipe is not None:
        material = read_material(recipe, data)
        check_free(out)
        embedder = _untrained(recipe)  # before the folder: weights that cannot be had leave nothing behind
        run = start_run(out, recipe, material.facts)
    else:
        raise RunError(f"{out} is not a run that could be resumed; give a recipe to start one")
    for note in material.split.notes:
        progress.say(f"note: {note}")
    for number, stage in enumerate(run.recipe.stages):
        _train_stage(run, number, stage, run.recipe, embedder, material, progress)
    embedder.save(run.model)
    return run


def _untrained(recipe: Recipe) -> Embedder:
    return build_embedder(recipe, build_towers(recipe))


def _train_stage(
    run: Run, number: int, stage: FineTune, recipe: Recipe, embedder: Embedder, material: Material, progress: Progress
) -> None:
    folder = run.stage(number, stage.kind)
    folder.mkdir(parents=True, exist_ok=True)
    done = checkpoint_state(folder)
    if done is None or not done[1]:
        truncate_metrics(run, number, done[0] if done else 0)
        _fit(run, number, stage, recipe, embedder, material, progress, epochs_done=done[0] if done else 0)
    _take_result(folder, stage, embedder)


def _fit(
    run: Run,
    number: int,
    stage: FineTune,
    recipe: Recipe,
    embedder: Embedder,
    material: Material,
    progress: Progress,
    *,
    epochs_done: int,
) -> None:
    folder = run.stage(number, stage.kind)
    photos = _training_photos(stage, recipe, embedder, material, progress)
    identities = int(photos.labels.max()) + 1
    module = FineTuneModule(
        embedder,
        build_objectives(stage, embedder.head, identities, recipe.seed),
        stage,
        photos,
        seed=recipe.seed * 1000 + number,
        # beside a tower on the CPU, a process that augments takes more from it than it brings
        workers=min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0,
    )
    validate = _validation(recipe, material, embedder, progress)
    total = (stage.epochs - epochs_done) * len(photos)
    with progress.step(f"{recipe.name} {stage.kind}", total, "photos") as advance:
        keeper = Keeper(run, number, folder, validate, progress.say, advance)
        trainer = build_trainer(stage, [keeper], folder)
        embedder.train()
        try:
            with warnings.catch_warnings():
                # how many workers is decided above; what Lightning does inside is not the user's affair
                warnings.filterwarnings("ignore", message=".*does not have many workers.*")
                warnings.filterwarnings("ignore", message=".*LeafSpec.*")
                trainer.fit(module, ckpt_path=folder / "last.ckpt" if epochs_done else None, weights_only=True)
        except SystemExit as stopped:  # what Lightning makes of Ctrl-C
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    embedder.to("cpu")


def build_trainer(stage: FineTune, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    """Lightning's loop as a stage asks for it; nothing is logged or saved but by the callbacks."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    precision = {"auto": _auto_precision(), "fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[
        stage.precision
    ]
    return L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=stage.epochs,
        accumulate_grad_batches=stage.accumulate,
        gradient_clip_val=stage.clip_gradients,
        precision=cast(Any, precision),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _auto_precision() -> str:
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def _training_photos(
    stage: FineTune, recipe: Recipe, embedder: Embedder, material: Material, progress: Progress
) -> TrainingPhotos:
    rows = material.split.train
    labels = [material.split.identities[row] for row in rows]
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    paths = material.manifest.paths()
    photos = decode_all(
        [paths[row] for row in rows],
        embedder.preprocessing,
        enlarge=enlargement(stage),
        cache=recipe.data.cache,
        progress=progress,
    )
    augment = build_augment(stage, embedder.preprocessing)
    indices = np.array([numbers[label] for label in labels])
    return TrainingPhotos(photos, np.arange(len(rows)), indices, augment)


def _validation(recipe: Recipe, material: Material, embedder: Embedder, progress: Progress) -> Validate:
    draws = material.split.validation
    rows = np.unique(np.concatenate([part for draw in draws for part in (draw.gallery, draw.query)]))
    paths = material.manifest.paths()
    photos = decode_all(
        [paths[row] for row in rows], embedder.preprocessing, cache=recipe.data.cache, progress=progress
    )

    def validate(embedder: Embedder) -> dict[str, float]:
        embeddings = embed_photos(embedder, photos, batch_size=recipe.evaluate.batch_size)
        return score(embeddings, rows, draws, material.split.identities).means()

    return validate


def _take_result(folder: Path, stage: FineTune, embedder: Embedder) -> None:
    best = folder / "best.safetensors"
    if stage.keep == "best" and best.exists():
        state = Embedder.load(best).state_dict()
    else:
        content = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        state = {name.removeprefix("embedder."): v for name, v in content.items() if name.startswith("embedder.")}
    embedder.load_state_dict(state)
    embedder.eval().backbone.thaw()
