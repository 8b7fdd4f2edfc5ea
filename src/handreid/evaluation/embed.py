"""A table of a manifest's photos with identity, role in the run, and embedding.

* `role` is what the run used a photo for. On any other manifest than the run's own, nothing was trained on: a photo is
  `test` where the protocol tests it, else `unused`.
* A photo without a subject has no identity and the role `unlabelled`, on any manifest.
* Of a model that mirrors left hands, `side_used`, `side_from` (manifest, prediction or landmarks) and `mirrored` say
  what was done.
* A manifest's own column with the name of one of these is renamed to `manifest_<name>`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from handreid.data.manifest import Manifest, read
from handreid.data.photo_file import photo_files
from handreid.data.splits import Split, evaluated_rows
from handreid.errors import DataError, ProtocolError, RunError
from handreid.evaluation.embedding_cache import Shown, cached_or_computed, contents_of, embeddings_of, read_cache
from handreid.files import check_writable, file_hash, write_atomic
from handreid.inference import Shots, load_embedder
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe
from handreid.recipe.load import override_recipe
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run, check_finished, environment
from handreid.runs.rendered_photos import recorded_manifest
from handreid.runs.side_information import side_information_of
from handreid.types import Reading

Part = Literal["all", "train", "validation", "test", "unlabelled"]
COLUMNS = ("identity", "role", "embedding")
METADATA = "handreid.embeddings"


@dataclass(frozen=True, eq=False)
class PhotoTable:
    """Photos before they are embedded. `table` has the manifest's columns, `identity` and `role`, and
    those of `sides_used`.

    `split` is None for other data than the run's own that cannot be split.
    """

    table: pl.DataFrame
    rows: Int[np.ndarray, " photo"]  # in the manifest
    manifest: Manifest
    recipe: Recipe
    split: Split | None
    facts: dict[str, Any]

    def only(self, positions: Int[np.ndarray, " kept"]) -> "PhotoTable":
        """Some of the photos, by position."""
        return PhotoTable(
            self.table[positions], self.rows[positions], self.manifest, self.recipe, self.split, self.facts
        )


def embed(
    run: Run,
    out: Path,
    *,
    data: Path | None = None,
    part: Part = "all",
    flip_tta: bool | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Writes the table with its embeddings, and returns it.

    `embedding` is an array of float32 of unit length; the file's metadata says which run, model and manifest it is from
    (`read_facts`). Raises RunError for an unfinished run, DataError when `out` cannot be written or `part` is empty.
    """
    check_writable(out, (".parquet",))
    return write_embeddings(
        run, select_photos(run, data=data, part=part, flip_tta=flip_tta, progress=progress), out, progress
    )


def write_embeddings(run: Run, photos: PhotoTable, out: Path, progress: Progress | None = None) -> pl.DataFrame:
    """Writes the photos' table with a column `embedding`, and returns it."""
    return write_table(photos.table, embed_known(run, photos, progress), photos.facts, out)


def write_table(
    table: pl.DataFrame, embeddings: Float[np.ndarray, "photo dim"], facts: Mapping[str, Any], out: Path
) -> pl.DataFrame:
    """Writes a table with a column `embedding`, and `facts` in its metadata; returns it. Raises OutputError."""
    column = pl.Series("embedding", embeddings, dtype=pl.Array(pl.Float32, embeddings.shape[1]))
    embedded = table.with_columns(column)
    stated = {**facts, "dim": embeddings.shape[1], "photos": len(embeddings)}
    write_atomic(out, lambda path: embedded.write_parquet(path, metadata={METADATA: json.dumps(stated)}))
    return embedded


def read_facts(path: Path) -> dict[str, Any]:
    """Which run, model and manifest the embeddings in a file are from. Raises DataError."""
    try:
        text = pl.read_parquet_metadata(path).get(METADATA)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if text is None:
        raise DataError(f"{path} holds no embeddings that handreid wrote; write them with `handreid embed`")
    return dict(json.loads(text))


def select_photos(
    run: Run,
    *,
    data: Path | None = None,
    part: Part = "all",
    flip_tta: bool | None = None,
    progress: Progress | None = None,
) -> PhotoTable:
    """The photos of a part with identity and role; opens no photo. Raises RunError and DataError."""
    check_finished(run)
    recipe = override_recipe(run.recipe, {}, flip_tta)
    path = data or recorded_manifest(run.facts, progress)
    manifest = read(path)
    is_own = manifest.hash == run.facts["manifest_hash"]
    if data is None and not is_own:
        raise RunError(
            f"{path} has changed since {run.folder} was trained on it: its hash is {manifest.hash[:16]}, was "
            f"{run.facts['manifest_hash'][:16]}; restore it, or give it as new data with --data "
            "where the command has that option"
        )
    split = split_for(recipe, path, is_own=is_own, progress=progress or NullProgress())
    kind = manifest.label_kinds[-1] if recipe.data.label == "auto" else recipe.data.label
    own = {
        "identity": pl.Series(manifest.labels(kind), dtype=pl.String),
        "role": pl.Series(_roles(split, manifest, is_own=is_own)),
        **sides_used(manifest, recipe.model.preprocess),
    }
    taken = [name for name in (*own, *COLUMNS) if name in manifest.table.columns]
    table = manifest.table.rename({name: f"manifest_{name}" for name in taken}).with_columns(**own)
    rows = np.flatnonzero(np.ones(len(table), bool) if part == "all" else (table["role"] == part).to_numpy())
    if not len(rows):
        raise DataError(
            f"no photo of {path} has the role {part!r}; the roles are {', '.join(sorted(set(table['role'])))}"
        )
    facts = facts_of(run, recipe, manifest) | {"manifest": str(path.absolute()), "label": kind, "part": part}
    return PhotoTable(table[rows], rows, manifest, recipe, split, facts)


def facts_of(run: Run, recipe: Recipe, manifest: Manifest) -> dict[str, Any]:
    """Which run and model embed the photos, how, and the manifest's hash."""
    return {
        "run": str(run.folder.absolute()),
        "recipe": recipe.name,
        "model_hash": file_hash(run.model),
        "manifest_hash": manifest.hash,
        "root": str(manifest.root.absolute()),
        "flip_tta": recipe.evaluate.flip_tta,
        "chirality": recipe.model.preprocess.chirality,
        "versions": environment()["versions"],
    }


def sides_used(manifest: Manifest, reading: Reading) -> dict[str, pl.Series]:
    """Columns of which side a model took photos for, if it mirrors left hands; none for any other."""
    if not reading.mirrors:
        return {}
    photos = photo_files(manifest)
    return {
        "side_used": pl.Series([photo.side for photo in photos], dtype=pl.String),
        "side_from": pl.Series([photo.side_from for photo in photos], dtype=pl.String),
        "mirrored": pl.Series([photo.is_mirrored(reading) for photo in photos], dtype=pl.Boolean),
    }


def provenance(photos: PhotoTable) -> str:
    """A sentence naming run, model and manifest, for captions."""
    facts = photos.facts
    return (
        f"Run {Path(facts['run']).name} (recipe {facts['recipe']}, model {facts['model_hash'][:16]}), "
        f"manifest {Path(facts['manifest']).name} ({facts['manifest_hash'][:16]}), "
        f"handreid {facts['versions']['handreid']}."
    )


def embed_known(run: Run, photos: PhotoTable, progress: Progress | None = None) -> Float[np.ndarray, "photo dim"]:
    """Embeddings of unit length, in the order of the table; from the run's cache where it has them."""
    progress = progress or NullProgress()
    cached = read_cache(run, photos.facts["model_hash"], progress)
    reading = photos.recipe.model.preprocess  # as the model has it, which may not have to be loaded
    contents = contents_of(photos.manifest, photos.rows, cached, progress, reading)
    variant: Shown = "both" if photos.recipe.evaluate.flip_tta else "photo"
    if cached.of_pixels_alone and set(contents.keys(None, variant)) <= set(cached.keys):
        # all are cached: the model is not loaded
        return cached_or_computed(cached, contents.keys(None, variant), _unreachable)
    embedder = load_embedder(run)
    conditions, remarks = side_information_of(embedder, photos.manifest.table[photos.rows])
    for remark in remarks:
        progress.say(f"note: {remark}")
    shots = Shots(photos.manifest, photos.rows, photos.recipe, embedder, progress)
    return embeddings_of(shots, contents, cached, conditions)[1]


def _unreachable(_: object) -> Float[np.ndarray, "photo dim"]:
    return np.empty((0, 0), np.float32)


def split_for(recipe: Recipe, path: Path, *, is_own: bool, progress: Progress) -> Split | None:
    """The run's split; on other data that of its own protocol, or None (with a note) if it cannot be split."""
    if is_own:
        return load_dataset(recipe, path).split
    try:
        changed = override_recipe(recipe, {"protocol": "auto", "view": "all"}, None)
        return load_dataset(changed, path, trains=False).split
    except ProtocolError as error:
        progress.say(f"note: no photo gets the role test, as {path} cannot be split ({error})")
        return None


def _roles(split: Split | None, manifest: Manifest, *, is_own: bool) -> list[str]:
    roles = np.full(len(manifest), "unused", dtype=object)
    roles[manifest.table["subject"].is_null().to_numpy()] = "unlabelled"
    if split is not None:
        if is_own:
            roles[split.train] = "train"
            roles[split.validation_rows] = "validation"
        roles[evaluated_rows(split)] = "test"
    return list(roles)
