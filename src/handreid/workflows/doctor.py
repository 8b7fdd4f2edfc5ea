"""All checks of a recipe without training it: on the given photos, or on rendered hands.

* A few training identities are used, so a recipe for a large data set is checked in seconds. That test subjects are
  unseen is checked on all photos.
* Each stage starts as if the stages before it had learned nothing, and without the run that `init_from` names; prompts
  have their initial contexts. This checks the wiring, not what is learned.
* Everything, caches included, is written into a temporary folder.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from handreid.build import build_embedder, build_towers
from handreid.data.rendered.prepared_folder import prepare_rendered
from handreid.errors import ProtocolError
from handreid.files import cache_folder
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, load_recipe
from handreid.runs.automatic_alignment import decide_alignment
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run
from handreid.runs.side_information import seen_combinations
from handreid.training.checks import CheckResult, before_run, check_stage
from handreid.training.context import Handover, Job, LongCheck
from handreid.training.precision import check_precision
from handreid.training.prototype_attributes import attach_prototypes
from handreid.training.stages.registry import stage_of
from handreid.training.stages.run import check_stages

RECIPE = "tiny-clip-reid"  # has prompts, a classifier, triplets and texts: covers most checks, in seconds
IDENTITIES, PHOTOS = 12, 8
OF_RECIPE = 48  # people that are drawn for a recipe that renders its own photos
TRAINED, EACH = 16, 8  # training identities, and photos of each, that are used
SIZE = 96


@dataclass(frozen=True)
class Checked:
    """Results of the checks of a stage, or of those before the first stage."""

    where: str
    checks: tuple[CheckResult, ...]


def diagnose(
    recipe: Recipe | None = None,
    data: Path | None = None,
    *,
    long_checks: Sequence[LongCheck] = (),
    progress: Progress | None = None,
) -> list[Checked]:
    """Results of all checks; failed ones do not raise. Raises HandreidError if the recipe cannot be built on it."""
    progress = progress or NullProgress()
    checked_recipe = recipe or load_recipe(RECIPE)
    check_precision(checked_recipe)
    with tempfile.TemporaryDirectory(prefix="handreid-doctor-") as name, _caches_in(Path(name) / "cache"):
        material = _material(checked_recipe, data, Path(name), progress)
        decided, _ = decide_alignment(checked_recipe, material.manifest)
        return list(_checked(decided, material, Path(name), tuple(long_checks), progress))


def _checked(
    recipe: Recipe, material: RunDataset, folder: Path, long_checks: tuple[LongCheck, ...], progress: Progress
) -> Iterator[Checked]:
    sample = _sample(material)
    towers = build_towers(recipe)
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    attach_prototypes(embedder, recipe, sample)
    check_stages(recipe, embedder, towers.text, material)
    yield Checked("recipe", tuple(before_run(recipe, embedder, towers.text, material, refusing=False)))
    job = Job(Run(folder), recipe, Handover(embedder, towers.text), sample, progress, long_checks=long_checks)
    for number, settings in enumerate(recipe.stages):
        progress.say(f"checking stage {number} ({settings.kind})")
        job.folder(number).mkdir(parents=True)
        stage = stage_of(recipe, number)
        module = stage.module(job)
        results = check_stage(job, stage.probe(module))
        job = replace(job, handover=stage.untrained(module, job.handover))
        yield Checked(f"stage {number} ({settings.kind})", tuple(results))


def _material(recipe: Recipe, data: Path | None, folder: Path, progress: Progress) -> RunDataset:
    rendered = recipe.data.rendered
    if data is not None or recipe.data.manifest is not None:
        return load_dataset(recipe, data)
    if rendered is None:
        path = prepare_rendered(
            folder / "hands", identities=IDENTITIES, photos=PHOTOS, size=SIZE, workers=1, progress=progress
        )
    else:
        few = rendered.model_dump() | {"identities": min(rendered.identities, OF_RECIPE)}
        path = prepare_rendered(folder / "hands", **few, workers=1, progress=progress)
    try:
        return load_dataset(recipe, path)
    except ProtocolError as error:
        raise ProtocolError(f"rendered hands do not suit this recipe ({error}): give --data") from None


def _sample(material: RunDataset) -> RunDataset:
    """The data set with a few training identities; validation and test are unchanged."""
    split = material.split
    names = set(split.train_identities()[:TRAINED])
    counts: dict[str, int] = {}
    rows = []
    for row in split.train.tolist():
        name = split.identities[row]
        counts[name] = counts.get(name, 0) + 1
        if name in names and counts[name] <= EACH:
            rows.append(row)
    return replace(material, split=replace(split, train=np.array(rows, np.int64)))


@contextmanager
def _caches_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("HANDREID_CACHE")
    folder.mkdir(parents=True)
    for database in cache_folder().glob(
        "photo-hashes-*.sqlite"
    ):  # so that photos need not be decoded again for their hashes
        shutil.copyfile(database, folder / database.name)
    os.environ["HANDREID_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HANDREID_CACHE"]
        else:
            os.environ["HANDREID_CACHE"] = before
