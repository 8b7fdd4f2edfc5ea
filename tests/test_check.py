"""`check` finds what was put wrong, and nothing else."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data import sources
from handreid.data.check import Finding, check
from handreid.data.manifest import Manifest

SHARED = Path(__file__).parents[2] / "shared" / "data"
PEOPLE = {"a": 3, "b": 3, "c": 2}


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    """Noise, different in every photo: JPEG, PNG and BMP."""
    random = np.random.default_rng(0)
    rows = []
    for who, count in PEOPLE.items():
        (tmp_path / who).mkdir()
        for number in range(count):
            path = f"{who}/{number}.{('jpg', 'png', 'bmp')[number]}"
            Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / path)
            rows.append({"path": path, "subject": who, "origin": f"hands.csv line {len(rows) + 2}"})
    return Manifest(pl.DataFrame(rows), tmp_path)


def put(manifest: Manifest, column: str, values: list[str | None]) -> Manifest:
    return Manifest(manifest.table.with_columns(pl.Series(column, values, dtype=pl.String)), manifest.root)


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.kind) for finding in findings]


def test_sound_photos_give_no_finding(photos: Manifest) -> None:
    heard: list[int] = []
    assert check(photos, progress=heard.append) == []
    assert sum(heard) == len(photos)


def test_missing_photos_are_named_once(photos: Manifest) -> None:
    (photos.root / "a" / "1.png").unlink()
    (found,) = check(photos)
    assert (found.severity, found.kind, found.rows) == ("error", "missing", (1,))
    assert "1 of 8 photos" in found.message
    assert "a/1.png (hands.csv line 3)" in found.message
    assert check(photos, pixels=False) == [found]


@pytest.mark.parametrize("name", ["a/0.jpg", "a/1.png", "a/2.bmp"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_photos_are_found_by_decoding(photos: Manifest, name: str, damage: str) -> None:
    path = photos.root / name
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) * 2 // 3], "empty": b"", "text": b"not a photo"}[damage])
    (found,) = check(photos)
    assert (found.severity, found.kind) == ("error", "unreadable")
    assert f"{name} (hands.csv line " in found.message
    assert check(photos, pixels=False) == []


def test_same_pixels_under_two_subjects_whatever_the_format(photos: Manifest) -> None:
    with Image.open(photos.root / "a" / "1.png") as image:
        image.save(photos.root / "b" / "2.bmp")
    (found,) = check(photos)
    assert (found.severity, found.kind, found.rows) == ("error", "same-pixels", (1, 5))
    assert "under 2 subjects (a, b): a/1.png (hands.csv line 3), b/2.bmp (hands.csv line 7)" in found.message


def test_same_pixels_twice_under_one_subject_warn(photos: Manifest) -> None:
    (photos.root / "a" / "0.jpg").write_bytes((photos.root / "a" / "1.png").read_bytes())
    (found,) = check(photos)
    assert (found.severity, found.kind, found.rows) == ("warning", "same-pixels", (0, 1))


def test_copies_in_the_draws_of_a_prepared_tree_are_no_repetition(tmp_path: Path) -> None:
    for folder in ("train/x", "query0/a", "gallery1/a"):
        (tmp_path / folder).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for name, which in (("train/x/0.png", 0), ("train/x/1.png", 1), ("query0/a/0.png", 2), ("gallery1/a/0.png", 2)):
        Image.fromarray(noise[which]).save(tmp_path / name)
    assert check(sources.folders(tmp_path)) == []


def test_wrong_values_are_findings_when_a_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "hands.csv").write_text("path,subject,side\na.jpg,1,rigth\n")
    (found,) = check(tmp_path / "hands.csv")
    assert (found.severity, found.kind) == ("error", "value")
    assert found.message == "hands.csv line 2: side 'rigth' is not one of left, right (did you mean 'right'?)"


def test_subject_on_both_sides_of_a_split(photos: Manifest) -> None:
    split = ["train", "train", "test", "validation", "validation", "query", "train", "train"]
    found = check(put(photos, "split", split), pixels=False)
    assert kinds(found) == [("error", "both-sides"), ("error", "both-sides")]
    assert found[0].message == "1 subjects train and are tested: a"
    assert found[1].message == "1 subjects choose the model and are tested: b"
    assert found[0].rows == (0, 1, 2)


def test_distractors_are_on_no_side(photos: Manifest) -> None:
    split = ["train", "train", "distractor", "train", "train", "train", "test", "test"]
    assert check(put(photos, "split", split), pixels=False) == []


def test_identities_with_one_photo_are_counted(photos: Manifest) -> None:
    aspect, side = ["dorsal"] * 8, ["left"] * 7 + ["right"]
    found = check(put(put(photos, "aspect", aspect), "side", side), pixels=False)
    assert kinds(found) == [("warning", "single-photo")] * 2
    assert found[0].message == "2 of 4 identities (label hand) have one photo only: c/left, c/right"
    assert found[0].rows == (6, 7)


def test_truncation_is_found_where_others_tolerate_it(photos: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    path = photos.root / "a" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert kinds(check(photos)) == [("error", "unreadable")]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not beside the repository")
def test_the_six_of_11k_hands_are_named(tmp_path: Path) -> None:
    """On the complete table, and in under a second without the pixels."""
    sources.hands11k_metadata(SHARED / "hands11k-180" / "HandInfo.csv").write(tmp_path / "m.parquet")
    began = time.perf_counter()
    found = check(tmp_path / "m.parquet", pixels=False)
    assert time.perf_counter() - began < 1
    (six,) = [finding for finding in found if finding.kind == "both-sides"]
    assert six.severity == "warning"
    assert "test in another: 0001039, 0001042, 0001043, 0001046, 0001050, 0001051;" in six.message


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not beside the repository")
def test_the_real_photos_have_no_error() -> None:
    found = check(sources.hands11k(SHARED / "hands11k-180", allow_missing=True))
    assert {finding.severity for finding in found} == {"warning"}
