"""Photos that a recipe renders: where they are in the cache, and drawing them again for a run that was trained on them.

A folder's name holds all arguments and the renderer's version, so that every run with the same arguments reads the same
photos, and a run's recorded manifest says which they were, wherever the cache was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handreid.data.manifest import read
from handreid.data.rendered import prepared_folder
from handreid.data.rendered.folder import RENDERER
from handreid.data.rendered.prepared_folder import MANIFEST, prepare_rendered
from handreid.errors import OutputError, RunError
from handreid.files import cache_folder, format_bytes
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Rendered

_ADVICE = (
    "photos that a recipe renders are kept in the cache: set HANDREID_CACHE to a folder on a disk with room, or give "
    "photos with --data"
)


def rendered_manifest(rendered: Rendered, progress: Progress | None = None, *, folder: Path | None = None) -> Path:
    """The manifest of the photos; those that are missing are drawn, by default into the cache.

    Raises OutputError without permission or room, DataError as `prepare_rendered`.
    """
    progress = progress or NullProgress()
    place = folder or folder_of(rendered)
    room = room_for(rendered, place)
    if room:
        count = f"{rendered.identities * rendered.photos:,} photos of {rendered.identities:,} people"
        progress.say(f"the recipe renders its photos: {count} in {place}, about {format_bytes(room)} more on its disk")
    try:
        return prepare_rendered(place, **rendered.model_dump(), progress=progress)
    except OutputError as error:
        raise OutputError(f"{error}; {_ADVICE}") from None


def room_for(rendered: Rendered, folder: Path | None = None) -> int | None:
    """Bytes that the photos will take on the disk, about; None if they are there. Raises OutputError."""
    try:
        return prepared_folder.room_for(folder or folder_of(rendered), **rendered.model_dump())
    except OutputError as error:
        raise OutputError(f"{error}; {_ADVICE}") from None


def folder_of(rendered: Rendered) -> Path:
    return cache_folder() / _name(rendered, RENDERER)


def rendered_record(recipe: Recipe, manifest: Path) -> dict[str, int] | None:
    """How the photos of a manifest were rendered, for run.json; None if they are not those that the recipe renders."""
    rendered = recipe.data.rendered
    if rendered is None or manifest.name != MANIFEST or manifest.absolute().parent.name != _name(rendered, RENDERER):
        return None
    return {"renderer": RENDERER, **rendered.model_dump()}


def recorded_manifest(facts: Mapping[str, Any], progress: Progress | None = None) -> Path:
    """The manifest that run.json or sweep.json names. Rendered photos that are missing are drawn again.

    Raises RunError if these are not the same photos any more, and what `rendered_manifest` raises.
    """
    path, record = Path(facts["manifest"]), facts.get("rendered")
    if record is None:
        return path
    rendered = Rendered(**{name: record.get(name) for name in Rendered.model_fields})
    if record.get("renderer") != RENDERER:
        if path.is_file():
            return path
        raise RunError(
            f"{path} is missing, and its photos were rendered by version {record.get('renderer')} of the renderer, "
            f"which is now {RENDERER} and draws others: restore the folder, or give other photos with --data"
        )
    drawn = rendered_manifest(rendered, progress, folder=path.parent if path.is_file() else None)
    if read(drawn).hash != facts["manifest_hash"]:
        raise RunError(
            f"{drawn}: these photos were drawn again and are not those of {path}, which was used before, as with other "
            "versions of Pillow or NumPy (run.json states them): restore the folder, or give other photos with --data"
        )
    return drawn


def _name(rendered: Rendered, renderer: int) -> str:
    return f"rendered-{renderer}-{rendered.identities}x{rendered.photos}-{rendered.size}-{rendered.seed}"
