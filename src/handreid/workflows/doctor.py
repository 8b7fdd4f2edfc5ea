"""All checks of a recipe without training it: on the photos given, or on hands that are drawn on the spot.

* A few training identities are enough, so a recipe for a large data set is looked at in seconds. Who is tested is
  checked on all photos.
* A stage begins here as if the stages before it had learned nothing, and without the run that `init_from` names:
  prompts are those that contexts begin with. That is enough for wiring, and says nothing of what was learned.
* Everything is written into a folder of its own, caches included.
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
from handreid.data import sources
from handreid.data.rendered import render
from handreid.errors import ProtocolError
from handreid.files import cache_folder
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, load_recipe
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run
from handreid.runs.side_information import seen_combinations
from handreid.training.checks import CheckResult, before_run, check_stage
from handreid.training.context import Handover, Job, LongCheck
from handreid.training.precision import check_precision
from handreid.training.prototype_attributes import attach_prototypes
from handreid.training.stages.registry import stage_of
from handreid.training.stages.run import check_stages

RECIPE = "tiny-clip-reid"  # prompts, a classifier, triplets and texts: most of what can be wrong, in seconds
IDENTITIES, PHOTOS = 12, 8
TRAINED, EACH = 16, 8  # identities and photos of each that are looked at
SIZE = 96


@dataclass(frozen=True)
class Checked:
    """The checks of a stage, or of the recipe before any."""

    where: str
    checks: tuple[CheckResult, ...]


def diagnose(
    recipe: Recipe | None = None,
    data: Path | None = None,
    *,
    long_checks: Sequence[LongCheck] = (),
    progress: Progress | None = None,
) -> list[Checked]:
    """What each check found; none is raised. Raises HandreidError for a recipe that cannot be built on these photos."""
    progress = progress or NullProgress()
    chosen = recipe or load_recipe(RECIPE)
    check_precision(chosen)
    with tempfile.TemporaryDirectory(prefix="handreid-doctor-") as name, _caches_in(Path(name) / "cache"):
        material = _material(chosen, data, Path(name), progress)
        return list(_checked(chosen, material, Path(name), tuple(long_checks), progress))


def _checked(
    recipe: Recipe, material: RunDataset, folder: Path, long_checks: tuple[LongCheck, ...], progress: Progress
) -> Iterator[Checked]:
    some = _some(material)
    towers = build_towers(recipe)
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    attach_prototypes(embedder, recipe, some)
    check_stages(recipe, embedder, towers.text, material)
    yield Checked("recipe", tuple(before_run(recipe, embedder, towers.text, material, refusing=False)))
    job = Job(Run(folder), recipe, Handover(embedder, towers.text), some, progress, long_checks=long_checks)
    for number, settings in enumerate(recipe.stages):
        progress.say(f"checking stage {number} ({settings.kind})")
        job.folder(number).mkdir(parents=True)
        stage = stage_of(recipe, number)
        module = stage.module(job)
        found = check_stage(job, stage.probe(module))
        job = replace(job, handover=stage.untrained(module, job.handover))
        yield Checked(f"stage {number} ({settings.kind})", tuple(found))


def _material(recipe: Recipe, data: Path | None, folder: Path, progress: Progress) -> RunDataset:
    if data is not None or recipe.data.manifest is not None:
        return load_dataset(recipe, data)
    with progress.step("drawing hands", IDENTITIES * PHOTOS, "photos") as advance:
        table = render(
            folder / "hands", identities=IDENTITIES, photos=PHOTOS, size=SIZE, seed=0, workers=1, progress=advance
        )
    path = folder / "hands.parquet"
    sources.csv(table).write(path)
    try:
        return load_dataset(recipe, path)
    except ProtocolError as error:
        raise ProtocolError(f"rendered hands do not suit this recipe ({error}): give --data") from None


def _some(material: RunDataset) -> RunDataset:
    """The same with a few training identities; who validates and who is tested stays."""
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
    for known in cache_folder().glob("photo-hashes-*.sqlite"):  # else every photo of the manifest is decoded again
        shutil.copyfile(known, folder / known.name)
    os.environ["HANDREID_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HANDREID_CACHE"]
        else:
            os.environ["HANDREID_CACHE"] = before
