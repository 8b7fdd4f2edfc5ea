"""Renders many people's photos into a folder, with several processes, and writes their table.

* Every photo has its own random generators, keyed by (seed, identity, photo): neither the number of workers nor of
  other identities changes a byte of it.
* `rendered.json` records the arguments before the first photo, `hands.csv` is written after the last: a folder with a
  table is complete, one without is continued by the same call. Each file appears whole or not at all.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from handreid.data.processes import cores, in_processes
from handreid.data.rendered.anatomy import DIGITS, Aspect, Person, Side, person, stream
from handreid.data.rendered.exposure import apply_camera
from handreid.data.rendered.landmarks import landmarks
from handreid.data.rendered.measurements import measurements
from handreid.data.rendered.scene import POLISHES, Scene, sample_scene
from handreid.data.rendered.skin import surface
from handreid.data.rendered.skin_marks import Surface
from handreid.errors import DataError
from handreid.files import write_atomic
from handreid.landmarks.text import landmarks_text

RENDERER = 1  # goes up whenever the same arguments give other pixels
VIEWS: tuple[tuple[Aspect, Side], ...] = (
    ("dorsal", "right"),
    ("dorsal", "left"),
    ("palmar", "right"),
    ("palmar", "left"),
)
SMALLEST = 32
RECORD = "rendered.json"
FULL_COLOUR = 90  # JPEG quality from which cameras keep the colour of every pixel
ALONE = 64  # photos below which starting processes costs more than it saves
Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Request:
    renderer: int
    identities: int
    photos: int
    seed: int
    size: int
    views: tuple[tuple[Aspect, Side], ...]

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def render(
    out: Path,
    *,
    identities: int,
    photos: int,
    seed: int = 0,
    size: int = 128,
    views: Sequence[tuple[Aspect, Side]] = VIEWS,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Draw `photos` photos of each of `identities` people into `out/Hands`, and return the path of `out/hands.csv`.

    Photo k of a person shows view k modulo the number of `views`. `size` is the side in pixels. `workers` is the number
    of processes, by default one per core. `progress` is called with the number of photos finished since the last call.
    A folder that is complete is returned as it is, one that was interrupted is continued.

    Raises:
        DataError: an argument is out of range, or the folder holds something else.

    """
    request = _checked(identities, photos, seed, size, views)
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}: give 1 or more, or omit it to use one per core")
    _claim(out, request)
    table = out / "hands.csv"
    missing = _missing(out, request)
    done = identities * photos - sum(map(len, missing.values()))
    rows: dict[int, list[Row]] = {}
    if progress:
        progress(done)
    for identity, described in _drawn(out, request, missing, workers or cores()):
        rows[identity] = described
        if progress:
            progress(len(missing[identity]))
    if not table.exists():
        _write(table, _table(request, rows).encode())
    return table


def missing_photos(out: Path, *, identities: int, photos: int, seed: int, size: int) -> int:
    """Number of photos, of all four views, that are not in the folder yet; it need not exist.

    Raises DataError as `render`.
    """
    request = _checked(identities, photos, seed, size, VIEWS)
    if not out.is_dir():
        return identities * photos
    _check_recorded(out, request)
    return sum(map(len, _missing(out, request).values()))


def _checked(identities: int, photos: int, seed: int, size: int, views: Sequence[tuple[Aspect, Side]]) -> Request:
    for name, value, least in (
        ("identities", identities, 1),
        ("photos", photos, 1),
        ("seed", seed, 0),
        ("size", size, SMALLEST),
    ):
        if value < least:
            raise DataError(f"{name} is {value}: rendered hands need at least {least}")
    valid = [pair for pair in views if pair in VIEWS]
    if not valid or len(valid) < len(views) or len(set(valid)) < len(valid):
        raise DataError(f"views is {list(views)}: give one or more of {list(VIEWS)}, each once")
    return Request(RENDERER, identities, photos, seed, size, tuple(valid))


def _claim(out: Path, request: Request) -> None:
    """Record the request in the folder. Raises DataError if it holds another request or other photos."""
    recorded = _check_recorded(out, request)
    if not recorded:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / RECORD, request.text().encode())
    (out / "Hands").mkdir(exist_ok=True)


def _check_recorded(out: Path, request: Request) -> bool:
    """Whether the folder holds a request. Raises DataError if it is another, or if the folder holds other photos."""
    record = out / RECORD
    if record.exists():
        stored = record.read_text(encoding="utf-8")
        if stored != request.text():
            raise DataError(
                f"{out} was rendered with other arguments ({_short(stored)}) than now ({_short(request.text())}): "
                "choose another folder, or delete that one"
            )
        return True
    if (out / "hands.csv").exists() or (out / "Hands").exists():
        raise DataError(f"{out} already holds photos that were not rendered by handreid: choose another folder")
    return False


def _short(record: str) -> str:
    return " ".join(record.split()).strip("{} ")


def _missing(out: Path, request: Request) -> dict[int, list[int]]:
    """For each identity the photos that are not on disk yet."""
    folder = out / "Hands"
    names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    missing = {
        k: [j for j in range(request.photos) if _name(k, j, request) not in names] for k in range(request.identities)
    }
    return {k: photos for k, photos in missing.items() if photos}


def _name(identity: int, photo: int, request: Request) -> str:
    aspect, side = request.views[photo % len(request.views)]
    return f"p{identity:05d}_{photo:02d}_{aspect}_{side}.jpg"


def _drawn(out: Path, request: Request, missing: dict[int, list[int]], workers: int) -> Iterator[tuple[int, list[Row]]]:
    """Draw missing photos; yields each identity when its photos are ready, with all its rows of the table."""
    if workers == 1 or sum(map(len, missing.values())) < ALONE:
        for identity, photos in missing.items():
            yield _draw(out, request, identity, photos)
        return
    jobs = [(out, request, identity, photos) for identity, photos in missing.items()]
    broken = (
        f"a process that rendered hands into {out} ended early. Finished photos are kept: run it again to "
        "continue, with one worker if memory is short or the calling script has no `if __name__ == '__main__'`"
    )
    yield from in_processes(_draw, jobs, workers, broken=broken)


def _draw(out: Path, request: Request, identity: int, photos: list[int]) -> tuple[int, list[Row]]:
    for photo in photos:
        shot = _shot(request, identity, photo)
        picture = apply_camera(shot.who, shot.marks, shot.scene, request.size)
        quality = shot.scene.finish.quality
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0 if quality >= FULL_COLOUR else 2)
        _write(out / "Hands" / _name(identity, photo, request), file.getvalue())
    return identity, _rows(request, identity)


@dataclass(frozen=True)
class Shot:
    who: Person
    marks: Surface
    scene: Scene


def _shot(request: Request, identity: int, photo: int) -> Shot:
    aspect, side = request.views[photo % len(request.views)]
    who = _person(request.seed, identity)
    rng = stream(request.seed, identity, 3, photo)
    session = int(rng.integers(1, 3))
    scene = sample_scene(rng, who.hands[side], aspect, session, _polish(request.seed, identity, session))
    return Shot(who, _surface(request.seed, identity, side, aspect), scene)


@lru_cache(maxsize=4)
def _person(seed: int, identity: int) -> Person:
    return person(seed, identity)


@lru_cache(maxsize=16)
def _surface(seed: int, identity: int, side: Side, aspect: Aspect) -> Surface:
    return surface(seed, identity, _person(seed, identity), side, aspect)


def _polish(seed: int, identity: int, session: int) -> str | None:
    """A quarter of the people paint their nails, most days, in whatever colour."""
    paints = stream(seed, identity, 4).uniform() < 0.25
    day = stream(seed, identity, 4, session)
    return list(POLISHES)[int(day.integers(len(POLISHES)))] if paints and day.uniform() < 0.75 else None


def _table(request: Request, rows: dict[int, list[Row]]) -> str:
    """CSV in the order of identities and photos; rows of photos that an earlier call drew are computed again."""
    described = [row for k in range(request.identities) for row in rows.get(k) or _rows(request, k)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(described[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(described)
    return text.getvalue()


def _rows(request: Request, identity: int) -> list[Row]:
    return [_row(request, identity, photo) for photo in range(request.photos)]


def _row(request: Request, identity: int, photo: int) -> Row:
    # here, as captions bring in polars: wrong arguments are refused before it
    from handreid.data.rendered.appearance import place
    from handreid.data.rendered.captions import captions

    shot = _shot(request, identity, photo)
    who, scene, worn = shot.who, shot.scene, shot.scene.worn
    scar = shot.marks.scar
    path = f"Hands/{_name(identity, photo, request)}"
    return {
        "path": path,
        "subject": who.subject,
        "side": scene.side,
        "aspect": scene.aspect,
        "camera": scene.camera.name,
        "session": scene.session,
        "caption": captions(request.seed, path, who, shot.marks, scene),
        "skin": who.skin,
        "skin_tone": round(who.tone, 4),
        "age": who.age,
        "nails": who.nails,
        "polish": worn.polish or "none",
        "moles": len(shot.marks.moles),
        "scar": place(scar.part, scar.start, scene.aspect) if scar else "none",
        "accessories": int(worn.ring is not None),
        "ring": worn.ring or "none",
        "ring_finger": DIGITS[worn.ring_digit] if worn.ring else "none",
        "sleeve": worn.sleeve or "none",
        "background": scene.background.kind,
        "pose": scene.pose.words,
        "hands": 1,
        "landmarks": landmarks_text(landmarks(who.hands[scene.side], scene, request.size)),
        "handedness": scene.side,
        "anatomy": measurements(who, scene.side),
    }


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda part: part.write_bytes(content))


__all__ = ["RENDERER", "VIEWS", "missing_photos", "render"]
