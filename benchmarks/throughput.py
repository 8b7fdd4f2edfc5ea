"""What does our training stack cost on top of the tower?

Prints training photos/s through the whole stack (loader, augmentation, Lightning, objectives, optimizer) over the bare
forward, backward and optimizer step of the same tower on the same tensors, both measured in turn in one run.

    python benchmarks/throughput.py [--recipe tiny-cross-entropy] [--photos 128] [--rounds 12]
"""

import argparse
import logging
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F

from handreid.build import build_augment, build_batches, build_embedder, build_objectives, build_towers, enlargement
from handreid.data.sampling import TrainingPhotos
from handreid.models.tower import image_features
from handreid.recipe import load_recipe
from handreid.training.optimizers import build_optimizer
from handreid.training.stages.fine_tune.module import FineTuneModule

IDENTITIES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny-cross-entropy")
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], help="as handreid train --set")
    arguments = parser.parse_args()
    for name, augment in (("crop, as published", ["stages.0.augment=[{kind: crop}]"]), ("the recipe's own", [])):
        measure(name, build_module(arguments.recipe, [*arguments.set, *augment], arguments.photos), arguments.rounds)


def measure(augmentation: str, module: FineTuneModule, rounds: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    count = len(module.photos)
    stack_epoch(module)  # warm-up of both
    bare_epoch(module, device)
    rates = [(count / stack_epoch(module), count / bare_epoch(module, device)) for _ in range(rounds)]
    stack, bare = (statistics.median(rate) for rate in zip(*rates, strict=True))
    ratios = sorted(ours / theirs for ours, theirs in rates)
    print(f"augmentation: {augmentation}; {device}, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"  stack {stack:.1f} photos/s, bare {bare:.1f} photos/s")
    print(f"  ratio: median {statistics.median(ratios):.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f}")


def build_module(name: str, overrides: list[str], count: int) -> FineTuneModule:
    recipe = load_recipe(name, overrides)
    stage = recipe.stages[0]
    embedder = build_embedder(recipe, build_towers(recipe))
    height, width = (round(side * enlargement(stage)) for side in embedder.preprocessing.size)
    photos = np.random.default_rng(0).integers(0, 255, (count, 3, height, width), np.uint8)
    material = TrainingPhotos(
        photos, np.arange(count), np.arange(count) % IDENTITIES, build_augment(stage, embedder.preprocessing)
    )
    objectives = build_objectives(stage, embedder.head, IDENTITIES, 0)
    batches = build_batches(stage, material.labels.numpy(), None, seed=0)
    return FineTuneModule(embedder, objectives, stage, material, batches, seed=0)


def stack_epoch(module: FineTuneModule) -> float:
    """Seconds of one epoch's batches, from the first to the last, as `handreid train` runs it."""
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=module.stage.clip_gradients,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(module.train())
    return clock.seconds


class Clock(L.Callback):
    seconds = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = -time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter()


def bare_epoch(module: FineTuneModule, device: str) -> float:
    """Seconds of the tower, one linear layer and the optimizer on tensors that are there already."""
    tower = module.embedder.backbone.visual.to(device).train()
    classifier = torch.nn.Linear(module.embedder.backbone.widths["joint"], IDENTITIES, device=device)
    parameters = [p for p in [*tower.parameters(), *classifier.parameters()] if p.requires_grad]
    optimizer = build_optimizer([{"params": parameters, "lr": 1e-5}], module.stage.optimizer.kind, 0.9)
    size = module.stage.photos_per_batch
    batches = [torch.randn(size, 3, *module.embedder.backbone.size, device=device) for _ in range(2)]
    labels = torch.arange(size, device=device) % IDENTITIES
    began = time.perf_counter()
    for step in range(len(module.photos) // size):
        loss = F.cross_entropy(classifier(image_features(tower, batches[step % 2]).joint), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * len(module.photos) / (len(module.photos) // size * size)


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main()
