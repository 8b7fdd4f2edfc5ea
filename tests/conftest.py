"""Small things that many tests share: a micro tower, a folder of made-up photos, the real photos where they are."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: test processes share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
if platform.machine().lower() in ("x86_64", "amd64"):
    # the same sums on every processor, and in fp32 also on those that compute bf16
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
# Processes that tests start import torch and all else again: with bytecode in seconds, without in half a minute.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Syncing waits for the disk, so that what is written survives a power cut, which no test makes.
os.fsync = lambda _: None
# Lightning looks through all installed packages for plugins whenever a trainer is made.
importlib.metadata.entry_points = cache(importlib.metadata.entry_points)

from tests import type_checks

type_checks.install("handreid")

import hypothesis
import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data import manifest, sources

if sys.platform == "linux" and "PYTEST_XDIST_WORKER" in os.environ:
    from tests import forks

    forks.serve_from_here()

hypothesis.settings.register_profile("handreid", deadline=None)  # nothing is tested by the clock
hypothesis.settings.load_profile("handreid")

REAL_PHOTOS = Path(__file__).parents[2] / "shared" / "data"


# Three short epochs of a two-block tower: everything a real recipe has, in a second.
MICRO_RECIPE = """
name: micro
data: {protocol: disjoint, label: subject, test_share: 0.4, validation_share: 0.3}
model:
  backbone:
    name: micro
    weights: none
    config:
      embed_dim: 32
      vision_cfg: {image_size: 32, patch_size: 8, width: 64, layers: 2, head_width: 32}
      text_cfg: {context_length: 24, vocab_size: 49408, width: 32, heads: 2, layers: 2}
stages:
  - kind: fine_tune
    epochs: 3
    batch_size: 8
    optimizer: {kind: adamw, lr: 1.0e-3, new_layers: 2, schedule: {kind: cosine, warmup_epochs: 1}}
    augment: [{kind: crop, enlarge: 1.25}, {kind: colour_jitter}, {kind: random_erasing, probability: 0.3}]
evaluate: {draws: 3, resamples: 200}
"""


LONGEST = ("test_sweep.py", "test_tracking.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: at the end one of the workers would wait for the other's minute-long test."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 12 people with 4 photos each: a colour and a stripe per person, noise per photo."""
    root = tmp_path_factory.mktemp("photos")
    for person in range(12):
        rng = np.random.default_rng(person)
        base = np.tile(rng.integers(40, 215, (1, 1, 3)), (40, 48, 1)).astype(float)
        base[:, int(rng.integers(4, 40)) :][:, :6] = rng.integers(0, 255, 3)
        for shot in range(4):
            noisy = base + np.random.default_rng([person, shot]).normal(0, 12, base.shape)
            path = root / f"p{person:02d}" / f"{shot}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)
    path = root / "manifest.parquet"
    sources.folders(root).write(path)
    return path


@pytest.fixture(scope="session")
def cameras(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos, with a camera and a lens: each person's are of two cameras, the odd people's of two lenses."""
    made = manifest.read(photos)
    kinds = [(row // 4, row % 4) for row in range(len(made))]
    camera = pl.Series("camera", [f"c{shot % 2}" for _, shot in kinds])
    lens = pl.Series("lens_mm", [35 if person % 2 and shot > 1 else 50 for person, shot in kinds])
    path = tmp_path_factory.mktemp("cameras") / "cameras.parquet"
    replace(made, table=made.table.with_columns(camera, lens)).write(path)
    return path


@pytest.fixture
def real_photos() -> Path:
    if not REAL_PHOTOS.is_dir():
        pytest.skip("the real photos are not beside this checkout (../shared/data)")
    return REAL_PHOTOS


@pytest.fixture(scope="module")
def coarse_figures() -> Iterator[None]:
    """Figures that are files in fewer pixels: packing 200 to the inch takes most of the time of a small figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handreid.report.figures.style._DPI", 50)
        yield


@pytest.fixture(scope="session")
def hard_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 12 people with 6 photos each, of two views, so alike and so noisy that some are mixed up."""
    root = tmp_path_factory.mktemp("hard")
    rows = []
    for person in range(12):
        base = np.tile(np.random.default_rng(person).integers(122, 134, (1, 1, 3)), (40, 48, 1)).astype(float)
        base[:, 3 * person :][:, :6] += np.random.default_rng(person).integers(-25, 25, 3)
        for shot in range(6):
            noisy = base + np.random.default_rng([person, shot]).normal(0, 60, base.shape)
            name = f"p{person:02d}/{shot}.jpg"
            (root / name).parent.mkdir(exist_ok=True)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name, quality=92)
            rows.append((name, f"p{person:02d}", ("dorsal", "palmar")[shot % 2], "right"))
    table = pl.DataFrame(rows, schema=["path", "subject", "aspect", "side"], orient="row")
    manifest.Manifest(table, root).write(root / "manifest.parquet")
    return root / "manifest.parquet"


@pytest.fixture(scope="session")
def ladder(hard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three evaluated rungs: one untrained, two trained, one of them re-ranked."""
    from handreid.evaluation.evaluate import evaluate
    from handreid.recipe import parse_recipe
    from handreid.training.train import train

    folder = tmp_path_factory.mktemp("rungs") / "ladder"
    rungs = {
        "micro-zero": ["stages=[]"],
        "micro-slow": ["stages.0.optimizer.lr=1e-4"],
        "micro-fast": ["evaluate.rerank={k1: 4, k2: 2, lambda: 0.3}"],
    }
    for name, overrides in rungs.items():
        recipe = parse_recipe(MICRO_RECIPE, name, [f"name={name}", f"about=what {name} is about", *overrides])
        evaluate(train(recipe, hard_photos, folder / name))
    return folder


@pytest.fixture(scope="session")
def report(ladder: Path) -> Path:
    from handreid.report.page.write import write_report

    return write_report([ladder], ladder.parent / "report.html", show="micro-fast")


@pytest.fixture(scope="session")
def bare_report(ladder: Path) -> Path:
    from handreid.report.page.write import write_report

    return write_report([ladder], ladder.parent / "bare.html", show="micro-fast", photos=False)
