"""The columns of quality, and the two commands that write and test them."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from PIL import Image, ImageFilter

from handreid.data import sources
from handreid.data.manifest import Manifest, read
from handreid.data.quality import PARTS, add_quality
from handreid.data.rendered import render
from handreid.errors import DataError, ManifestError
from tests.cli.test_commands import complaint, handreid


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rendered hands: the second blurred, the third without a hand, the fourth not searched."""
    table = render(tmp_path_factory.mktemp("hands") / "all", identities=2, photos=2, size=160, workers=1)
    made = sources.csv(table)
    path = made.paths()[1]
    with Image.open(path) as photo:
        photo.convert("RGB").filter(ImageFilter.GaussianBlur(5)).save(path, quality=95)
    cells = made.table["landmarks"].to_list()
    columns = [pl.Series("landmarks", [*cells[:2], None, None]), pl.Series("hands", [1, 1, 0, None])]
    made = replace(made, table=made.table.with_columns(columns))
    made.write(table.parent / "hands.parquet")
    return table.parent / "hands.parquet"


def test_data_quality_writes_the_number_and_its_parts(hands: Path, tmp_path: Path):
    out = tmp_path / "quality.parquet"
    said = handreid("data", "quality", hands, "--out", out).out
    assert "note: quality: 1 photos without a hand have quality 0" in said
    assert "note: quality: 1 photos that nobody searched for a hand have none" in said
    table = read(out).table
    sharp, blurred, none, unknown = table["quality"].to_list()
    assert sharp > blurred + 20 > 20
    assert (none, unknown) == (0, None)
    assert table["quality_sharpness"][0] > table["quality_sharpness"][1] + 0.1
    assert all(table[name].null_count() == 2 for name in PARTS)
    first = read(out)
    handreid("data", "quality", out, "--out", out)
    assert (read(out).hash, read(out).notes) == (first.hash, first.notes)


def test_the_photo_is_measured_as_it_was_taken(hands: Path):
    made = read(hands).filter(pl.col("hands") == 1)
    squashed = replace(made, table=made.table.with_columns(pl.lit(2.0).alias("pixel_aspect")))
    plain, wide = (add_quality(given, workers=1).table for given in (made, squashed))
    assert (wide["quality_size"] > plain["quality_size"]).any()
    assert (wide["quality_slant"] > plain["quality_slant"]).all()


def test_what_cannot_be_measured_is_refused(hands: Path, photos: Path, tmp_path: Path):
    with pytest.raises(ManifestError, match="no photo has landmarks: run `handreid data landmarks`"):
        add_quality(read(photos))
    made = read(hands)
    own = replace(made, table=made.table.with_columns(pl.lit("good").alias("quality")))
    with pytest.raises(ManifestError, match="has a column quality that"):
        add_quality(own)
    with pytest.raises(DataError, match="workers is 0"):
        add_quality(made, workers=0)
    points = pl.lit(" ".join(["5"] * 42)).alias("landmarks")
    together = Manifest(made.table[:1].with_columns(points), made.root)
    with pytest.raises(DataError, match=r"jpg: a hand cannot be aligned: its wrist and knuckles coincide; correct"):
        add_quality(together, workers=1)
    out = tmp_path / "out.parquet"
    gone = tmp_path / "gone.parquet"
    replace(made, root=tmp_path).write(gone)
    assert "_dorsal_right.jpg is missing" in complaint("data", "quality", gone, "--out", out)
    assert not out.exists()


@pytest.fixture(scope="module")
def tested(hard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's photos with columns of numbers: photos in the order of their names, and text."""
    made = read(hard_photos)
    table = made.table.with_columns(pl.int_range(pl.len()).alias("quality"), pl.lit("fine").alias("word"))
    path = tmp_path_factory.mktemp("tested") / "tested.parquet"
    replace(made, table=table).write(path)
    return path


def test_figure_quality(ladder: Path, tested: Path, tmp_path: Path, coarse_figures: None):
    from handreid.evaluation.error_discard import errors_of
    from handreid.progress import NullProgress
    from handreid.runs.folder import open_run
    from handreid.runs.results import read_evaluation

    run, out = ladder / "micro-fast", tmp_path / "curves.png"
    said = handreid("figure", "quality", run, "--data", tested, "--by", "quality", "--fmr", "0.1", "--out", out).out
    evaluation = read_evaluation(run / "evaluation.json")
    error = 100 * (1 - evaluation.metrics["rank1"].value)
    assert f"rank-1 error, quality: {error:.1f} at 0 %" in said
    assert "FNMR at FMR 10 %, quality: " in said
    with Image.open(out) as figure:
        assert figure.width > 1.8 * figure.height
    assert "threshold" in out.with_suffix(".txt").read_text()
    found = errors_of(open_run(run), tested, fmr=0.1, progress=NullProgress())
    draws = evaluation.draws
    assert len(found.rank1.errors) == sum(len(draw.query) for draw in draws)
    # one gallery photo per identity and draw: every query has one right answer
    assert len(found.non_match.errors) == len(found.rank1.errors)
    assert (found.non_match.photos[:, 0] != found.non_match.photos[:, 1]).all()


def test_figure_quality_says_what_is_wrong(ladder: Path, tested: Path, tmp_path: Path):
    call = ("figure", "quality", ladder / "micro-fast", "--data", tested, "--out", tmp_path / "x.png", "--fmr", "0.1")
    assert "has no column 'qualty' (did you mean 'quality'?)" in complaint(*call, "--by", "qualty")
    assert "the column word of" in complaint(*call, "--by", "word")
    few = handreid(*call[:-1], "0.0001", "--by", "quality")
    assert few.code == 2
    assert "too few to choose a threshold: give a larger one (--fmr)" in few.err
    assert not (tmp_path / "x.png").exists()
