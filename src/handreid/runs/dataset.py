"""The data set of a run: its manifest and split, and the hashes of its photos."""

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
from handreid.errors import PhotoError, ProtocolError, RunError
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.recipe.augmentations import Background
from handreid.runs.rendered_photos import rendered_manifest, rendered_record


@dataclass(frozen=True)
class RunDataset:
    """A manifest of photos, and the split into training, validation and test.

    `rendered` says how the photos were rendered, if the recipe does that.
    """

    path: Path
    manifest: Manifest
    split: Split
    rendered: Mapping[str, int] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What every result file records of its data."""
        rendered = {} if self.rendered is None else {"rendered": dict(self.rendered)}
        return rendered | {
            "manifest": str(self.path.absolute()),
            "manifest_hash": self.manifest.hash,
            "split_hash": self.split.hash,
            "draws_hash": self.split.draws_hash,
            "notes": list(self.split.notes),
        }


def load_dataset(
    recipe: Recipe, data: Path | None, *, trains: bool | None = None, progress: Progress | None = None
) -> RunDataset:
    """The photos, and their split by the recipe. Without `data` they are the recipe's, which may render them first.

    `trains` says whether they are trained on (None: if the recipe has stages); if not, a validation set that the data
    cannot give is no error.
    """
    path = data or recipe.data.manifest
    if path is None and recipe.data.rendered is not None:
        path = rendered_manifest(recipe.data.rendered, progress)
    if path is None:
        raise RunError("no photos are given: use --data MANIFEST, or set data.manifest or data.rendered in the recipe")
    manifest = read(path)
    settings = recipe.data
    split = make_split(
        manifest,
        protocol=natural_protocol(manifest) if settings.protocol == "auto" else settings.protocol,
        view=None if settings.view == "all" else settings.view,
        label=manifest.label_kinds[-1] if settings.label == "auto" else settings.label,
        validation=settings.validation,
        validation_share=settings.validation_share,
        test_share=settings.test_share,
        draws=recipe.evaluate.draws,
        seed=settings.seed,
        trains=bool(recipe.stages) if trains is None else trains,
        cameras=settings.cameras,
        subjects=recipe.reads_identities,
    )
    return RunDataset(path, manifest, split, rendered_record(recipe, path))


def check_tested(material: RunDataset) -> None:
    """Raises ProtocolError for photos without subjects, of which none can be tested."""
    if not material.split.test:
        raise ProtocolError(
            f"{material.path}: no photo has a subject, so nothing can be tested: give photos of known people with "
            "--data MANIFEST"
        )


def photos_of(recipe: Recipe, material: RunDataset, progress: Progress | None = None) -> dict[str, str]:
    """SHA-256 by path of all photos of training, validation and backgrounds; empty if the recipe trains nothing.

    Raises PhotoError for photos that are missing or cannot be read, and DataError for folders of backgrounds.
    """
    if not recipe.stages:
        return {}
    split, paths = material.split, material.manifest.paths()
    files = {split.paths[row]: paths[row] for row in np.union1d(split.train, split.validation_rows)}
    for folder in _backgrounds(recipe):
        files |= {str(path): path for path in background_paths(folder)}
    hashes = dict(zip(files, file_hashes(list(files.values()), progress), strict=True))
    absent = [str(files[name]) for name, digest in hashes.items() if digest is None]
    if absent:
        raise PhotoError(
            f"{len(absent)} of {len(files)} training and validation photos are missing (such as {absent[0]}): restore "
            "them, or prepare the manifest again"
        )
    return {name: digest for name, digest in hashes.items() if digest is not None}


def photos_hash(photos: Mapping[str, str]) -> str:
    """SHA-256 of the result of `photos_of`, independent of its order: 64 hex digits."""
    return hashlib.sha256(
        "\n".join(f"{path}\0{digest}" for path, digest in sorted(photos.items())).encode()
    ).hexdigest()


def _backgrounds(recipe: Recipe) -> list[Path]:
    steps = [step for stage in recipe.stages for step in stage.augmentations]
    return [step.folder for step in steps if isinstance(step, Background) and step.folder is not None]
