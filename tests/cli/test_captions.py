"""`handreid data caption`: what it writes and prints, and how it refuses."""

from pathlib import Path

import pytest

from handreid.data.captions import wordings
from handreid.data.manifest import read
from tests.cli.test_commands import complaint, handreid


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "hands.csv"
    path.write_text("path,subject,side,skinColor,light,age\na.jpg,anna,left,dark,dim,30\nb.jpg,ben,,,,40\n")
    return path


def test_captions_from_columns_and_templates(manifest: Path, tmp_path: Path):
    out = tmp_path / "captioned.csv"
    words = ("--columns", "side,skin_color", "--wordings", 3, "--template", "light=in {value} light", "--out", out)
    called = handreid("data", "caption", manifest, *words)
    assert called.code == 0, called.err
    first, second = wordings(read(out))
    assert len(first) == 3
    assert all("dark" in text and "left hand" in text and "in dim light" in text and "30" not in text for text in first)
    assert second == ()
    assert "note: captions: 1 of 2 photos, from side, skinColor, light" in called.out
    assert "1 photos without one" in called.out
    assert all(f"a.jpg: {text}" in called.out for text in first)
    again = handreid("data", "caption", out, "--columns", "age", "--out", out)
    assert "note: captions: 1 earlier ones replaced" in again.out
    assert "40" in wordings(read(out))[1][0]


def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(manifest: Path, tmp_path: Path):
    out = tmp_path / "captioned.csv"

    def refused(*words: object) -> str:
        return complaint("data", "caption", manifest, "--out", out, *words)

    assert "no column 'skim_color' (did you mean 'skinColor'?)" in refused("--columns", "side,skim_color")
    assert "template 'light' must be COLUMN=TEXT" in refused("--columns", "side", "--template", "light")
    assert "nothing is known of any photo in camera" in refused("--columns", "camera")
    assert not out.exists()
