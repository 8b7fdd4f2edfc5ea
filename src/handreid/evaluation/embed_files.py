"""A table of photo files that no manifest names, with their embeddings and the hands found on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from handreid.data.bare_files import manifest_of_files, photos_at
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable, facts_of, sides_used, write_embeddings
from handreid.files import check_writable
from handreid.inference import find_hands
from handreid.landmarks import Landmarker
from handreid.progress import NullProgress, Progress
from handreid.recipe.load import override_recipe
from handreid.runs.folder import Run, check_finished


def embed_files(
    run: Run,
    places: Sequence[Path],
    out: Path,
    *,
    landmarker: Path | Landmarker | None = None,
    flip_tta: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Writes the table of some files, and of all photos below some folders, each once; and returns it.

    Beside `path`, as given, and `embedding` it has the columns of landmarks and sides that the model needed; where it
    needs any, hands are searched for (see `find_hands`). Raises RunError for an unfinished run, DataError when `out`
    cannot be written or there is no photo.
    """
    check_writable(out, (".parquet",))
    check_finished(run)
    progress = progress or NullProgress()
    recipe = override_recipe(run.recipe, {}, flip_tta)
    reading = recipe.model.preprocess
    files = photos_at(places)
    if not files:
        raise DataError(f"there is no photo below {', '.join(map(str, places))}")
    manifest = find_hands(manifest_of_files(files), reading, progress, landmarker=landmarker, workers=workers)
    told = [name for name in manifest.table.columns if manifest.table[name].null_count() < len(manifest)]
    table = manifest.table.select(name for name in told if name != "origin").with_columns(
        **sides_used(manifest, reading)
    )
    facts = facts_of(run, recipe, manifest) | {"manifest": None, "label": None, "part": "files"}
    return write_embeddings(
        run, PhotoTable(table, np.arange(len(manifest)), manifest, recipe, None, facts), out, progress
    )
