"""`handreid data prepare`, `check` and `describe` on what people give them: one message, or it works."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from handreid.cli.data import app
from handreid.data import sources
from handreid.data.manifest import read
from handreid.errors import HandreidError


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    error: str


def data(*words: object) -> Said:
    """What a command says; an error made on purpose is what `main` prints of it. Anything else is raised."""
    called = CliRunner().invoke(app, [*map(str, words)])
    error = called.exception
    if error is not None and not isinstance(error, (HandreidError, SystemExit)):
        raise error
    purpose = f"{type(error).__name__}: {error}" if isinstance(error, HandreidError) else ""
    return Said(2 if purpose else called.exit_code, called.stdout, purpose)


def complaint(*words: object) -> str:
    said = data(*words)
    assert (said.code, said.out) == (2, "")
    return said.error


def photo(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 100, 100)).save(path)
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Two photos of two people, one of them in capitals."""
    photo(tmp_path / "Hands" / "1.jpg", 10)
    photo(tmp_path / "Hands" / "2.JPG", 90)
    return tmp_path


def csv_of(folder: Path, *rows: str, name: str = "hands.csv", header: str = "path,subject") -> Path:
    (folder / name).write_text("\n".join([header, *rows, ""]))
    return folder / name


class TestAbsentPhotos:
    def test_are_counted_and_named_at_once(self, here: Path) -> None:
        table = csv_of(here, "Hands/1.jpg,a", "Hands/none.jpg,b")
        said = complaint("prepare", "csv", table, "--out", here / "m.parquet")
        assert said.startswith(
            "ManifestError: hands.csv: 1 of 2 photos are missing: Hands/none.jpg (hands.csv line 3); complete"
        )
        assert "--allow-missing" in said
        assert not (here / "m.parquet").exists()

    def test_are_left_out_and_counted_when_allowed_and_the_lost_are_named(self, here: Path) -> None:
        table = csv_of(here, "Hands/1.jpg,a", "Hands/none.jpg,a", "Hands/no.jpg,b")
        said = data("prepare", "csv", table, "--allow-missing", "--out", here / "m.parquet")
        assert said.code == 0
        assert "note: 2 of 3 photos are missing: Hands/none.jpg (hands.csv line 3)" in said.out
        assert "; their rows are left out\n" in said.out
        assert "note: 1 subjects are left out, as none of their photos exists: b\n" in said.out
        assert read(here / "m.parquet").table["path"].to_list() == ["Hands/1.jpg"]

    def test_all_absent_is_an_error_even_so(self, here: Path) -> None:
        table = csv_of(here, "no.jpg,a")
        assert "none of its 1 photos is below" in complaint(
            "prepare", "csv", table, "--allow-missing", "--out", here / "m.parquet"
        )

    def test_another_spelling_that_is_there_is_suggested(self, here: Path) -> None:
        table = csv_of(here, "hands/2.jpg,a")
        said = complaint("prepare", "csv", table, "--out", here / "m.parquet")
        assert "hands/2.jpg (hands.csv line 2; did you mean Hands/2.JPG?)" in said

    def test_a_folder_or_a_pipe_is_no_photo(self, here: Path) -> None:
        os.mkfifo(here / "Hands" / "3.jpg")
        table = csv_of(here, "Hands,a", "Hands/3.jpg,b")
        said = complaint("prepare", "csv", table, "--allow-missing", "--out", here / "m.parquet")
        assert said.splitlines() == [
            "ManifestError: hands.csv line 2: Hands is a folder, not a photo",
            "hands.csv line 3: Hands/3.jpg is neither a file nor a folder",
        ]


class TestPaths:
    def test_backslashes_are_separators_where_the_file_is_there_that_way(self, here: Path) -> None:
        table = csv_of(here, "Hands\\1.jpg,a", ".\\Hands\\2.JPG,b")
        said = data("prepare", "csv", table, "--out", here / "m.parquet")
        assert "note: 2 paths had backslashes, taken for forward slashes: Hands/1.jpg, Hands/2.JPG" in said.out
        assert read(here / "m.parquet").table["path"].to_list() == ["Hands/1.jpg", "Hands/2.JPG"]

    def test_backslashes_that_lead_nowhere_are_told(self, here: Path) -> None:
        table = csv_of(here, "Hands\\9.jpg,a")
        said = complaint("prepare", "csv", table, "--out", here / "m.parquet")
        assert "1 of 1 photos are missing" in said
        assert "1 of them have backslashes: write paths with forward slashes" in said

    @pytest.mark.skipif(os.name == "nt", reason="a backslash is no part of a name there")
    def test_a_backslash_in_a_name_stays(self, here: Path) -> None:
        photo(here / "a\\1.jpg")
        data("prepare", "csv", csv_of(here, "a\\1.jpg,a"), "--out", here / "m.parquet")
        assert read(here / "m.parquet").table["path"].to_list() == ["a\\1.jpg"]

    def test_dots_that_say_nothing_are_taken_away(self, here: Path) -> None:
        table = csv_of(here, "./Hands/1.jpg,a", "Hands//./2.JPG,b")
        assert data("prepare", "csv", table, "--out", here / "m.parquet").code == 0
        assert read(here / "m.parquet").table["path"].to_list() == ["Hands/1.jpg", "Hands/2.JPG"]

    def test_web_addresses_are_refused_with_what_to_do(self, here: Path) -> None:
        table = csv_of(here, "https://x.org/1.jpg,a", "file:///etc/passwd,b")
        assert complaint("prepare", "csv", table, "--allow-missing", "--out", here / "m.parquet").splitlines() == [
            "ManifestError: hands.csv line 2: path 'https://x.org/1.jpg' is a web address",
            "hands.csv line 3: path 'file:///etc/passwd' is a web address",
            "download the photos, and give their paths",
        ]

    @pytest.mark.parametrize(
        ("path", "what"),
        [
            ("/etc/passwd", "is absolute"),
            ("C:\\hands\\1.jpg", "is absolute"),
            ("C:/hands/1.jpg", "is absolute"),
            ("\\\\server\\hands\\1.jpg", "is absolute"),
            ("../outside.jpg", "leaves the folder of the photos"),
            ("Hands/../../outside.jpg", "leaves the folder of the photos"),
            ("Hands/..", "leaves the folder of the photos"),
            ("..\\outside.jpg", "leaves the folder of the photos"),
        ],
    )
    def test_what_leaves_the_folder_is_refused_unless_said(self, here: Path, path: str, what: str) -> None:
        table = csv_of(here, f"{path},a")
        said = complaint("prepare", "csv", table, "--out", here / "m.parquet")
        assert said.startswith(f"ManifestError: hands.csv line 2: path {path!r} {what}\n")
        assert "--outside-root" in said

    def test_said_so_it_is_kept_in_the_manifest(self, here: Path) -> None:
        (here / "tables").mkdir()
        table = csv_of(here / "tables", "../Hands/1.jpg,a", f"{here}/Hands/2.JPG,b")
        out = here / "tables" / "m.parquet"
        assert data("prepare", "csv", table, "--outside-root", "--out", out).code == 0
        again = read(out)
        assert again.outside_root
        assert [path.is_file() for path in again.paths()] == [True, True]
        assert data("check", out).code == 0
        again.filter().write(here / "again.parquet")
        assert read(here / "again.parquet").outside_root

    def test_a_source_of_a_folder_has_no_use_for_it(self, here: Path) -> None:
        assert "--outside-root works with csv only" in complaint(
            "prepare", "folders", here, "--outside-root", "--out", here / "m.parquet"
        )


class TestOutput:
    def test_a_table_is_never_written_over(self, here: Path) -> None:
        table = csv_of(here, "Hands/1.jpg,a")
        (here / "link.csv").symlink_to(table)
        os.link(table, here / "hard.csv")
        before = table.read_bytes()
        for name in ("hands.csv", "link.csv", "hard.csv"):
            assert f"{here / name} is the input table" in complaint("prepare", "csv", table, "--out", here / name)
        assert table.read_bytes() == before

    @pytest.mark.parametrize("name", ["HandInfo.csv", "handinfo.csv"])
    def test_nor_is_that_of_11k_hands(self, here: Path, name: str) -> None:
        (here / name).write_text("id\n")
        (here / "link.csv").symlink_to(here / name)
        for out in (name, "link.csv"):
            assert "is the input table" in complaint("prepare", "hands11k", here, "--out", here / out)
        assert (here / name).read_text() == "id\n"

    def test_a_manifest_may_be_made_again(self, here: Path) -> None:
        words = ("prepare", "folders", here, "--out", here / "m.csv")
        assert (data(*words).code, data(*words).code) == (0, 0)

    def test_places_are_tried_before_the_work(self, here: Path) -> None:
        nowhere = here / "nowhere"
        for out, what in (
            (here / "m.xlsx", "the suffix must be .parquet or .csv, not '.xlsx'"),
            (here / "no" / "m.parquet", "does not exist; create it first"),
            (here / "Hands" / "1.jpg" / "m.csv", "is a file, not a folder"),
        ):
            said = complaint("prepare", "folders", nowhere, "--out", out)
            assert said.startswith("OutputError: ")
            assert what in said

    def test_a_csv_file_elsewhere_is_refused_before_the_work(self, here: Path) -> None:
        (here / "tables").mkdir()
        said = complaint("prepare", "folders", here / "nowhere", "--out", here / "tables" / "m.csv")
        assert "a CSV manifest can only name photos below its own folder" in said

    def test_rendering_tries_its_place_first(self, here: Path) -> None:
        assert "is a file, not a folder" in complaint("render", "--out", here / "Hands" / "1.jpg", "--identities", 1)


class TestHashes:
    def test_every_photo_gets_the_hash_of_its_file(self, here: Path) -> None:
        table = csv_of(here, "Hands/1.jpg,a", "Hands/2.JPG,b")
        for source, root, out in (("folders", here, "f.parquet"), ("csv", table, "c.csv")):
            assert data("prepare", source, root, "--out", here / out).code == 0
            made = read(here / out)
            assert made.table["sha256"].to_list() == [
                hashlib.sha256(path.read_bytes()).hexdigest() for path in made.paths()
            ]

    def test_another_photo_under_its_name_is_another_manifest(self, here: Path) -> None:
        before = sources.hashed(sources.folders(here))
        photo(here / "Hands" / "1.jpg", 200)
        assert sources.hashed(sources.folders(here)).hash != before.hash

    def test_a_table_that_states_another_hash_is_refused(self, here: Path) -> None:
        good = hashlib.sha256((here / "Hands/1.jpg").read_bytes()).hexdigest()
        header = "path,subject,sha256"
        table = csv_of(here, f"Hands/1.jpg,a,{good.upper()}", header=header)
        assert data("prepare", "csv", table, "--out", here / "m.parquet").code == 0
        csv_of(here, f"Hands/1.jpg,a,{good}", f"Hands/2.JPG,b,{good}", header=header)
        said = complaint("prepare", "csv", table, "--out", here / "m.parquet")
        assert said.startswith("ManifestError: hands.csv line 3: Hands/2.JPG does not match its sha256")
        assert len(said.splitlines()) == 2

    def test_rendered_hands_have_theirs(self, tmp_path: Path) -> None:
        words = ("--identities", 1, "--photos", 2, "--size", 32)
        assert data("render", *words, "--out", tmp_path / "hands").code == 0
        assert read(tmp_path / "hands" / "manifest.parquet").table["sha256"].null_count() == 0


ODD = "bad\udce9"  # a name that is not UTF-8, as Python has it


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
class TestNamesThatAreNotUtf8:
    def test_a_photo_is_refused_by_name(self, here: Path) -> None:
        photo(here / ODD / "1.jpg")
        said = complaint("prepare", "folders", here, "--out", here / "m.parquet")
        assert "1 photos have names that are not UTF-8: bad\\udce9/1.jpg" in said

    def test_a_manifest_may_lie_in_such_a_folder(self, here: Path) -> None:
        photo(here / ODD / "photos" / "a" / "1.jpg")
        out = here / ODD / "m.parquet"
        said = data("prepare", "folders", here / ODD / "photos", "--out", out)
        assert (said.code, said.out.splitlines()[-1].split(":")[0]) == (0, f"{here}/bad\\udce9/m.parquet")
        assert data("check", out).code == 0
        assert data("describe", out).code == 0
        (here / ODD / "t.csv").write_text("path,subject\nphotos/a/1.jpg,a\n")
        assert data("prepare", "csv", here / ODD / "t.csv", "--out", here / ODD / "c.csv").code == 0


class TestOddInput:
    @pytest.mark.parametrize("command", ["check", "describe"])
    def test_gives_one_message(self, here: Path, command: str) -> None:
        (here / "recipe.yaml").write_text("name: x\n")
        (here / "folder.parquet").mkdir()
        for name in ("empty.parquet", "empty.csv"):
            (here / name).touch()
        (here / "photo.parquet").write_bytes((here / "Hands/1.jpg").read_bytes())
        os.mkfifo(here / "pipe.parquet")
        for given, what in {
            "recipe.yaml": "a manifest is a .parquet or .csv file, not a recipe",
            "Hands": "a manifest is a .parquet or .csv file, not a folder",
            "folder.parquet": "is a folder; give a file",
            "empty.parquet": "is empty",
            "empty.csv": "no header in line 1",
            "photo.parquet": "not a readable parquet file",
            "pipe.parquet": "neither a file nor a folder",
            "none.parquet": "no such file; make one with `handreid data prepare`",
            "none.csv": "no such file; make one with `handreid data prepare`",
            f"{ODD}.parquet": "no such file",
            f"{ODD}": "a manifest is a .parquet or .csv file",
            "x" * 300 + ".csv": "cannot be read (File name too long)",
            "Hands/1.jpg/m.csv": "cannot be read (Not a directory)",
        }.items():
            said = complaint(command, here / given)
            assert said.startswith("ManifestError: ")
            assert what in said
            assert len(said.splitlines()) == 1

    def test_prepare_says_what_it_was_given(self, here: Path) -> None:
        (here / "photos.zip").write_bytes(b"PK\x03\x04")
        for words, what in (
            (
                ("folders", here / "photos.zip"),
                "is a file, not a folder of photos; if it is an archive, unpack it first",
            ),
            (("hd", here / "nowhere"), "nowhere: no such folder"),
            (("csv", here), "is a folder; give a file"),
            (("csv", here / "photos.zip"), "is a workbook of Excel or LibreOffice, or a zip archive"),
            (("hands11k", here), "HandInfo.csv: no such file; 11k Hands is the folder that holds HandInfo.csv"),
        ):
            assert what in complaint("prepare", *words, "--out", here / "m.parquet")
