"""What `import handreid` offers beside arrays: runs and photos, by paths as people write them.

Everything here is done by `training`, `evaluation` and `inference`; what is said there of errors holds here.
"""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from handreid.data.loading import decode_all
from handreid.data.manifest import Manifest
from handreid.data.manifest import read as _read
from handreid.data.sources.files import files_below
from handreid.errors import DataError, PhotoError
from handreid.evaluation.evaluate import evaluate as _evaluate
from handreid.inference import load_embedder
from handreid.models.embedder import Embedder
from handreid.models.extraction import embed_photos
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Rerank, load_recipe
from handreid.runs.folder import Run, open_run
from handreid.runs.results import Evaluation
from handreid.runs.side_information import side_information_of
from handreid.training.train import train as _train

if TYPE_CHECKING:
    Given = str | PathLike[str]
else:
    Given = str | PathLike
_AT_ONCE = 1024  # photos that are decoded at a time: 150 MB at 224 x 224


def train(
    recipe: Recipe | Given | None,
    data: Given | None,
    out: Given,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Trains a recipe (an object, a built-in name, or a YAML file) on a manifest into the folder `out`.

    With `resume` a run that was stopped goes on, and ends with the weights it would have had; a recipe and data may
    then be None, unless the recipe has losses of your own. Training is silent: give `handreid.progress.Terminal()` to
    see it. The run's `model` is the file of the trained model, its `folder` holds all else.

    Raises RecipeError, ManifestError, PhotoError and WeightsError for what is given, RunError for a folder that holds
    something else, and CheckError where a check before the first step fails.
    """
    chosen = recipe if recipe is None or isinstance(recipe, Recipe) else load_recipe(_text(recipe))
    return _train(chosen, None if data is None else Path(data), Path(out), resume=resume, progress=progress)


def evaluate(
    run: Run | Given,
    *,
    data: Given | None = None,
    rerank: Sequence[Rerank] | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Evaluation]:
    """Scores a run on people whom training never saw: the file written (`evaluation.json`) and what it holds.

    `data` is another manifest than the run's own; `rerank` re-ranks otherwise than the recipe says. Raises RunError for
    an unfinished run, ProtocolError where nobody is left to be tested.
    """
    own = run if isinstance(run, Run) else open_run(Path(run))
    return _evaluate(own, data=None if data is None else Path(data), rerank=rerank, progress=progress)


def read_manifest(path: Given) -> Manifest:
    """The table of photos in a `.parquet` or `.csv` file. Raises ManifestError."""
    return _read(Path(path))


def embed(
    model: Embedder | Run | Given,
    photos: Manifest | Given | Iterable[Given],
    *,
    flip_tta: bool | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings of photos, float32 of unit length, a row for each in the order in which they are given.

    `model` is a run, its folder, a model's file, or an embedder, which is used where it is; else the GPU is, if there
    is one. `photos` are files, a manifest (its rows), or a folder: all photos below it, sorted by their path.
    `flip_tta` averages each photo with its mirror image; None is what the run's recipe says, else False. What a model
    is told beside pixels is looked up in the manifest; without one, and where it is missing, it is the mean.

    Raises PhotoError for a photo that is missing or cannot be read, DataError where there is none, RunError and
    WeightsError for a model that is not as it was written.
    """
    embedder, recipe = _loaded(model)
    table, paths = _listed(photos)
    if not paths:
        raise DataError("there is no photo to embed: the list, manifest or folder is empty")
    if isinstance(batch_size, bool) or batch_size < 1:
        raise DataError(f"batch_size is {batch_size!r}; give how many photos the model sees at a time, 1 or more")
    quiet = progress or NullProgress()
    conditions, notes = side_information_of(embedder, table)
    for note in notes:
        quiet.say(f"note: {note}")
    both = recipe is not None and recipe.evaluate.flip_tta if flip_tta is None else flip_tta
    step = -(-_AT_ONCE // batch_size) * batch_size
    parts = []
    for start in range(0, len(paths), step):
        here = slice(start, start + step)
        decoded = decode_all(paths[here], embedder.preprocessing, cache="memory", progress=quiet)
        told = None if conditions is None else conditions[here]
        parts.append(
            embed_photos(embedder, decoded, conditions=told, batch_size=batch_size, flip_tta=both, progress=quiet)
        )
    return np.concatenate(parts)


def _loaded(model: Embedder | Run | Given) -> tuple[Embedder, Recipe | None]:
    if isinstance(model, Embedder):
        return model, None
    if not isinstance(model, Run) and Path(model).is_dir():
        model = open_run(Path(model))
    if isinstance(model, Run):
        return load_embedder(model), model.recipe
    return Embedder.load(Path(model)).to("cuda" if torch.cuda.is_available() else "cpu"), None


def _listed(photos: Manifest | Given | Iterable[Given]) -> tuple[pl.DataFrame, list[Path]]:
    """A table with a row for each photo, and where they lie."""
    if isinstance(photos, Manifest):
        return photos.table, photos.paths()
    if isinstance(photos, str | PathLike):
        place = Path(photos)
        if place.is_dir():
            paths = [place / path for path in files_below(place).photos]
        elif place.suffix in (".parquet", ".csv"):
            return _listed(read_manifest(place))
        else:
            paths = [place]
    else:
        paths = [_path(one) for one in photos]
    return pl.DataFrame({"path": [str(path) for path in paths]}, schema={"path": pl.String}), paths


def _path(given: object) -> Path:
    if not isinstance(given, str | PathLike):
        raise PhotoError(f"{given!r} is no path of a photo: give paths, a manifest or a folder")
    return Path(given)


def _text(given: Given) -> str:
    return given if isinstance(given, str) else str(Path(given))
