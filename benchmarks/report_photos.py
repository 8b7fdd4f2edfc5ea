"""What a report's test photos cost: 2,000 of them, JPEG of 1600 x 1200, as cameras give them.

handreid data render --identities 240 --photos 16 --size 128 --out RENDERED
python benchmarks/report_photos.py make RENDERED/manifest.parquet FOLDER    drawn hands, enlarged, with noise; and a run
python benchmarks/report_photos.py FOLDER                                   seconds of each step, and sizes

The run is of an untrained tower: what is measured hangs on the number of photos, their size, and the embeddings' width.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from PIL import Image

from handreid.data.manifest import read
from handreid.evaluation.evaluate import evaluate
from handreid.progress import Terminal
from handreid.recipe import parse_recipe
from handreid.report.figures.embedding_map import projection
from handreid.report.figures.ranking_strip import caption, draw_strips
from handreid.report.figures.strip_selection import choose
from handreid.report.figures.style import save
from handreid.report.photos.confusion import mistakes_by_relation, most_confused
from handreid.report.photos.test_photos import load_test_photos
from handreid.report.photos.thumbnails import sprite, thumbnails
from handreid.runs.folder import Run
from handreid.training.train import train

# 125 of 128 subjects are tested, 2,000 photos; handreid-tiny's two features make 320 numbers
RECIPE = """
name: photos
data: {protocol: disjoint, label: view, test_share: 0.977, validation_share: 0.34}
model:
  backbone: {name: handreid-tiny, weights: none}
evaluate: {draws: 10, resamples: 1000}
"""
SUBJECTS = 128
Found = TypeVar("Found")


def timed(name: str, work: Callable[[], Found]) -> Found:
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    print(f"{name}: {time.perf_counter() - start:.2f} s, of a processor {time.process_time() - cpu:.2f} s")
    return found


@cache
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 5, (1200, 1600, 3)).astype(np.float32)


def enlarge(source: Path, target: Path) -> None:
    """A fine texture on a large photo: a few hundred kilobytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        large = np.asarray(image.convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)).astype(np.float32)
    Image.fromarray((large + noise()).clip(0, 255).astype(np.uint8)).save(target, quality=90)


def make(source: Path, folder: Path) -> None:
    given = read(source)
    kept = given.table["subject"].unique().sort()[:SUBJECTS]
    manifest = replace(given.filter(pl.col("subject").is_in(kept.to_list())), root=folder / "photos")
    sources = [given.root / path for path in manifest.table["path"]]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(enlarge, sources, manifest.paths()))
    manifest.write(folder / "manifest.parquet")
    train(parse_recipe(RECIPE, "benchmark"), folder / "manifest.parquet", folder / "run")


def measure(folder: Path) -> None:
    run = Run(folder / "run")
    if not run.embeddings.exists():
        timed("evaluate, which keeps the embeddings", lambda: evaluate(run, progress=Terminal()))
    tested = timed("look_at, the photos' bytes hashed", lambda: load_test_photos(run))
    sizes = [path.stat().st_size for path in tested.paths]
    print(
        f"    {len(tested):,} photos, {np.mean(sizes) / 1e3:.0f} kB on average, embeddings of {tested.embeddings.shape}"
    )
    print(f"    embeddings file {run.embeddings.stat().st_size / 1e6:.2f} MB")
    timed("look_at, another run on the same photos", lambda: load_test_photos(run))
    images = timed("thumbnails of 56 pixels, two threads", lambda: thumbnails(tested.paths, 56))
    content, _ = timed("sprite", lambda: sprite(images))
    print(f"    sprite {len(content) / 1e6:.2f} MB")
    timed("t-SNE", lambda: projection(tested, "tsne"))
    timed("PCA", lambda: projection(tested, "pca"))
    strips = timed("choose, 3 of each rule", lambda: choose(tested))
    timed("most_confused, 10 draws", lambda: most_confused(tested))
    timed("mistakes_by_relation, 10 draws", lambda: mistakes_by_relation(tested))
    figure = timed("figure of strips drawn", lambda: draw_strips(tested, strips))
    for suffix in (".png", ".svg", ".pdf"):
        place = folder / f"strips{suffix}"
        timed(f"figure written as {suffix}", lambda place=place: save(figure, place, caption(tested, strips)))
        print(f"    {place.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        measure(Path(sys.argv[1]))
