"""Sources: the layouts on disk, and the ways in which they are broken."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from handreid.data import sources
from handreid.errors import ManifestError

HEADER = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities"
SHARED = Path(__file__).parents[2] / "shared" / "data"


def touch(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def hands11k_root(root: Path, rows: Iterable[str], photos: Iterable[str]) -> Path:
    touch(root, ["Hands/.keep", *(f"Hands/{name}" for name in photos)])
    (root / "HandInfo.csv").write_bytes("\r\n".join([HEADER, *rows, ""]).encode())
    return root


ROWS = (
    '"0000007",27,"male","fair",0,1,"dorsal right","Hand_1.jpg",0',
    '"1200000 ",54,"female","dark",1,0,"palmar left","Hand_2.jpg",1',
)


def test_hands11k_keeps_every_column_and_mends_the_space(tmp_path: Path) -> None:
    manifest = sources.hands11k(hands11k_root(tmp_path, ROWS, ["Hand_1.jpg", "Hand_2.jpg"]))
    assert manifest.dataset == "hands11k"
    first, second = manifest.table.rows(named=True)
    assert first["path"] == "Hands/Hand_1.jpg"
    assert (first["subject"], first["aspect"], first["side"]) == ("0000007", "dorsal", "right")
    names = ("age", "gender", "skin_color", "accessories", "nail_polish", "irregularities")
    assert tuple(first[name] for name in names) == (27, "male", "fair", 0, 1, 0)
    assert (second["subject"], second["origin"]) == ("1200000", "HandInfo.csv line 3")
    assert "1 ids had a space, dropped: HandInfo.csv line 3" in manifest.notes


def test_hands11k_stops_at_absent_photos_unless_allowed(tmp_path: Path) -> None:
    root = hands11k_root(tmp_path, ROWS, ["Hand_2.jpg", "Hand_3.jpg", "Thumbs.db"])
    with pytest.raises(ManifestError, match=r"1 of the 2 photos .* \(Hands/Hand_1.jpg\).*--allow-missing"):
        sources.hands11k(root)
    manifest = sources.hands11k(root, allow_missing=True)
    assert manifest.table["path"].to_list() == ["Hands/Hand_2.jpg"]
    assert "1 photos absent, their rows left out: Hands/Hand_1.jpg" in manifest.notes
    assert "1 photos that HandInfo.csv does not name, left out: Hands/Hand_3.jpg" in manifest.notes


def test_hands11k_without_any_photo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none of the 2 photos"):
        sources.hands11k(hands11k_root(tmp_path, ROWS, []), allow_missing=True)
    with pytest.raises(ManifestError, match=r"HandInfo\.csv: no such file"):
        sources.hands11k(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "dorsal right",
            "dorsal rigth",
            "line 2: aspectOfHand 'dorsal rigth' is not one of .*did you mean 'dorsal right'",
        ),
        ("0000007", "seven", "line 2: id 'seven' is not a number"),
        (",27,", ",old,", "line 2: age 'old' is not a number of years"),
        (",0,1,", ",2,1,", "line 2: accessories '2' is not 0 or 1"),
    ],
)
def test_hands11k_names_the_line_of_a_wrong_value(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = hands11k_root(tmp_path, [ROWS[0].replace(old, new), ROWS[1]], ["Hand_1.jpg", "Hand_2.jpg"])
    with pytest.raises(ManifestError, match=message):
        sources.hands11k(root)


def test_hands11k_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "HandInfo.csv").write_text("id,imageName\n1,a.jpg\n")
    with pytest.raises(ManifestError, match=r"no column 'aspectOfHand'.*the columns are id, imageName"):
        sources.hands11k_metadata(tmp_path / "HandInfo.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not beside the repository")
def test_hands11k_on_the_real_photos() -> None:
    full = sources.hands11k_metadata(SHARED / "hands11k-180" / "HandInfo.csv")
    assert len(full) == 11_076
    assert "1200000" in set(full.table["subject"])
    for name, photos in (("hands11k-180", 1881), ("hands11k-640", 849)):
        manifest = sources.hands11k(SHARED / name, allow_missing=True)
        assert len(manifest) == photos
        assert any(f"{photos:,} photos of 11,076" in note for note in manifest.notes)


def test_hd_tells_people_from_distractors(tmp_path: Path) -> None:
    names = ["1-501/1_1.jpg", "1-501/1_2.BMP", "1-501/deeper/448_1.JPG", "502-712/1_1.jpg", "502-712/x/700_2.png"]
    manifest = sources.hd(touch(tmp_path, [*names, "readme.txt", "other/9_9.jpg"]))
    rows = {row["path"]: row for row in manifest.table.rows(named=True)}
    assert rows.keys() == set(names)
    assert rows["1-501/1_2.BMP"]["subject"] == "1"
    assert rows["502-712/1_1.jpg"]["subject"] == "1001"
    assert rows["502-712/x/700_2.png"]["split"] == "distractor"
    assert {row["aspect"] for row in rows.values()} == {"dorsal"}
    assert manifest.notes[:2] == ("1-501: 3 photos of 2 ids", "502-712: 2 photos of 2 ids")
    assert "1 photos in other folders left out: other/9_9.jpg" in manifest.notes
    assert "1 files that are not photos left out: readme.txt" in manifest.notes


def test_hd_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    touch(tmp_path / "a", ["1-501/1_1.jpg", "1-501/hand.jpg", "502-712/502_1.jpg"])
    with pytest.raises(ManifestError, match=r"1 photos are not named ID_n, such as 12_3\.jpg: 1-501/hand\.jpg"):
        sources.hd(tmp_path / "a")
    with pytest.raises(ManifestError, match=r"no folder '502-712' with photos; found 1-501.*easier"):
        sources.hd(touch(tmp_path / "b", ["1-501/1_1.jpg"]))
    with pytest.raises(ManifestError, match=r"ids of 1-501 are ids of 502-712 \+ 1000: 1502"):
        sources.hd(touch(tmp_path / "c", ["1-501/1502_1.jpg", "502-712/502_1.jpg"]))


def test_plain_folders(tmp_path: Path) -> None:
    manifest = sources.folders(
        touch(tmp_path, ["bob/1.jpg", "bob/monday/2.PNG", "ann/1.jpg", "ann/._1.jpg", "notes.txt"])
    )
    assert dict(manifest.table.select("path", "subject").rows()) == {
        "ann/1.jpg": "ann",
        "bob/1.jpg": "bob",
        "bob/monday/2.PNG": "bob",
    }
    assert manifest.table["split"].null_count() == 3
    assert manifest.notes == (
        "3 photos of 2 identities",
        "2 files that are not photos left out: ann/._1.jpg, notes.txt",
    )


def test_split_folders(tmp_path: Path) -> None:
    names = [
        "train/a/1.jpg",
        "val/a/2.jpg",
        "query0/b/1.jpg",
        "gallery0/b/2.jpg",
        "query12/b/2.jpg",
        "gallery12/b/1.jpg",
    ]
    manifest = sources.folders(touch(tmp_path, names))
    found = {row["path"]: (row["subject"], row["split"], row["draw"]) for row in manifest.table.rows(named=True)}
    assert found == {
        "train/a/1.jpg": ("a", "train", None),
        "val/a/2.jpg": ("a", "validation", None),
        "query0/b/1.jpg": ("b", "query", 0),
        "gallery0/b/2.jpg": ("b", "gallery", 0),
        "query12/b/2.jpg": ("b", "query", 12),
        "gallery12/b/1.jpg": ("b", "gallery", 12),
    }


def test_merged_gallery_replaces_the_easier_one(tmp_path: Path) -> None:
    """Trap 9: `gallery0_all` holds the distractors of the other aspects as well."""
    names = ["gallery0/b/1.jpg", "gallery0_all/b/1.jpg", "gallery0_all/c/1.jpg", "query0/b/2.jpg", "train/a/1.jpg"]
    manifest = sources.folders(touch(tmp_path, [*names, "train_all/a/1.jpg", "train_all/a/2.jpg"]))
    kept = {path.split("/")[0] for path in manifest.table["path"]}
    assert kept == {"gallery0_all", "query0", "train"}
    assert "gallery0 left out: gallery0_all is the merged one" in manifest.notes
    assert any(note.startswith("train_all left out: its photos are those of train") for note in manifest.notes)


def test_train_all_alone_trains(tmp_path: Path) -> None:
    manifest = sources.folders(touch(tmp_path, ["train_all/a/1.jpg", "test/b/1.jpg"]))
    assert manifest.table["split"].to_list() == ["test", "train"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "a/1.jpg"], r"1 photos lie beside the identity folders, not in one \(1.jpg\)"),
        (["train/0001_c1.jpg", "test/a/1.jpg"], r"1 photos lie beside .*train/0001_c1.jpg.*prepare csv"),
        (["train/a/1.jpg", "extra/a/1.jpg"], "train are splits, extra are not"),
        (["a/readme.txt"], "no photos below"),
    ],
)
def test_folders_refuse_other_layouts(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        sources.folders(touch(tmp_path, names))


def test_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        sources.folders(tmp_path / "nowhere")


def test_csv_carries_other_columns_along(tmp_path: Path) -> None:
    (tmp_path / "hands.csv").write_text("path,subject,camera,finger\na.jpg,1,front,3\n")
    manifest = sources.csv(tmp_path / "hands.csv")
    assert manifest.root == tmp_path
    assert manifest.metadata == ("finger",)
    assert manifest.table["camera"].to_list() == ["front"]
    assert manifest.notes == ("1 photos; metadata columns: finger",)
