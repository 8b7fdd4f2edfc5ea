"""`handreid data landmarks` and `handreid figure landmarks`, with tables of points: no model is needed."""

import contextlib
import importlib.util
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from handreid.data import sources
from handreid.data.manifest import read
from handreid.data.rendered import render
from tests.cli.test_commands import complaint, handreid
from tests.landmarks.test_mediapipe import MODEL


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("hands") / "all", identities=2, photos=2, size=64, workers=1)


@pytest.fixture
def manifest(table: Path, tmp_path: Path) -> Path:
    path = tmp_path / "hands.parquet"
    sources.csv(table).write(path)
    return path


@pytest.fixture
def points(manifest: Path, tmp_path: Path) -> Path:
    """The rendered points as another landmarker would give them: one column for each coordinate."""
    rows = read(manifest).table
    names = [f"{axis}{number}" for number in range(21) for axis in "xy"]
    lines = [",".join(["path", *names])]
    lines += [",".join([path, *cell.split()]) for path, cell in rows.select("path", "landmarks").head(3).iter_rows()]
    path = tmp_path / "points.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_points_from_a_table(manifest: Path, points: Path, tmp_path: Path):
    out = tmp_path / "found.csv"
    called = handreid("data", "landmarks", manifest, "--points", points, "--out", tmp_path / "found.parquet")
    assert "note: landmarks: 3 of 4 photos show one hand, by points.csv" in called.out
    assert "1 photos not told: Hands/p00001_01" in called.out
    found = read(tmp_path / "found.parquet").table
    assert found["landmarks"].head(3).to_list() == read(manifest).table["landmarks"].head(3).to_list()
    assert found["landmarks"][3] is None
    assert "a CSV manifest can only name photos below" in complaint(
        "data", "landmarks", manifest, "--points", points, "--out", out
    )


def test_without_the_extra_one_line_says_what_it_brings(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    for arguments in (("data", "landmarks", manifest), ("figure", "landmarks", "hand.jpg")):
        out = tmp_path / ("o.parquet" if arguments[0] == "data" else "o.png")
        said = complaint(*arguments, "--out", out)
        assert "pip install 'handreid[landmarks]'" in said
        assert said.strip().count("\n") == 0
        assert not out.exists()


def test_prepare_takes_a_pixel_aspect(table: Path, tmp_path: Path):
    out = tmp_path / "wide.parquet"
    handreid("data", "prepare", "csv", table, "--outside-root", "--pixel-aspect", "4/3", "--out", out)
    assert read(out).table["pixel_aspect"].to_list() == [4 / 3] * 4
    for wrong in ("wide", "4/0", "1/2/3", "40", "nan", "-1"):
        said = complaint("data", "prepare", "csv", table, "--pixel-aspect", wrong, "--out", out)
        assert f"--pixel-aspect is '{wrong}'; give a number from 0.1 to 10, or a ratio" in said


def test_a_figure_of_landmarks_in_a_manifest(manifest: Path, tmp_path: Path):
    names = read(manifest).table["path"].to_list()
    out = tmp_path / "hands.png"
    handreid("figure", "landmarks", names[0], names[3], "--data", manifest, "--fill", "mean", "--out", out)
    with Image.open(out) as figure:
        assert figure.width > figure.height * 0.9
    caption = out.with_suffix(".txt").read_text()
    assert "outside the photo: mean" in caption
    assert f"{names[3]}: score 1.00" in caption
    assert len(re.findall(r"; quality \d+: size \d+ px, sharpness 0\.\d\d, contrast \d+ levels", caption)) == 2
    assert "nobody.jpg is not a path in the manifest" in complaint(
        "figure", "landmarks", "nobody.jpg", "--data", manifest, "--out", out
    )


@pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT is not installed")
@pytest.mark.skipif(not MODEL.is_file(), reason="no hand_landmarker.task: set HANDREID_LANDMARKER")
def test_a_search_that_is_stopped_goes_on_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    hands = render(tmp_path_factory.mktemp("many") / "all", identities=4, photos=4, size=64, workers=1)
    manifest, out = tmp_path / "hands.parquet", tmp_path / "found.parquet"
    sources.csv(hands).write(manifest)
    words = ("data", "landmarks", manifest, "--landmarker", MODEL, "--out", out)
    command = [sys.executable, "-m", "handreid", *map(str, words)]
    going = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stored = wait_for_rows(tmp_path / "cache")
    going.send_signal(signal.SIGINT)
    said, told = going.communicate(timeout=60)
    assert (going.returncode, said) == (130, "")
    assert told.splitlines()[-1] == "stopped; to continue: the same command"
    assert "Traceback" not in told
    assert sorted(tmp_path.glob("*.parquet")) == [manifest]
    assert not [path for path in tmp_path.iterdir() if ".writing" in path.name]
    assert 0 < stored < 16
    again = handreid(*words)
    assert again.code == 0
    (line,) = [line for line in again.err.splitlines() if line.startswith("finding hands")]
    assert int(re.search(r"(\d+) photos in", line)[1]) <= 16 - stored
    assert read(out).table["hands"].null_count() == 0


def wait_for_rows(cache: Path) -> int:
    """Waits until the first batch is stored, and gives the number of photos in it."""
    for _ in range(600):
        for path in cache.glob("landmarks-*.sqlite"):
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
                count: int = database.execute("SELECT COUNT(*) FROM photos").fetchone()[0]
                if count:
                    return count
        time.sleep(0.05)
    raise AssertionError("nothing was stored within half a minute")
