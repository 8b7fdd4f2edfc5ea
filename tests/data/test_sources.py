"""Sources: the layouts on disk, and the ways in which they are broken."""

import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

from handreid.data import sources
from handreid.data.manifest import Manifest
from handreid.data.sources import files
from handreid.data.sources.files import files_below
from handreid.errors import ManifestError

HEADER = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities"
SHARED = Path(__file__).parents[3] / "shared" / "data"


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
    assert "1 photos are missing, their rows are left out: Hands/Hand_1.jpg" in manifest.notes
    assert "1 photos that are not in HandInfo.csv, left out: Hands/Hand_3.jpg" in manifest.notes


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
    with pytest.raises(ManifestError, match=r"no column 'aspectOfHand'.*its columns are id, imageName"):
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
    assert "1 files that are not photos left out: 1 .txt" in manifest.notes


def test_hd_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    touch(tmp_path / "a", ["1-501/1_1.jpg", "1-501/hand.jpg", "502-712/502_1.jpg"])
    with pytest.raises(ManifestError, match=r"1 photos are not named ID_n, such as 12_3\.jpg: 1-501/hand\.jpg"):
        sources.hd(tmp_path / "a")
    with pytest.raises(ManifestError, match=r"no folder '502-712' with photos; found 1-501.*easier"):
        sources.hd(touch(tmp_path / "b", ["1-501/1_1.jpg"]))
    with pytest.raises(ManifestError, match=r"ids of 1-501 collide with ids of 502-712 \+ 1000: 1502"):
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
        "2 files that are not photos left out: 1 .txt, 1 hidden",
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
        (["1.jpg", "a/1.jpg"], r"1 photos are beside the identity folders instead of in one \(1.jpg\)"),
        (["train/0001_c1.jpg", "test/a/1.jpg"], r"1 photos are beside .*train/0001_c1.jpg.*prepare csv"),
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
    (touch(tmp_path, ["a.jpg"]) / "hands.csv").write_text("path,subject,camera,finger\na.jpg,1,front,3\n")
    manifest = sources.csv(tmp_path / "hands.csv")
    assert manifest.root == tmp_path
    assert manifest.metadata == ("finger",)
    assert manifest.table["camera"].to_list() == ["front"]
    assert manifest.notes == ("1 photos; metadata columns: finger",)


def people(manifest: Manifest) -> dict[str, int]:
    return dict(manifest.table.group_by("subject").len().rows())


def no_right(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """This folder may not be listed, whoever asks: as root, the tests could not take the right away."""
    listed = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)


class TestWalk:
    @pytest.mark.parametrize("source", [sources.folders, sources.hd])
    def test_a_folder_that_cannot_be_listed_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Callable[[Path], Manifest]
    ) -> None:
        touch(tmp_path, ["1-501/1_1.jpg", "502-712/502_1.jpg", "1-501/deep/er/2_1.jpg"])
        no_right(monkeypatch, "er")
        with pytest.raises(ManifestError, match=rf"{tmp_path}/1-501/deep/er cannot be read \(Permission denied\)"):
            source(tmp_path)

    def test_a_link_whose_target_cannot_be_looked_at_is_an_error(self, tmp_path: Path) -> None:
        touch(tmp_path, ["a/1.jpg"])
        (tmp_path / "a" / "2.jpg").symlink_to("x" * 300)
        with pytest.raises(ManifestError, match=r"a/2\.jpg cannot be read \(File name too long\)"):
            sources.folders(tmp_path)

    def test_links_to_folders_neither_multiply_photos_nor_lead_in_circles(self, tmp_path: Path) -> None:
        touch(tmp_path / "photos", ["anna/1.jpg", "anna/monday/2.jpg", "ben/1.jpg"])
        for link, to in (
            ("photos/anna/again", "photos/anna/monday"),
            ("photos/anna/up", "photos"),
            ("photos/anna/monday/loop", "photos/anna"),
            ("photos/aaron", "photos/ben"),
        ):
            (tmp_path / link).symlink_to(tmp_path / to, target_is_directory=True)
        found = sources.folders(tmp_path / "photos")
        assert people(found) == {"anna": 2, "ben": 1}
        assert any(note.startswith("4 links to folders that are already included") for note in found.notes)
        assert (
            "1 identity folders hold no readable photo, so these identities are left out: aaron (a link to ben)"
            in found.notes
        )

    def test_linked_folders_from_elsewhere_are_entered(self, tmp_path: Path) -> None:
        touch(tmp_path, ["disk/1.jpg", "photos/ben/1.jpg"])
        (tmp_path / "photos" / "anna").symlink_to(tmp_path / "disk", target_is_directory=True)
        assert people(sources.folders(tmp_path / "photos")) == {"anna": 1, "ben": 1}

    def test_draws_of_a_prepared_tree_may_be_links_to_the_same_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, ["all/anna/1.jpg", "all/ben/2.jpg", "root/train/carl/1.jpg"])
        for draw in ("query0", "gallery0", "query1", "gallery1"):
            (tmp_path / "root" / draw).mkdir()
            for person in ("anna", "ben"):
                (tmp_path / "root" / draw / person).symlink_to(tmp_path / "all" / person, target_is_directory=True)
        assert people(sources.folders(tmp_path / "root")) == {"anna": 4, "ben": 4, "carl": 1}

    def test_a_file_under_two_names_counts_once_for_a_person(self, tmp_path: Path) -> None:
        touch(tmp_path, ["anna/1.jpg", "anna/2.jpg", "ben/1.jpg"])
        (tmp_path / "anna" / "0.jpg").symlink_to(tmp_path / "anna" / "1.jpg")
        os.link(tmp_path / "anna" / "2.jpg", tmp_path / "anna" / "3.jpg")
        found = sources.folders(tmp_path)
        assert found.table["path"].to_list() == ["anna/1.jpg", "anna/2.jpg", "ben/1.jpg"]
        assert any(
            note.endswith("left out: anna/0.jpg is anna/1.jpg, anna/3.jpg is anna/2.jpg") for note in found.notes
        )

    def test_a_file_of_two_people_stays_with_both_so_that_check_tells(self, tmp_path: Path) -> None:
        touch(tmp_path, ["anna/1.jpg"])
        (tmp_path / "ben").mkdir()
        os.link(tmp_path / "anna" / "1.jpg", tmp_path / "ben" / "1.jpg")
        assert people(sources.folders(tmp_path)) == {"anna": 1, "ben": 1}

    def test_links_to_nothing_are_absent_photos(self, tmp_path: Path) -> None:
        touch(tmp_path, ["anna/1.jpg"])
        for name in ("anna/2.jpg", "ben", "loop"):
            (tmp_path / name).symlink_to(tmp_path / ("loop" if name == "loop" else "gone"))
        with pytest.raises(ManifestError, match=r"3 photos or folders are broken links: anna/2\.jpg, ben, l"):
            sources.folders(tmp_path)
        found = sources.folders(tmp_path, allow_missing=True)
        assert people(found) == {"anna": 1}
        assert any("are left out: ben (a broken link), loop (a broken link)" in note for note in found.notes)

    def test_pipes_and_sockets_are_no_photos(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, ["anna/1.jpg"])
        os.mkfifo(tmp_path / "anna" / "2.jpg")
        monkeypatch.chdir(tmp_path / "anna")  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("3.jpg")
            found = sources.folders(tmp_path)
        assert people(found) == {"anna": 1}
        assert "2 files that are not photos left out: 2 special (neither file nor folder)" in found.notes

    def test_left_out_files_are_told_by_kind_and_a_lost_person_by_name(self, tmp_path: Path) -> None:
        """Case 5: what a phone and the web give."""
        touch(
            tmp_path, ["anna/1.jpg", "anna/2.jfif", "anna/3.JPE", "ben/1.avif", "ben/2.gif", "ben/3.TIF", "ben/4.webp"]
        )
        touch(tmp_path, ["carl/1.jp2", "carl/2.JP2", "anna/9.dng", "anna/.DS_Store", "ben/.DS_Store", "ben/Thumbs.db"])
        (tmp_path / "dora").mkdir()
        found = sources.folders(tmp_path)
        assert people(found) == {"anna": 3, "ben": 4}
        kinds = "2 .jp2, 1 .dng (anna/9.dng, carl/1.jp2, carl/2.JP2)"
        assert found.notes[1:] == (
            "2 identity folders hold no readable photo, so these identities are left out: carl (2 .jp2), dora (empty)",
            f"3 photos that cannot be read left out: {kinds}; save them as JPEG or PNG",
            "3 files that are not photos left out: 2 .DS_Store, 1 .db",
        )

    def test_heic_says_what_would_read_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "PHOTO_SUFFIXES", (".jpg",))
        monkeypatch.setattr(files, "_HEIF_IS_READ", False)
        touch(tmp_path, ["anna/1.jpg", "carl/1.heic", "carl/2.HEIF"])
        found = sources.folders(tmp_path)
        assert any("are left out: carl (1 .heic, 1 .heif)" in note for note in found.notes)
        assert any(note.endswith("save them as JPEG or PNG, or install pillow-heif for HEIC") for note in found.notes)

    def test_heic_that_cannot_be_opened_is_no_photo(self, tmp_path: Path) -> None:
        heif = pytest.importorskip("pillow_heif")
        touch(tmp_path, ["anna/1.jpg", "carl/1.heic"])
        (tmp_path / "carl" / "2.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
        heif.from_pillow(Image.new("RGB", (64, 64))).save(tmp_path / "anna" / "2.heic")
        found = sources.folders(tmp_path)
        assert found.table["path"].to_list() == ["anna/1.jpg", "anna/2.heic"]
        assert any("are left out: carl (2 .heic)" in note for note in found.notes)

    def test_a_folder_without_any_photo_says_what_it_holds(self, tmp_path: Path) -> None:
        touch(tmp_path, ["carl/1.jp2", "carl/notes.txt"])
        with pytest.raises(ManifestError, match=r"no photos below this folder\n1 photos that cannot be read .*1 \.jp2"):
            sources.folders(tmp_path)

    def test_a_person_lost_in_one_split_is_named_there(self, tmp_path: Path) -> None:
        touch(tmp_path, ["train/a/1.jpg", "train/carl/1.psd", "test/b/1.jpg", "test/carl/2.jpg", "val/notes.txt"])
        notes = sources.folders(tmp_path).notes
        lost = "these identities are left out: train/carl (1 .psd), val (1 .txt)"
        assert f"2 identity folders hold no readable photo, so {lost}" in notes

    def test_lost_ids_of_hd_are_named(self, tmp_path: Path) -> None:
        touch(tmp_path, ["1-501/1_1.jpg", "1-501/2_1.psd", "1-501/1_2.psd", "502-712/502_1.jpg", "502-712/503_1.psd"])
        notes = sources.hd(tmp_path).notes
        assert "2 ids are left out, as none of their photos exists: 2 of 1-501, 503 of 502-712" in notes

    def test_what_systems_put_there_is_not_looked_into(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, ["anna/1.jpg", "anna/@eaDir/1.jpg", ".git/a.jpg", "lost+found/x", "__MACOSX/anna/._1.jpg"])
        no_right(monkeypatch, "lost+found")
        found = sources.folders(tmp_path)
        assert people(found) == {"anna": 1}
        assert "4 hidden folders ignored: .git, __MACOSX, anna/@eaDir and 1 more" in found.notes

    def test_capitals_are_found(self, tmp_path: Path) -> None:
        names = [
            "Train/a/1.JPG",
            "train/a/1.jpg",
            "TEST/b/2.Jpeg",
            "gallery0/b/1.jpg",
            "Gallery0/c/1.jpg",
            "gallery0_all/b/1.jpg",
        ]
        found = sources.folders(touch(tmp_path, [*names, "query0/b/1.jpg"]))
        assert set(found.table["path"]) == {*names, "query0/b/1.jpg"} - {"gallery0/b/1.jpg", "Gallery0/c/1.jpg"}
        assert set(found.table["split"]) == {"train", "test", "query", "gallery"}

    def test_a_deep_and_a_wide_tree_are_walked(self, tmp_path: Path) -> None:
        deep = tmp_path / "anna"
        for _ in range(400):
            deep /= "d"
        deep.mkdir(parents=True)
        (deep / "1.jpg").touch()
        touch(tmp_path, [f"ben/{number}.jpg" for number in range(5000)])
        assert len(files_below(tmp_path).photos) == 5001


class TestHands11kInOtherCapitals:
    def test_folder_table_and_photos_are_found(self, tmp_path: Path) -> None:
        root = hands11k_root(tmp_path, ROWS, ["Hand_1.JPG", "HAND_2.jpg"])
        (root / "Hands").rename(root / "hands")
        (root / "HandInfo.csv").rename(root / "handinfo.CSV")
        found = sources.hands11k(root)
        assert found.table["path"].to_list() == ["hands/Hand_1.JPG", "hands/HAND_2.jpg"]
        assert all(path.is_file() for path in found.paths())
        assert "2 photos have names that differ in case: hands/Hand_1.JPG, hands/HAND_2.jpg" in found.notes

    def test_the_exact_name_goes_first(self, tmp_path: Path) -> None:
        root = hands11k_root(tmp_path, ROWS, ["Hand_1.jpg", "Hand_1.JPG", "Hand_2.jpg"])
        touch(root, ["hands/Hand_1.jpg"])
        found = sources.hands11k(root)
        assert found.table["path"].to_list() == ["Hands/Hand_1.jpg", "Hands/Hand_2.jpg"]
        assert any(note.startswith("2 photos that are not in HandInfo.csv, left out: ") for note in found.notes)

    def test_photos_in_another_folder_of_that_name_are_found(self, tmp_path: Path) -> None:
        root = hands11k_root(tmp_path, ROWS, ["Hand_1.jpg"])
        touch(root, ["hands/Hand_2.jpg"])
        assert sources.hands11k(root).table["path"].to_list() == ["Hands/Hand_1.jpg", "hands/Hand_2.jpg"]

    def test_what_could_be_two_is_not_guessed(self, tmp_path: Path) -> None:
        root = hands11k_root(tmp_path, ROWS, ["Hand_1.JPG", "hand_1.jpg", "Hand_2.jpg"])
        with pytest.raises(ManifestError, match=r"1 of the 2 photos .* \(Hands/Hand_1\.jpg\)"):
            sources.hands11k(root)
        for name in ("handinfo.csv", "HANDINFO.csv"):
            (root / name).write_bytes((root / "HandInfo.csv").read_bytes())
        (root / "HandInfo.csv").unlink()
        with pytest.raises(ManifestError, match=r"HANDINFO\.csv and handinfo\.csv could both be HandInfo\.csv"):
            sources.hands11k(root)

    def test_whoever_is_lost_with_missing_photos_is_named(self, tmp_path: Path) -> None:
        root = hands11k_root(tmp_path, ROWS, ["Hand_1.jpg"])
        notes = sources.hands11k(root, allow_missing=True).notes
        assert "1 subjects are left out, as none of their photos exists: 1200000" in notes
