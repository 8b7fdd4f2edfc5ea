"""Tables as spreadsheets save them, and what is given as a table and is none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from handreid.data import sources
from handreid.data.manifest import Manifest, read_csv
from handreid.data.tables import infer_types, read_text_table
from handreid.errors import ManifestError


def table(folder: Path, content: bytes | str) -> Path:
    path = folder / "hands.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_table(folder: Path, content: bytes | str) -> Manifest:
    return read_csv(table(folder, content))


def complaint(folder: Path, content: bytes | str) -> str:
    """What is said of a table, in one line."""
    with pytest.raises(ManifestError) as caught:
        read_table(folder, content)
    (line,) = str(caught.value).splitlines()
    return line


PLAIN = "path,subject,side\na.jpg,1,left\nb.jpg,2,\n"


class TestAsExcelSavesThem:
    @pytest.mark.parametrize(
        "content",
        [
            "sep=;\r\npath;subject;side\r\na.jpg;1;left\r\nb.jpg;2;\r\n",
            "SEP=,\npath,subject,side\na.jpg,1,left\nb.jpg,2,\n",
            '"sep=;"\r\npath;subject;side\r\na.jpg;1;left\r\nb.jpg;2;\r\n',
            "sep=|\npath|subject|side\na.jpg|1|left\nb.jpg|2|\n",
            "\ufeffsep=;\r\npath;subject;side\r\na.jpg;1;left\r\nb.jpg;2;\r\n",
            "\ufeff" + PLAIN,
            PLAIN.replace("\n", "\r"),
            PLAIN.replace(",", "\t"),
            PLAIN.encode("utf-16"),
            b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"),
            PLAIN.encode("utf-32"),
            ("\ufeffsep=;\r\n" + PLAIN.replace(",", ";")).encode("utf-16-le"),
        ],
        ids=range(12),
    )
    def test_is_read_as_it_is_meant(self, tmp_path: Path, content: bytes | str) -> None:
        found = read_table(tmp_path, content)
        assert found.table.select("path", "subject", "side").rows() == [("a.jpg", "1", "left"), ("b.jpg", "2", None)]
        assert found.notes == ("2 photos; metadata columns: none",)

    def test_lines_are_those_of_the_file(self, tmp_path: Path) -> None:
        assert read_text_table(table(tmp_path, "sep=;\npath;subject\n\na;1\nb;2\n")).lines == [4, 5]
        assert "hands.csv line 3: side 'up'" in complaint(tmp_path, "sep=;\npath;subject;side\na;1;up\n")

    def test_empty_columns_at_the_end_are_dropped_and_counted(self, tmp_path: Path) -> None:
        found = read_table(tmp_path, "path,subject,,\na.jpg,1,,\nb.jpg,2, ,\n")
        assert (len(found), found.metadata) == (2, ())
        assert "2 columns without a name or a value left out" in found.notes

    def test_empty_cells_beyond_the_header_are_dropped(self, tmp_path: Path) -> None:
        assert len(read_table(tmp_path, "path,subject\na.jpg,1,,\nb.jpg,2\n")) == 2

    def test_empty_rows_are_dropped_and_counted(self, tmp_path: Path) -> None:
        found = read_table(tmp_path, "path,subject\na.jpg,1\n,\nb.jpg,2\n , \n,,,\n")
        assert found.table["origin"].to_list() == ["hands.csv line 2", "hands.csv line 4"]
        assert "3 empty rows left out" in found.notes

    def test_a_column_with_values_needs_a_name(self, tmp_path: Path) -> None:
        assert "line 1: the header has a column without a name" in complaint(tmp_path, "path,subject,\na.jpg,1,x\n")
        assert "line 2: the header has a column without a name" in complaint(tmp_path, "sep=,\npath,subject,\na,1,x\n")

    def test_hand_info_may_be_saved_so_too(self, tmp_path: Path) -> None:
        header = "id;age;gender;skinColor;accessories;nailPolish;aspectOfHand;imageName;irregularities;;"
        row = "0000007;27;male;fair;0;1;dorsal right;Hand_1.jpg;0;;"
        (tmp_path / "HandInfo.csv").write_bytes(f"sep=;\r\n{header}\r\n{row}\r\n;;;;;;;;;;\r\n".encode("utf-16"))
        found = sources.hands11k_metadata(tmp_path / "HandInfo.csv")
        assert found.table["path"].to_list() == ["Hands/Hand_1.jpg"]
        assert found.notes == ("1 empty rows left out", "2 columns without a name or a value left out")


class TestWhatIsNoTable:
    def test_windows_1252_is_told_with_its_line(self, tmp_path: Path) -> None:
        assert complaint(tmp_path, "path,subject\na.jpg,1\nä.jpg,1\n".encode("cp1252")) == (
            "hands.csv line 3: byte 21 is not UTF-8 (0xe4, 'ä' in Windows-1252); save the table as UTF-8 (in Excel: "
            "CSV UTF-8)"
        )

    def test_damaged_utf16_is_told(self, tmp_path: Path) -> None:
        assert "is damaged: byte 80 is not UTF-16" in complaint(tmp_path, PLAIN.encode("utf-16")[:-1])

    def test_nul_is_told_with_its_line(self, tmp_path: Path) -> None:
        assert "hands.csv line 2: a NUL character" in complaint(tmp_path, "path,subject\na\0.jpg,1\n")
        assert "UTF-16 without its byte order mark" in complaint(tmp_path, PLAIN.encode("utf-16-le"))

    @pytest.mark.parametrize(
        ("start", "what"),
        [
            (b"PAR1", "is a parquet file, not a text table; if it is a manifest, it is prepared already"),
            (b"PK\x03\x04", r"is a workbook of Excel .*save the table as CSV"),
            (b"\xd0\xcf\x11\xe0", "is a workbook of an old Excel"),
            (b"\x89PNG\r\n", "is a picture, not a text table"),
            (b"\xff\xd8\xff\xe0", "is a picture, not a text table"),
            (b"\x1f\x8b", "is a compressed file"),
        ],
    )
    def test_other_files_are_told_by_kind(self, tmp_path: Path, start: bytes, what: str) -> None:
        with pytest.raises(ManifestError, match=what):
            sources.csv(table(tmp_path, start + b"and more\n"))

    @pytest.mark.parametrize("read", [read_csv, sources.csv])
    def test_a_folder_a_pipe_or_nothing(self, tmp_path: Path, read: Callable[[Path], Manifest]) -> None:
        (tmp_path / "folder.csv").mkdir()
        os.mkfifo(tmp_path / "pipe.csv")
        for name, what in (
            ("folder", "is a folder"),
            ("pipe", "neither a file nor a folder"),
            ("none", "no such file"),
        ):
            with pytest.raises(ManifestError, match=rf"{name}\.csv.* {what}|{name}\.csv: {what}"):
                read(tmp_path / f"{name}.csv")

    def test_a_damaged_line_is_named_where_it_begins(self, tmp_path: Path) -> None:
        damaged = 'path,subject\na.jpg,1\n"b.jpg,2\nc.jpg,3\nd.jpg,4\n'
        assert complaint(tmp_path, damaged).startswith("hands.csv line 3: not readable as CSV")
        assert complaint(tmp_path, '"path,subject\na.jpg,1\n').startswith("hands.csv line 1: not readable as CSV")
        assert complaint(tmp_path, "path,subject\na.jpg,1\nb.jpg\n") == (
            "hands.csv line 3: 1 values where the header has 2"
        )


DIGITS = "1" * 5000


class TestLongNumbers:
    def test_as_metadata_is_text(self) -> None:
        assert infer_types([DIGITS, "2"]).to_list() == [DIGITS, "2"]

    @pytest.mark.parametrize("column", ["draw", "side", "sha256"])
    def test_as_a_value_is_told_shortly(self, tmp_path: Path, column: str) -> None:
        line = complaint(tmp_path, f"path,subject,{column}\na.jpg,1,{DIGITS}\n")
        assert line.startswith(f"hands.csv line 2: {column} '1111")
        assert "(5,000 characters)" in line
        assert len(line) < 250

    def test_as_a_column_or_a_photo_is_told_shortly(self, tmp_path: Path) -> None:
        assert len(complaint(tmp_path, f"path,{DIGITS}\na.jpg,1\n")) < 250
        with pytest.raises(ManifestError, match="1 of 1 photos are missing: 111") as caught:
            sources.csv(table(tmp_path, f"path,subject\n{DIGITS}.jpg,1\n"))
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(("old", "column"), [("0000007", "id"), ("27", "age"), ("fair,0", "accessories")])
    def test_in_hand_info_is_told_shortly(self, tmp_path: Path, old: str, column: str) -> None:
        header = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities"
        row = "0000007,27,male,fair,0,1,dorsal right,Hand_1.jpg,0".replace(old, old[:-1] + DIGITS)
        path = table(tmp_path, f"{header}\n{row}\n")
        with pytest.raises(ManifestError, match=rf"line 2: {column} '.*\(5,\d+ characters\)") as caught:
            sources.hands11k_metadata(path)
        assert len(str(caught.value)) < 250
