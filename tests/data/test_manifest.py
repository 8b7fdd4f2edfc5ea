"""Manifests: what is valid, what is written, and what is hashed."""

import datetime
import json
import subprocess
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handreid.data import manifest_files
from handreid.data.manifest import CORE, Manifest, read, read_csv
from handreid.data.rows import content_hash
from handreid.data.tables import infer_types
from handreid.errors import ManifestError, OutputError


def a_manifest(root: Path, photos: int = 6) -> Manifest:
    rows = range(photos)
    return Manifest(
        pl.DataFrame(
            {
                "path": [f"photos/{row}.jpg" for row in rows],
                "subject": [f"000{row // 3}" for row in rows],
                "side": [("left", "right")[row % 2] for row in rows],
                "aspect": ["dorsal" for _ in rows],
                "origin": [f"hands.csv line {row + 2}" for row in rows],
                "age": list(rows),
                "weight": [row / 3 for row in rows],
                "ring": [row == 2 for row in rows],
            }
        ),
        root,
        "csv",
        ("a note",),
    )


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_core_columns_come_first_and_metadata_keeps_its_type(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    assert manifest.table.columns == [*CORE, "age", "weight", "ring"]
    assert manifest.table.dtypes[-3:] == [pl.Int64, pl.Float64, pl.Boolean]
    assert manifest.metadata == ("age", "weight", "ring")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_reads_what_it_wrote(tmp_path: Path, suffix: str) -> None:
    manifest = a_manifest(tmp_path)
    manifest.write(tmp_path / f"m{suffix}")
    again = read(tmp_path / f"m{suffix}")
    assert again.table.equals(manifest.table)
    assert again.hash == manifest.hash
    assert again.paths() == manifest.paths()
    assert [path.name for path in tmp_path.iterdir()] == [f"m{suffix}"]


def test_parquet_keeps_dataset_and_notes(tmp_path: Path) -> None:
    a_manifest(tmp_path).write(tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet").notes == ("a note",)


def test_folder_and_manifest_move_together(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "data" / "photos").mkdir(parents=True)
    (there / "data" / "photos" / "0.jpg").touch()
    a_manifest(there / "data").write(there / "m.parquet")
    here = there.rename(tmp_path / "here")
    assert read(here / "m.parquet").root == here / "data"


def test_manifest_moved_alone_still_finds_its_photos(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.jpg").touch()
    (tmp_path / "elsewhere").mkdir()
    a_manifest(tmp_path).write(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").rename(tmp_path / "elsewhere" / "m.parquet")
    assert read(tmp_path / "elsewhere" / "m.parquet").root == tmp_path


def test_csv_above_its_photos_points_to_them(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "data")
    manifest.write(tmp_path / "m.csv")
    again = read(tmp_path / "m.csv")
    assert [path.resolve() for path in again.paths()] == [path.resolve() for path in manifest.paths()]


def test_csv_whose_photos_are_elsewhere_is_refused_as_reading_it_would_be(tmp_path: Path) -> None:
    """A CSV file cannot say where its photos are, and paths that go up are refused."""
    for place in ("tables", "data/photos"):
        (tmp_path / place).mkdir(parents=True)
        with pytest.raises(ManifestError, match=r"only name photos below its own folder.*write a \.parquet"):
            a_manifest(tmp_path / "data").write(tmp_path / place / "m.csv")
        assert list((tmp_path / place).iterdir()) == []


def test_csv_through_a_linked_folder_is_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    a_manifest(tmp_path / "real" / "data").write(tmp_path / "link" / "m.csv")
    assert read(tmp_path / "real" / "m.csv").table["path"][0] == "data/photos/0.jpg"


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_text(tmp_path / "m.parquet", "old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match="disk full"):
        a_manifest(tmp_path).write(target)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.parquet", "old")]


GOLDEN = "4b245f93f2df50ffcfec28e7e4845a4df461064d72de69dd56349fa22247d27b"


def test_hash_is_golden(tmp_path: Path) -> None:
    """Fixed for ever: results carry it. If this fails, the meaning of every published hash has changed."""
    assert a_manifest(tmp_path).hash == GOLDEN


def test_hash_depends_on_content_only(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    table = manifest.table
    same = {
        "rows": table.sample(fraction=1.0, shuffle=True, seed=1),
        "columns": table.select(reversed(table.columns)),
        "origin": table.with_columns(origin=pl.lit("elsewhere")),
    }
    for what, changed in same.items():
        assert Manifest(changed, tmp_path / "moved").hash == manifest.hash, what
    other = {
        "path": pl.col("path") + "g",
        "subject": pl.col("subject") + "1",
        "side": pl.lit("left"),
        "camera": pl.lit("front"),
        "age": pl.col("age") + 1,
    }
    for column, value in other.items():
        assert Manifest(table.with_columns(value.alias(column)), tmp_path).hash != manifest.hash, column


@given(st.permutations(range(6)))
def test_hash_ignores_any_order(order: list[int]) -> None:
    manifest = a_manifest(Path("/data"))
    assert Manifest(manifest.table[order], Path("/data")).hash == manifest.hash


def test_labels(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    assert manifest.labels("subject")[0] == "0000"
    assert manifest.labels("hand")[0] == "0000/left"
    assert manifest.labels("view")[0] == "0000/dorsal-left"
    assert manifest.views[:2] == ("dorsal-left", "dorsal-right")


def test_label_that_needs_an_unknown_side_names_the_row(tmp_path: Path) -> None:
    side = pl.when(pl.col("age") == 4).then(None).otherwise("side")
    manifest = Manifest(a_manifest(tmp_path).table.with_columns(side=side), tmp_path)
    with pytest.raises(ManifestError, match="line 6: no side, which the label 'view' needs"):
        manifest.labels("view")
    assert manifest.labels("subject")[4] == "0001"
    assert manifest.views[4] == "dorsal"


def test_filter_keeps_the_rest(tmp_path: Path) -> None:
    some = a_manifest(tmp_path).filter(pl.col("side") == "left", pl.col("age") > 0)
    assert some.table["age"].to_list() == [2, 4]
    assert (some.root, some.notes) == (tmp_path, ("a note",))


WRONG = {
    "path,subject,side\na.jpg,1,rigth\n": "hands.csv line 2: side 'rigth' is not one of left, right (did you mean "
    "'right'?)",
    "path,subject,aspect\na.jpg,1,Dorsal\n": "line 2: aspect 'Dorsal' is not one of dorsal, palmar (did you mean "
    "'dorsal'?)",
    "path,subject,split\na.jpg,1,val\n": "line 2: split 'val' is not one of train, validation, test, query, gallery, "
    "distractor (did you mean 'validation'?)",
    "path,subject,draw\na.jpg,1,-1\n": "line 2: draw '-1' is not a whole number",
    "path,subject\n,1\n": "line 2: path is empty",
    "path,subject\nphotos/,1\n": "line 2: path 'photos/' is no path of a file",
    "path,subject\n.,1\n": "line 2: path '.' is no path of a file",
    "path,subject,sha256\na.jpg,1,abc\n": "line 2: sha256 'abc' is not a SHA-256, 64 hex digits",
    "path,subject,draw\na.jpg,1,\u0663\n": "line 2: draw '\u0663' is not a whole number",
    "path,subject\na.jpg,1\n\nb.jpg,2\na.jpg,2\n": "line 5: path 'a.jpg' was already given in hands.csv line 2",
    'path,subject,caption\na.jpg,1,"two\nlines"\na.jpg,2,\n': "line 4: path 'a.jpg' was already given in hands.csv "
    "line 2",
    "path,person\na.jpg,1\n": "no column 'subject'; its columns are path, person",
    "path,subjects\na.jpg,1\n": "no column 'subject' (did you mean 'subjects'?)",
    "path,subject\na.jpg,1,2\n": "line 2: 3 values where the header has 2",
    "path,subject,path\na.jpg,1,2\n": "line 1: the header names 'path' twice",
    "path,subject\n": "a header but no rows",
    "": "no header in line 1",
    'path,subject\n"a.jpg,1\n': "not readable as CSV",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_wrong_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(write_text(tmp_path / "hands.csv", text))
    assert message in str(caught.value)


def test_all_problems_are_gathered_the_first_ten_shown(tmp_path: Path) -> None:
    rows = "".join(f"{row}.jpg,1,up\n" for row in range(37))
    with pytest.raises(ManifestError) as caught:
        read(write_text(tmp_path / "hands.csv", f"path,subject,side\n{rows}"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[9].startswith("hands.csv line 11: ")
    assert lines[10] == "... and 27 more"


def test_wrong_values_made_in_python_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 2: side 'up'"):
        Manifest(pl.DataFrame({"path": ["a", "b"], "subject": ["1", "2"], "side": ["left", "up"]}), tmp_path)
    with pytest.raises(ManifestError, match="subject '1 ' has spaces"):
        Manifest(pl.DataFrame({"path": ["a"], "subject": ["1 "]}), tmp_path)


@pytest.mark.parametrize("name", ["m.parquet", "m.txt", "m.csv"])
def test_absent_or_strange_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=name):
        read(tmp_path / name)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a readable parquet file"):
        read(write_text(tmp_path / "m.parquet", "PAR1 and no more"))


def test_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hands.csv").write_bytes("path,subject\nä.jpg,1\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="byte 13 is not UTF-8"):
        read(tmp_path / "hands.csv")


def test_write_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the suffix must be \.parquet or \.csv"):
        a_manifest(tmp_path).write(tmp_path / "m.xlsx")
    with pytest.raises(OutputError, match="does not exist"):
        a_manifest(tmp_path).write(tmp_path / "no" / "m.csv")
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        a_manifest(tmp_path).write(tmp_path / "m.csv")


def test_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    """Byte order mark, semicolons, Windows line ends, spaces around values, ids with leading zeros."""
    text = "\ufeffpath;subject;side;age;postcode\r\na.jpg; 007;left ;30;0123\r\nb.jpg;8;;31;0456\r\n"
    (tmp_path / "hands.csv").write_bytes(text.encode())
    manifest = read_csv(tmp_path / "hands.csv")
    assert manifest.table["subject"].to_list() == ["007", "8"]
    assert manifest.table["side"].to_list() == ["left", None]
    assert manifest.table["age"].to_list() == [30, 31]
    assert manifest.table["postcode"].to_list() == ["0123", "0456"]
    assert manifest.notes[0] == "1 values of subject had spaces around them, dropped: hands.csv line 2"


@given(st.lists(st.none() | st.integers(-(10**17), 10**17), min_size=1))
def test_whole_numbers_survive_a_table(values: list[int | None]) -> None:
    assert infer_types(["" if value is None else str(value) for value in values]).to_list() == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_survive_a_table(values: list[float]) -> None:
    assert infer_types([str(value) for value in values]).to_list() == values


@given(st.lists(st.text(min_size=1), min_size=1))
def test_text_is_never_changed_by_becoming_a_number(values: list[str]) -> None:
    found = infer_types(values)
    assert found.dtype != pl.Int64 or [str(value) for value in found] == values


def test_a_large_manifest_is_read_whole(tmp_path: Path) -> None:
    written = a_manifest(tmp_path, 11_076)
    written.write(tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet").table.equals(written.table)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of others are read at once; the process that reads them first takes a while to start."""
    monkeypatch.setattr(manifest_files, "_try_in_subprocess", lambda *_: None)


LEAVES = ("../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "C:/secret.jpg")


def ours(path: Path, table: pl.DataFrame, facts: object) -> Path:
    """A parquet file with this under our name, as an older handreid wrote it: without the hash of the file."""
    table.write_parquet(path, metadata={"handreid": facts if isinstance(facts, str) else json.dumps(facts)})
    return path


def said_by(path: Path) -> dict[str, object]:
    return json.loads(pl.read_parquet_metadata(path)["handreid"])


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


class TestParquetProvesItself:
    def test_every_flipped_bit_is_noticed_before_polars_sees_it(self, tmp_path: Path) -> None:
        """A reader of parquet can end the process over one bit, and others give another table."""
        path = tmp_path / "m.parquet"
        a_manifest(tmp_path).write(path)
        whole = path.read_bytes()
        beside_the_hash = whole.index(b"sha256 of this file:")
        places = [*range(8, len(whole) - 8, 61), *range(beside_the_hash + 20, beside_the_hash + 84, 9)]
        for at in places:
            path.write_bytes(flipped(whole, at))
            with pytest.raises(ManifestError, match=r"m\.parquet.*(was changed or damaged|not a readable parquet)"):
                read(path)

    def test_no_other_process_is_needed_for_a_file_of_ours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a_manifest(tmp_path).write(tmp_path / "m.parquet")
        monkeypatch.setattr(subprocess, "run", None)
        assert len(read(tmp_path / "m.parquet")) == 6

    @pytest.mark.parametrize("length", [0, 3, 100, -1, -200])
    def test_a_file_cut_short_is_one_message(self, tmp_path: Path, length: int) -> None:
        path = tmp_path / "m.parquet"
        a_manifest(tmp_path).write(path)
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ManifestError, match=r"m\.parquet") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1

    def test_a_file_that_would_end_the_process_is_one_message(self, tmp_path: Path) -> None:
        """Between the marks of a parquet file, anything: somebody else's, so without a hash."""
        path = tmp_path / "m.parquet"
        a_manifest(tmp_path).table.write_parquet(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:4] + b"\xff" * (len(whole) - 12) + whole[-8:])
        with pytest.raises(ManifestError, match="not a readable parquet file"):
            read(path)

    def test_another_table_under_the_same_hash_is_refused(self, tmp_path: Path) -> None:
        a_manifest(tmp_path).write(tmp_path / "m.parquet")
        facts = {**said_by(tmp_path / "m.parquet"), "format": 1}
        table = a_manifest(tmp_path).table
        assert len(read(ours(tmp_path / "m.parquet", table, facts))) == 6
        other = table.with_columns(subject=pl.lit("0000"))
        with pytest.raises(
            ManifestError, match=r"m\.parquet: the file was changed or damaged: the hash in it is not that of its table"
        ):
            read(ours(tmp_path / "m.parquet", other, facts))

    def test_an_older_manifest_with_names_apart_is_read(self, tmp_path: Path) -> None:
        """Its hash was that of the names as they were."""
        table = a_manifest(tmp_path).table.with_columns(subject=pl.lit("Jose\u0301"), path=pl.col("path") + "e\u0301")
        facts = {
            "dataset": "csv",
            "notes": [],
            "root": ".",
            "root_then": ".",
            "hash": content_hash(table, spelled=True),
        }
        found = read(ours(tmp_path / "m.parquet", table, facts))
        assert set(found.table["subject"]) == {"Jos\u00e9"}
        assert found.hash == Manifest(found.table, tmp_path).hash != facts["hash"]

    @pytest.mark.usefixtures("tried")
    @pytest.mark.parametrize(
        "facts",
        [
            "[]",
            "null",
            "{}",
            "not json",
            "1" * 5000,
            "[" * 100_000,
            {"dataset": 1},
            {"notes": "a"},
            {"notes": [1]},
            {"root": None},
            {"root_then": 3},
            {"root": "a\0b"},
            {"hash": None},
            {"outside_root": "yes"},
            {"format": 2},
        ],
        ids=range(15),
    )
    def test_metadata_that_we_do_not_write_are_one_message(self, tmp_path: Path, facts: object) -> None:
        manifest = a_manifest(tmp_path)
        if isinstance(facts, dict):
            facts = {"dataset": "csv", "notes": [], "root": ".", "root_then": ".", "hash": manifest.hash, **facts}
        with pytest.raises(ManifestError, match=r"m\.parquet was changed or damaged") as caught:
            read(ours(tmp_path / "m.parquet", manifest.table, facts))
        assert len(str(caught.value)) < 400

    def test_its_hash_is_known_when_it_is_read(self, tmp_path: Path) -> None:
        manifest = a_manifest(tmp_path)
        manifest.write(tmp_path / "m.parquet")
        again = read(tmp_path / "m.parquet")
        assert again.__dict__["hash"] == manifest.hash
        assert again.filter(pl.col("age") > 2).hash != manifest.hash


@pytest.mark.usefixtures("tried")
class TestParquetOfOthers:
    def test_is_taken_as_a_csv_file_is(self, tmp_path: Path) -> None:
        table = pl.DataFrame({"path": ["./a.jpg", " b.jpg"], "subject": ["1 ", "2"], "finger": [1, 2]})
        table.write_parquet(tmp_path / "hands.parquet")
        found = read(tmp_path / "hands.parquet")
        assert (found.root, found.dataset, found.metadata) == (tmp_path, "csv", ("finger",))
        assert found.table.select("path", "subject").rows() == [("a.jpg", "1"), ("b.jpg", "2")]

    def test_plain_types_become_those_of_a_manifest(self, tmp_path: Path) -> None:
        day = datetime.date(2024, 5, 1)
        table = pl.DataFrame(
            {
                "path": ["a.jpg"],
                "subject": [7],
                "session": [day],
                "camera": pl.Series(["front"], dtype=pl.Categorical),
                "day": [day],
                "kind": pl.Series(["x"], dtype=pl.Enum(["x"])),
                "none": [None],
                "nan": [float("nan")],
            }
        )
        table.write_parquet(tmp_path / "hands.parquet")
        found = read(tmp_path / "hands.parquet")
        (row,) = found.table.rows(named=True)
        assert (row["subject"], row["session"], row["camera"]) == ("7", "2024-05-01", "front")
        assert (row["day"], row["kind"], row["none"], row["nan"]) == ("2024-05-01", "x", None, None)
        found.write(tmp_path / "m.csv")
        assert read(tmp_path / "m.csv").hash == found.hash

    @pytest.mark.parametrize(
        ("column", "what"),
        [
            ({"extra": [[1, 2]]}, r"column 'extra' holds List"),
            ({"extra": [{"a": 1}]}, r"column 'extra' holds Struct"),
            ({"extra": [b"x"]}, r"column 'extra' holds Binary"),
            ({"subject": [1.5]}, r"column 'subject' holds Float64"),
            ({"subject": [["a"]]}, r"column 'subject' holds List"),
            ({"path": [b"a.jpg"]}, r"column 'path' holds Binary"),
            ({"draw": [0.5]}, r"column 'draw' holds Float64"),
            ({"draw": ["x"]}, r"a column has values of the wrong type"),
            ({"draw": [-1]}, r"row 1: draw -1 is below 0"),
            ({"path": [None]}, r"row 1: path is empty"),
            ({"path": ["https://x.org/1.jpg"]}, r"is a web address\ndownload"),
        ],
    )
    def test_what_no_manifest_holds_is_one_message(
        self, tmp_path: Path, column: dict[str, list[object]], what: str
    ) -> None:
        table = pl.DataFrame({"path": ["a.jpg"], "subject": ["1"], **column})
        table.write_parquet(tmp_path / "hands.parquet")
        with pytest.raises(ManifestError, match=rf"hands\.parquet: {what}|hands\.parquet: .*{what}"):
            read(tmp_path / "hands.parquet")

    def test_columns_are_needed_and_rows(self, tmp_path: Path) -> None:
        pl.DataFrame({"file": ["a.jpg"]}).write_parquet(tmp_path / "a.parquet")
        with pytest.raises(ManifestError, match=r"a\.parquet: no column 'path' and 'subject'"):
            read(tmp_path / "a.parquet")
        pl.DataFrame({"path": [], "subject": []}).write_parquet(tmp_path / "b.parquet")
        with pytest.raises(ManifestError, match=r"b\.parquet: no rows"):
            read(tmp_path / "b.parquet")

    def test_a_name_with_brackets_is_that_file(self, tmp_path: Path) -> None:
        a_manifest(tmp_path).write(tmp_path / "m[1].parquet")
        assert len(read(tmp_path / "m[1].parquet")) == 6


@pytest.mark.usefixtures("tried")
class TestPathsThatLeaveTheRoot:
    @pytest.mark.parametrize("path", LEAVES)
    def test_are_refused_of_a_foreign_file_and_of_one_of_ours(self, tmp_path: Path, path: str) -> None:
        table = pl.DataFrame({"path": [path], "subject": ["1"]})
        table.write_parquet(tmp_path / "foreign.parquet")
        facts = {"dataset": "csv", "notes": [], "root": ".", "root_then": "."}
        said = Manifest(table, tmp_path, outside_root=True)
        ours(tmp_path / "ours.parquet", said.table, {**facts, "hash": said.hash})
        for name in ("foreign", "ours"):
            with pytest.raises(ManifestError, match=rf"{name}\.parquet: row 1: path .*\n.*--outside-root"):
                read(tmp_path / f"{name}.parquet")
        assert read(tmp_path / "foreign.parquet", outside_root=True).outside_root

    @pytest.mark.parametrize("path", LEAVES)
    def test_are_refused_in_python_unless_said(self, tmp_path: Path, path: str) -> None:
        table = pl.DataFrame({"path": [path], "subject": ["1"]})
        with pytest.raises(ManifestError, match="row 1: path"):
            Manifest(table, tmp_path)
        Manifest(table, tmp_path, outside_root=True).write(tmp_path / "m.parquet")
        assert read(tmp_path / "m.parquet").outside_root
        with pytest.raises(ManifestError, match="a CSV manifest can only name photos below its own folder"):
            Manifest(table, tmp_path, outside_root=True).write(tmp_path / "m.csv")

    def test_dots_within_a_name_are_a_name(self, tmp_path: Path) -> None:
        names = ["a..b.jpg", "..a/1.jpg", "a../1.jpg", "...", "~/1.jpg"]
        assert len(Manifest(pl.DataFrame({"path": names, "subject": ["1"] * 5}), tmp_path)) == 5
