"""A table of photo files that no manifest names, with their embeddings and the hands found on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from handreid.data.bare_files import manifest_of_files, photos_at
from handreid.data.manifest import Manifest
from handreid.data.photo_file import photo_files
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable, facts_of, sides_used, write_embeddings, write_table
from handreid.files import check_writable, file_hash
from handreid.inference import embed_photo_files, find_hands, load_model
from handreid.landmarks import Landmarker
from handreid.models.embedded_weights import EMBEDDED, embedded_file
from handreid.models.exported_towers import exported_facts
from handreid.progress import NullProgress, Progress
from handreid.recipe.load import override_recipe
from handreid.runs.folder import Run, check_finished, environment
from handreid.types import Reading

_FILES = {"manifest": None, "label": None, "part": "files"}  # facts of files without a manifest


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
    manifest = find_hands(_manifest(places), reading, progress, landmarker=landmarker, workers=workers)
    facts = facts_of(run, recipe, manifest) | _FILES
    table = _table(manifest, reading)
    return write_embeddings(
        run, PhotoTable(table, np.arange(len(manifest)), manifest, recipe, None, facts), out, progress
    )


def embed_files_by_package(
    photos: Sequence[Path] | Manifest,
    out: Path,
    *,
    landmarker: Path | Landmarker | None = None,
    flip_tta: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """As `embed_files`, by the model in this package instead of a run's; also of a manifest's photos, with its columns.

    Raises WeightsError if the model is not there.
    """
    check_writable(out, (".parquet",))
    progress = progress or NullProgress()
    embedder = load_model(EMBEDDED)
    reading = embedder.preprocessing
    if isinstance(photos, Manifest):
        manifest = photos
    else:
        manifest = find_hands(_manifest(photos), reading, progress, landmarker=landmarker, workers=workers)
    embeddings = embed_photo_files(embedder, photo_files(manifest), flip_tta=flip_tta, progress=progress)
    facts = {
        "run": EMBEDDED,
        "recipe": exported_facts(embedded_file()).recipe,
        "model_hash": file_hash(embedded_file()),
        "manifest_hash": manifest.hash,
        "root": str(manifest.root.absolute()),
        "flip_tta": flip_tta,
        "chirality": "canonical" if reading.mirrors else "as_is",
        "versions": environment()["versions"],
    }
    return write_table(_table(manifest, reading), embeddings, facts | _FILES, out)


def _manifest(places: Sequence[Path]) -> Manifest:
    files = photos_at(places)
    if not files:
        raise DataError(f"there is no photo below {', '.join(map(str, places))}")
    return manifest_of_files(files)


def _table(manifest: Manifest, reading: Reading) -> pl.DataFrame:
    """The columns that hold something, and what was done with sides."""
    told = [name for name in manifest.table.columns if manifest.table[name].null_count() < len(manifest)]
    return manifest.table.select(name for name in told if name != "origin").with_columns(
        **sides_used(manifest, reading)
    )
