"""What a run works on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handreid.data.background import background_paths
from handreid.data.manifest import Manifest, read
from handreid.data.photo_hashes import file_hashes
from handreid.data.splits import Split, make_split, natural_protocol
from handreid.errors import PhotoError, RunError
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.recipe.augmentations import Background


@dataclass(frozen=True)
class RunDataset:
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


def load_dataset(recipe: Recipe, data: Path | None, *, trains: bool | None = None) -> RunDataset:
    """The photos, and their split by the recipe. `trains` says whether they are to be trained on (None: if the recipe
    has stages); else a validation that they cannot give is not missed.
    """
    path = data or recipe.data.manifest
    if path is None:
        raise RunError("no photos are given: use --data MANIFEST, or set data.manifest in the recipe")
    manifest = read(path)
    chosen = recipe.data
    split = make_split(
        manifest,
        protocol=natural_protocol(manifest) if chosen.protocol == "auto" else chosen.protocol,
        view=None if chosen.view == "all" else chosen.view,
        label=manifest.label_kinds[-1] if chosen.label == "auto" else chosen.label,
        validation=chosen.validation,
        validation_share=chosen.validation_share,
        test_share=chosen.test_share,
        draws=recipe.evaluate.draws,
        seed=chosen.seed,
        trains=bool(recipe.stages) if trains is None else trains,
        cameras=chosen.cameras,
    )
    return RunDataset(path, manifest, split)


def photos_of(recipe: Recipe, material: RunDataset, progress: Progress | None = None) -> dict[str, str]:
    """SHA-256 by path of every photo that trains, validates, or is a background; none where nothing is trained.

    Raises PhotoError for photos that are not there, or cannot be read, and DataError for folders of backgrounds.
    """
    if not recipe.stages:
        return {}
    split, paths = material.split, material.manifest.paths()
    named = {split.paths[row]: paths[row] for row in np.union1d(split.train, split.validation_rows)}
    for folder in _backgrounds(recipe):
        named |= {str(path): path for path in background_paths(folder)}
    hashes = dict(zip(named, file_hashes(list(named.values()), progress), strict=True))
    gone = [str(named[name]) for name, digest in hashes.items() if digest is None]
    if gone:
        raise PhotoError(
            f"{len(gone)} of {len(named)} training and validation photos are missing (such as {gone[0]}): restore "
            "them, or prepare the manifest again"
        )
    return {name: digest for name, digest in hashes.items() if digest is not None}


def photos_hash(photos: Mapping[str, str]) -> str:
    """Of all of `photos_of` together, whatever their order: 64 hex digits."""
    return hashlib.sha256(
        "\n".join(f"{path}\0{digest}" for path, digest in sorted(photos.items())).encode()
    ).hexdigest()


def _backgrounds(recipe: Recipe) -> list[Path]:
    steps = [step for stage in recipe.stages for step in stage.augmentations]
    return [step.folder for step in steps if isinstance(step, Background) and step.folder is not None]
