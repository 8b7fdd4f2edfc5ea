"""What decoding costs: peak memory of large photos, seconds of ordinary ones, beside Pillow used plainly.

python benchmarks/decoding.py                    all of it; needs 1.8 GB of memory and a few minutes
python benchmarks/decoding.py peak WAY FILE...   one measurement, in a process of its own: files decoded by as many
                                                 threads; WAY is plain, model (224 pixels) or full (hash of all pixels)
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from handreid.data.decoding import open_upright, opened
from handreid.data.photo_checks import look
from handreid.data.photo_hashes import pixel_hash

WANTED = (448, 448)  # twice the model's side


def plain(path: Path) -> object:
    with Image.open(path) as image:
        image.draft("RGB", WANTED)
        return ImageOps.exif_transpose(image).convert("RGB").resize((224, 224))


def model(path: Path) -> object:
    return open_upright(path, WANTED).resize((224, 224))


def full(path: Path) -> object:
    with opened(path) as photo:
        return pixel_hash(photo)


WAYS: dict[str, Callable[[Path], object]] = {"plain": plain, "model": model, "full": full}


def peak(way: str, paths: list[Path]) -> None:
    """Prints seconds and the megabytes that decoding took more than importing did."""
    Image.MAX_IMAGE_PIXELS = None
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(WAYS[way], paths))
    took = time.perf_counter() - began
    print(f"{took:6.1f} s {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:6,.0f} MB")


def large(folder: Path) -> None:
    rows = np.arange(13_000, dtype=np.uint8)
    photo = np.stack([np.add.outer(rows * step, rows).astype(np.uint8) for step in (1, 2, 3)], 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {"169 MP PNG": folder / "a.png", "169 MP PNG, turned": folder / "b.png", "169 MP JPEG": folder / "c.jpg"}
    image = Image.fromarray(photo)
    image.save(folder / "a.png", compress_level=1)
    image.save(folder / "b.png", compress_level=1, exif=exif)
    image.save(folder / "c.jpg", quality=80)
    for name, file in files.items():
        for way in WAYS:
            _measure(f"{name}, {way}", way, [file])
    for way in ("model", "full"):
        _measure(f"four of them at once, {way}", way, [folder / "a.png"] * 4)


def _measure(what: str, way: str, files: list[Path]) -> None:
    command = [sys.executable, __file__, "peak", way, *map(str, files)]
    print(f"{what:34}", subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip())


def ordinary(folder: Path) -> None:
    """1600 x 1200, as 11k Hands."""
    small = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    Image.fromarray(small).resize((1600, 1200), Image.Resampling.BICUBIC).save(folder / "d.jpg", quality=90)
    for name, way in {**WAYS, "check": look}.items():
        began = time.perf_counter()
        for _ in range(40):
            way(folder / "d.jpg")
        print(f"1.9 MP JPEG, {name:21} {1000 * (time.perf_counter() - began) / 40:6.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(sys.argv[2], [Path(name) for name in sys.argv[3:]])
    else:
        with tempfile.TemporaryDirectory() as name:
            ordinary(Path(name))
            large(Path(name))
