"""Names in Unicode: one spelling in a manifest, whatever a disk has, and names that look the same."""

import unicodedata
from pathlib import Path

import polars as pl
import pytest

from handreid.data import sources
from handreid.data.check import Finding, check
from handreid.data.draws import hash_key
from handreid.data.manifest import Manifest, read
from handreid.data.names import nfc, visible
from handreid.data.similar_names import similar_names
from handreid.data.splits import make_split

COMPOSED, APART = "Jos\u00e9", "Jose\u0301"  # NFC, NFD


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def csv_of(folder: Path, *rows: str, header: str = "path,subject") -> Path:
    (folder / "hands.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder / "hands.csv"


def found_there(manifest: Manifest) -> list[bool]:
    return [path.is_file() for path in manifest.paths()]


class TestOneSpelling:
    def test_a_person_is_one_person_in_train_and_test(self, tmp_path: Path) -> None:
        """Case 1: a Mac's zip beside names as everybody else writes them."""
        touch(tmp_path, f"train/{COMPOSED}/1.png", f"test/{APART}/2.png", "train/b/3.png", "test/c/4.png")
        manifest = sources.folders(tmp_path)
        assert set(manifest.table["subject"]) == {COMPOSED, "b", "c"}
        (error,) = [finding for finding in check(manifest, pixels=False) if finding.severity == "error"]
        assert error.message == f"1 subjects are both in training and in the test: {COMPOSED}"

    def test_folders_in_both_spellings_side_by_side_are_one_person_and_all_photos_open(self, tmp_path: Path) -> None:
        manifest = sources.folders(touch(tmp_path, f"{COMPOSED}/1.png", f"{APART}/1.png", f"{APART}/2.png"))
        assert manifest.table["subject"].to_list() == [COMPOSED] * 3
        assert manifest.notes[0] == "3 photos of 1 identities"
        contents = {path.read_text() for path in manifest.paths()}
        assert contents == {f"{COMPOSED}/1.png", f"{APART}/1.png", f"{APART}/2.png"}
        for row in range(3):  # a part of a manifest opens the same photos
            (path,) = manifest.filter(pl.int_range(pl.len()) == row).paths()
            assert path == manifest.paths()[row]

    @pytest.mark.parametrize(("table", "disk"), [(COMPOSED, APART), (APART, COMPOSED)], ids=["nfc-nfd", "nfd-nfc"])
    def test_a_table_names_photos_that_the_disk_spells_otherwise(self, tmp_path: Path, table: str, disk: str) -> None:
        touch(tmp_path, f"{disk}/{disk}.jpg", "ann/1.jpg")
        path = csv_of(tmp_path, f"{table}/{table}.jpg,{table}", "ann/1.jpg,ann")
        for manifest in (sources.csv(path), read(path)):
            assert manifest.table["path"].to_list() == [f"{disk}/{disk}.jpg", "ann/1.jpg"]
            assert manifest.table["subject"].to_list() == [COMPOSED, "ann"]
            assert found_there(manifest) == [True, True]

    @pytest.mark.parametrize(("then", "now"), [(COMPOSED, APART), (APART, COMPOSED)], ids=["nfc-nfd", "nfd-nfc"])
    def test_a_manifest_opens_its_photos_where_folders_were_copied_under_the_other_spelling(
        self, tmp_path: Path, then: str, now: str
    ) -> None:
        touch(tmp_path / "mac", f"hands {then}/{then}/1.jpg")
        sources.folders(tmp_path / "mac" / f"hands {then}").write(tmp_path / "mac" / "m.parquet")
        before = read(tmp_path / "mac" / "m.parquet")
        (tmp_path / "mac" / f"hands {then}" / then).rename(tmp_path / "mac" / f"hands {then}" / now)
        (tmp_path / "mac" / f"hands {then}").rename(tmp_path / "mac" / f"hands {now}")
        again = read((tmp_path / "mac").rename(tmp_path / "linux") / "m.parquet")
        assert found_there(again) == [True]
        assert again.hash == before.hash

    def test_hashes_and_draws_do_not_depend_on_how_a_disk_spells(self, tmp_path: Path) -> None:
        names = [
            f"{name}{number}/{photo}.jpg" for name in ("Zo\u00eb", "\u00c5sa") for number in range(6) for photo in "abc"
        ]
        made = {}
        for form in ("NFC", "NFD"):
            manifest = sources.folders(touch(tmp_path / form, *(unicodedata.normalize(form, name) for name in names)))
            split = make_split(manifest, protocol="disjoint", label="subject")
            made[form] = (manifest.hash, split.hash, split.draws_hash)
        assert made["NFC"] == made["NFD"]
        assert hash_key(0, "gallery", 1, APART) == hash_key(0, "gallery", 1, COMPOSED)

    def test_every_text_is_composed_and_an_unlike_metadata_value_is_not_two(self, tmp_path: Path) -> None:
        rows = [f"1.jpg,a,{APART},{APART}", f"2.jpg,b,{COMPOSED},{COMPOSED}"]
        manifest = read(csv_of(tmp_path, *rows, header="path,subject,camera,town"))
        assert manifest.table["camera"].to_list() == manifest.table["town"].to_list() == [COMPOSED, COMPOSED]

    def test_a_manifest_made_in_python_is_composed_too(self, tmp_path: Path) -> None:
        manifest = Manifest(pl.DataFrame({"path": ["1.jpg"], "subject": [APART]}), tmp_path)
        assert manifest.table["subject"].to_list() == [COMPOSED]


def similar(*names: str | None) -> str:
    found = list(similar_names(names))
    return found[0][0] if found else ""


class TestSimilarNames:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("Ann", "ann"),
            ("STRASSE", "Stra\u00dfe"),
            ("Ann", "\uff21nn"),
            ("Ann Lee", "Ann\u00a0Lee"),
            ("Ann Lee", "Ann  Lee"),
            ("Ann Lee", "AnnLee"),
            ("Ann Lee", "Ann\u3000Lee"),
            ("Ann", "Ann\u200b"),
            ("Ann", "\ufeffAnn"),
            ("Ann", "An\u00adn"),
            ("Ann", "\u202eAnn"),
            ("Ann", "Ann\ufe0f"),
            ("Ann", "Ann\u2060"),
            ("Ann", "A\x7fnn"),
            ("Jos\u00e9", "Jose\u200b\u0301"),
            ("Ann", "Ann\u3164"),
        ],
    )
    def test_differ_only_by_what_nobody_sees_or_means(self, one: str, other: str) -> None:
        assert f"{visible(min(one, other))} and {visible(max(one, other))}" in similar(one, other, "Ben", None)

    @pytest.mark.parametrize(
        ("one", "other"),
        [("Ann", "Anna"), ("p_1", "p1"), ("p-1", "p1"), ("a", "\u0430"), ("0007", "7"), ("Jose", "Jos\u00e9")],
    )
    def test_other_names_are_others(self, one: str, other: str) -> None:
        assert similar(one, other, one) == ""

    def test_groups_are_listed_visibly_with_their_rows(self, tmp_path: Path) -> None:
        names = ["Ann", "ann", "Bob", "Bo\u200bb", "Carl", "ANN"]
        table = pl.DataFrame({"path": [f"{row}.jpg" for row in range(6)], "subject": names})
        (error,) = [one for one in check(Manifest(table, tmp_path), pixels=False) if one.kind == "similar-names"]
        assert error == Finding("error", "similar-names", error.message, (0, 1, 2, 3, 5))
        assert error.message == (
            "5 names of subjects differ only by case, width, blanks or invisible characters, so that one person may be "
            "several: 'ANN' and 'Ann' and 'ann'; 'Bob' and 'Bo\\u200bb'; give each person one name"
        )


def test_what_nobody_sees_is_escaped() -> None:
    assert visible("a\u00a0b \u200bc\x1b[31m") == "'a\\xa0b \\u200bc\\x1b[31m'"
    assert visible(COMPOSED) == f"'{COMPOSED}'"
    assert nfc(APART) == COMPOSED
