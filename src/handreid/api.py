"""The functions of `import handreid` that take runs and photos; paths may be strings.

These functions call `training`, `evaluation` and `inference`, and raise the same errors.
"""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from jaxtyping import Float

from handreid.data.bare_files import manifest_of_files, photos_at
from handreid.data.manifest import Manifest
from handreid.data.manifest import read as _read
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.errors import DataError, PhotoError
from handreid.evaluation.evaluate import evaluate as _evaluate
from handreid.inference import embed_photo_files, find_hands, load_embedder, load_model
from handreid.landmarks import Landmarker
from handreid.models.embedded_weights import EMBEDDED, is_embedded
from handreid.models.embedder import Embedder
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Rerank, load_recipe
from handreid.runs.folder import Run, open_run
from handreid.runs.results import Evaluation
from handreid.runs.side_information import side_information_of
from handreid.training.train import train as _train
from handreid.types import Reading

if TYPE_CHECKING:
    AnyPath = str | PathLike[str]
else:
    AnyPath = str | PathLike


def train(
    recipe: Recipe | AnyPath | None,
    data: AnyPath | None,
    out: AnyPath,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Trains a recipe (an object, a built-in name, or a YAML file) on a manifest into the folder `out`.

    `data` may be None if the recipe names its photos, or renders them (`data.rendered`).
    With `resume` a run that was stopped continues and ends with the weights that an uninterrupted run would have;
    `recipe` and `data` may then be None, unless the recipe has losses of your own. Nothing is printed by default: pass
    `handreid.progress.Terminal()` to see progress. The run's `model` is the file of the trained model; its `folder`
    holds everything else.

    Raises RecipeError, ManifestError, PhotoError and WeightsError for bad arguments, RunError if the folder holds
    something else, and CheckError if a check before the first step fails.
    """
    loaded = recipe if recipe is None or isinstance(recipe, Recipe) else load_recipe(_text(recipe))
    return _train(loaded, None if data is None else Path(data), Path(out), resume=resume, progress=progress)


def evaluate(
    run: Run | AnyPath,
    *,
    data: AnyPath | None = None,
    rerank: Sequence[Rerank] | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Evaluation]:
    """Scores a run on subjects that training never saw; returns the file written (`evaluation.json`) and its content.

    `data` is a manifest other than the run's own; `rerank` replaces the recipe's re-ranking. Raises RunError for an
    unfinished run, ProtocolError if no unseen subject is left to test.
    """
    opened = run if isinstance(run, Run) else open_run(Path(run))
    return _evaluate(opened, data=None if data is None else Path(data), rerank=rerank, progress=progress)


def read_manifest(path: AnyPath) -> Manifest:
    """The table of photos in a `.parquet` or `.csv` file. Raises ManifestError."""
    return _read(Path(path))


def embed(
    model: Embedder | Run | AnyPath,
    photos: Manifest | AnyPath | Iterable[AnyPath],
    *,
    flip_tta: bool | None = None,
    landmarker: Landmarker | AnyPath | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings of photos, float32 of unit length, one row per photo in the order given.

    `model` is a run, its folder, a model file, an embedder, or `"handreid"`, the model in this package. An embedder
    stays on its device; the others are loaded on the GPU if there is one. `photos` are files, a manifest (its rows), or
    a folder: all photos below it, sorted by path. `flip_tta` averages each photo with its mirror image; None means the
    setting of the run's recipe, or False without a run. Side information, such as the camera, is looked up in the
    manifest; without a manifest, and where a value is missing, the mean is used.

    A model that aligns or mirrors hands reads them from the manifest; on files and in folders it searches for them:
    by `landmarker`, a function from a picture to hands or the file of MediaPipe's Hand Landmarker, by default as
    `handreid data landmarks` does, one photo at a time. Photos without a hand are refused or taken as they are, as the
    model says; of several hands the largest is taken, and `progress` told.

    Raises PhotoError for a photo that is missing or cannot be read, DataError if there is no photo, RunError and
    WeightsError for a model file that has changed since it was written, WeightsError if hands are to be found and
    LiteRT, or the landmarker's model, is missing.
    """
    embedder, recipe = _loaded(model)
    if isinstance(batch_size, bool) or batch_size < 1:
        raise DataError(f"batch_size is {batch_size!r}; give how many photos the model sees at a time, 1 or more")
    quiet = progress or NullProgress()
    table, files = _photo_table(photos, embedder.preprocessing, landmarker, quiet)
    conditions, notes = side_information_of(embedder, table)
    for note in notes:
        quiet.say(f"note: {note}")
    flip = recipe is not None and recipe.evaluate.flip_tta if flip_tta is None else flip_tta
    return embed_photo_files(embedder, files, conditions, batch_size=batch_size, flip_tta=flip, progress=quiet)


def _loaded(model: Embedder | Run | AnyPath) -> tuple[Embedder, Recipe | None]:
    if isinstance(model, Embedder):
        return model, None
    if is_embedded(model):
        return load_model(EMBEDDED), None
    if not isinstance(model, Run) and Path(model).is_dir():
        model = open_run(Path(model))
    if isinstance(model, Run):
        return load_embedder(model), model.recipe
    return load_model(Path(model)), None


def _photo_table(
    photos: Manifest | AnyPath | Iterable[AnyPath],
    reading: Reading,
    landmarker: Landmarker | AnyPath | None,
    progress: Progress,
) -> tuple[pl.DataFrame, list[PhotoFile]]:
    """A table with one row per photo, and the photos with their hands: a manifest's, or found on files."""
    listed = _listed(photos)
    if not len(listed):
        raise DataError("there is no photo to embed: the list, manifest or folder is empty")
    if isinstance(listed, Manifest):
        if landmarker is not None:
            raise DataError(
                "landmarker is for photo files; of a manifest's photos `handreid data landmarks` finds hands"
            )
        return listed.table, photo_files(listed)
    finder = Path(landmarker) if isinstance(landmarker, str | PathLike) else landmarker
    manifest = find_hands(manifest_of_files(listed), reading, progress, landmarker=finder)
    row_of = {path: row for row, path in enumerate(manifest.paths())}
    rows = [row_of[path] for path in listed]  # a photo may be listed twice
    return manifest.table[rows], photo_files(manifest, rows)


def _listed(photos: Manifest | AnyPath | Iterable[AnyPath]) -> Manifest | list[Path]:
    """A manifest, or files in their order."""
    if isinstance(photos, Manifest):
        return photos
    if isinstance(photos, str | PathLike):
        place = Path(photos)
        is_table = place.suffix in (".parquet", ".csv") and not place.is_dir()
        return read_manifest(place) if is_table else photos_at([place])
    return [_path(photo) for photo in photos]


def _path(photo: object) -> Path:
    if not isinstance(photo, str | PathLike):
        raise PhotoError(f"{photo!r} is no path of a photo: give paths, a manifest or a folder")
    return Path(photo)


def _text(recipe: AnyPath) -> str:
    return recipe if isinstance(recipe, str) else str(Path(recipe))
