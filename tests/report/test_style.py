"""Figures for papers: three formats, captions as text inside and beside, the same bytes for the same figure."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handreid.report.figures import style

CAPTION = "Rank-1 of 3 runs & <more>. Draws 5daba735."


def drawn():
    figure = style.new_figure("A title", ["of something"], width=3.0, height=2.0)
    axes = figure.add_axes((0.1, 0.1, 0.8, style.top_of(["of something"], 2.0) - 0.1))
    axes.plot([0, 1], [1, 0], color=style.CATEGORIES[0])
    axes.scatter([0.5], [0.5], clip_on=True)
    axes.imshow(
        np.arange(48, dtype=np.uint8).reshape(4, 4, 3), extent=(0.1, 0.3, 0.1, 0.3), interpolation="antialiased"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="auto")
    return figure


@pytest.mark.parametrize("suffix", style.FORMATS)
def test_the_same_figure_is_the_same_bytes_with_its_caption_beside(suffix: str, tmp_path: Path):
    first, second = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    assert style.save(drawn(), first, CAPTION) == [first, first.with_suffix(".txt")]
    style.save(drawn(), second, CAPTION)
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".txt").read_text() == CAPTION + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}{end}" for name in ("one", "two") for end in (suffix, ".txt")
    )


def test_the_caption_is_inside_where_programs_look(tmp_path: Path):
    for suffix in style.FORMATS:
        style.save(drawn(), tmp_path / f"x{suffix}", CAPTION)
    with Image.open(tmp_path / "x.png") as image:
        assert (image.format, image.info["Description"]) == ("PNG", CAPTION)
        assert image.size == (600, 400)
    svg = (tmp_path / "x.svg").read_text()
    assert "Rank-1 of 3 runs &amp; &lt;more&gt;. Draws 5daba735." in re.search(r"<metadata>.*</metadata>", svg, re.S)[0]
    assert ">A title</text>" in svg  # text stays text, so that it can be searched and read aloud
    pdf = (tmp_path / "x.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/Subject (Rank-1 of 3 runs & <more>. Draws 5daba735.)" in pdf
    assert not re.search(rb"CreationDate|Producer", pdf)


def test_without_a_caption_there_is_one_file_without(tmp_path: Path):
    assert style.save(drawn(), tmp_path / "x.png") == [tmp_path / "x.png"]
    with Image.open(tmp_path / "x.png") as image:
        assert "Description" not in image.info
        assert "Software" not in image.info
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_axes_begin_below_the_subtitle_whatever_the_height():
    for height in (2.0, 8.5, 20.0):
        figure = style.new_figure("title", ["one", "two"], height=height)
        figure.canvas.draw()
        lowest = min(text.get_window_extent().y0 for text in figure.texts) / figure.bbox.height
        assert 0 < lowest - style.top_of(["one", "two"], height) < 0.3 / height
