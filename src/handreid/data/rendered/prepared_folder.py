"""A folder of rendered photos with its manifest: drawn, continued, or taken as it is."""

from pathlib import Path

from handreid.data import manifest
from handreid.data.rendered.folder import missing_photos, render
from handreid.data.sources import csv, hashed
from handreid.errors import DataError, ManifestError, OutputError
from handreid.files import check_folder_writable, format_bytes, free_bytes, locked
from handreid.progress import NullProgress, Progress

MANIFEST = "manifest.parquet"


def prepare_rendered(
    folder: Path,
    *,
    identities: int,
    photos: int,
    size: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder's manifest, with the SHA-256 of every photo; what is missing is drawn as `render` does.

    If another process draws in the folder, it is waited for. A folder in
    which nothing is missing is not written to.

    Raises:
        DataError: an argument is out of range, the folder holds something else, or a photo that was drawn again differs
            from the one that the manifest states.
        OutputError: the folder cannot be written, or its disk has too little room.

    """
    path, progress = folder / MANIFEST, progress or NullProgress()
    if room_for(folder, identities=identities, photos=photos, size=size, seed=seed) is None:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created ({error.strerror})") from None
    wait = f"another process draws hands into {folder}: waiting for it"
    with locked(folder, "draws hands into it", DataError, waiting=lambda: progress.say(wait)):
        missing = missing_photos(folder, identities=identities, photos=photos, seed=seed, size=size)
        with progress.step("drawing hands", identities * photos if missing else 0, "photos") as advance:
            table = render(
                folder,
                identities=identities,
                photos=photos,
                seed=seed,
                size=size,
                workers=workers,
                progress=advance,
            )
        if not path.is_file():
            hashed(csv(table), progress).write(path)
        elif missing:
            _check_drawn_again(path, progress)
    return path


def room_for(folder: Path, *, identities: int, photos: int, size: int, seed: int) -> int | None:
    """Bytes that the missing photos will take on the disk, about; None if the folder is complete with its manifest.

    Raises OutputError if there is less room or the folder cannot be written, DataError as `prepare_rendered`.
    """
    count = missing_photos(folder, identities=identities, photos=photos, seed=seed, size=size)
    if not count and (folder / MANIFEST).is_file():
        return None
    check_folder_writable(folder)
    free, needed = free_bytes(folder), bytes_on_disk(count, size)
    if free is not None and needed > free:
        raise OutputError(
            f"{folder}: {count:,} photos of {size} pixels take about {format_bytes(needed)}, but only "
            f"{format_bytes(free)} are free on its disk"
        )
    return needed


def bytes_on_disk(photos: int, size: int) -> int:
    """What rendered photos take with their table, about: measured at 32 to 256 pixels, in blocks of 4,096 bytes."""
    return round(photos * (3000 + 25 * size + 0.11 * size**2))


def _check_drawn_again(path: Path, progress: Progress) -> None:
    """Raises DataError if photos that were missing are not drawn as they were."""
    try:
        hashed(manifest.read(path), progress)
    except ManifestError as error:
        raise DataError(
            f"{path.parent}: photos that were missing have been drawn again, and are not what they were, as with "
            f"other versions of Pillow or NumPy ({str(error).splitlines()[0]}): remove the folder to draw all of them "
            "anew; runs that were trained on the old ones cannot be continued then"
        ) from None
