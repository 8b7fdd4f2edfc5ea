"""Empty sides and aspects of a manifest, filled and marked as predicted."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from handreid.data import sources
from handreid.data.check import check
from handreid.data.describe import describe
from handreid.data.manifest import Manifest, read
from handreid.data.predicted_views import fill_views, predicted, rows_to_judge, view_notes, without_predictions
from handreid.data.rendered import render
from handreid.data.splits import make_split
from handreid.errors import DataError, ManifestError
from tests.cli.test_commands import complaint, handreid

ROW = pl.int_range(pl.len())


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """3 people, 4 views of each, with the renderer's own landmarks and handedness."""
    return sources.csv(render(tmp_path_factory.mktemp("hands") / "all", identities=3, photos=4, size=64, workers=1))


def emptied(manifest: Manifest, side: pl.Expr, aspect: pl.Expr, **columns: pl.Expr) -> Manifest:
    """Without side and aspect in these rows; `columns` are changed as well."""
    empty = {name: pl.when(~rows).then(pl.col(name)) for name, rows in (("side", side), ("aspect", aspect))}
    return replace(manifest, table=manifest.table.with_columns(**empty, **columns))


def test_what_is_empty_is_filled_and_marked(truth: Manifest):
    """Both empty in rows 0 to 3, the side in 4 and 5, the aspect in 6 and 7."""
    gaps = emptied(truth, ROW < 6, (ROW < 4) | ROW.is_between(6, 7))
    filled = fill_views(gaps)
    assert filled.table.select("side", "aspect").equals(truth.table.select("side", "aspect"))
    assert filled.table["side_probability"].is_not_null().arg_true().to_list() == [0, 1, 2, 3, 4, 5]
    assert filled.table["aspect_probability"].is_not_null().arg_true().to_list() == [0, 1, 2, 3, 6, 7]
    assert filled.table["side_probability"][4] == 0.9998  # .997 x .95 against .003 x .05: thumb and handedness agree
    assert predicted(filled) == {"side": 6, "aspect": 6}
    assert view_notes(filled) == [
        "views: side of 6 and aspect of 6 photos predicted, by landmarks; known: 6 and 6 of 12"
    ]
    assert "side_probability" not in filled.metadata
    assert filled.hash != truth.hash
    assert without_predictions(filled).hash == gaps.hash
    assert fill_views(truth).hash == truth.hash


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_marks_survive_a_file(truth: Manifest, suffix: str):
    filled = fill_views(emptied(truth, ROW < 6, ROW > 7))
    path = truth.root / f"filled{suffix}"
    filled.write(path)
    again = read(path)
    path.unlink()
    assert again.hash == filled.hash
    assert predicted(again) == {"side": 6, "aspect": 4}


def test_predictions_are_made_anew_and_known_values_are_kept(truth: Manifest):
    """A prediction is no knowledge: with other evidence it changes, and below the threshold it goes."""
    score = pl.lit(0.8).alias("handedness_score")
    filled = fill_views(emptied(truth, ROW < 2, ROW < 2, handedness_score=score), threshold=0.75)
    assert filled.table["side_probability"][0] == round(0.8 * 0.997, 4)
    assert rows_to_judge(filled) == [0, 1]
    backs = (truth.table["aspect"] == "dorsal").to_list()
    again = fill_views(filled, {0: 0.99 if backs[0] else 0.01, 1: 0.01 if backs[1] else 0.99})
    turned = "palmar" if backs[1] else "dorsal"
    assert again.table["aspect"].to_list() == [truth.table["aspect"][0], turned, *truth.table["aspect"][2:]]
    assert again.table["side"][1] != truth.table["side"][1]  # the thumb ties it to the aspect
    unsure = fill_views(again, threshold=0.9)
    assert unsure.table["side"].head(2).to_list() == [None, None]
    assert predicted(unsure) == {"side": 0, "aspect": 0}
    assert len(view_notes(unsure)) == 2
    assert "2 photos left without side or aspect, as it is less than 90.0% probable: Hands/" in view_notes(unsure)[1]


def test_photos_without_a_hand_stay_empty(truth: Manifest):
    gone = {"hands": pl.when(ROW < 3).then(0).otherwise("hands")}
    gone["landmarks"] = pl.when(ROW >= 3).then(pl.col("landmarks"))
    filled = fill_views(emptied(truth, ROW < 5, ROW < 5, **gone))
    assert filled.table["side"].null_count() == 3
    assert "3 photos left without side or aspect, as no hand was found: " in view_notes(filled)[1]
    bare = replace(truth, table=truth.table.drop("landmarks", "hands", "handedness"))
    assert fill_views(bare).hash == bare.hash
    assert rows_to_judge(emptied(bare, ROW < 5, ROW < 5)) == []


def test_contradictions_are_named_and_not_changed(truth: Manifest):
    other = {"left": "right", "right": "left"}
    wrong = replace(truth, table=truth.table.with_columns(side=pl.when(ROW == 7)
                    .then(pl.lit(other[truth.table["side"][7]])).otherwise("side")))  # fmt: skip
    filled = fill_views(wrong)
    assert filled.hash == wrong.hash
    said = "views: 1 photos whose known side and aspect do not fit where the thumb lies, left as they are: "
    assert said + truth.table["path"][7] in view_notes(filled)
    (finding,) = [one for one in check(wrong, pixels=False) if one.kind == "contradiction"]
    assert finding.rows == (7,)


def test_results_say_that_views_are_predicted(truth: Manifest):
    filled = fill_views(emptied(truth, ROW < 6, ROW < 4))
    findings = [one for one in check(filled, pixels=False) if one.kind == "predicted"]
    assert [len(one.rows) for one in findings] == [6, 4]
    assert describe(filled)["predicted"] == {"side": 6, "aspect": 4}
    note = "predicted, not known, are side of 6 and aspect of 4 of 12 photos with a subject"
    assert note in make_split(filled, protocol="disjoint", label="subject", trains=False).notes
    assert not any(
        "predicted" in note for note in make_split(truth, protocol="disjoint", label="subject", trains=False).notes
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"side": "", "side_probability": "0.9"}, "hands.csv line 2: side_probability 0.9 without side"),
        ({"aspect": "dorsal", "aspect_probability": "1.5"}, "aspect_probability 1.5 is not from 0 to 1"),
        ({"aspect_probability": "0.7"}, "aspect_probability 0.7 without aspect"),
        ({"side": "left", "side_probability": "sure"}, "wrong type"),
    ],
)
def test_wrong_marks_are_refused(tmp_path: Path, columns: dict[str, str], message: str):
    names, values = ",".join(["path", "subject", *columns]), ",".join(["a.jpg", "anna", *columns.values()])
    (tmp_path / "hands.csv").write_text(f"{names}\n{values}\n")
    with pytest.raises(ManifestError, match=message):
        sources.csv(tmp_path / "hands.csv", allow_missing=True)


@pytest.mark.parametrize("threshold", [0.4, 1.1, float("nan")])
def test_a_wrong_threshold_is_refused(truth: Manifest, threshold: float):
    with pytest.raises(DataError, match=r"give a probability from 0\.5 to 1"):
        fill_views(truth, threshold=threshold)


def test_the_command_keeps_landmarks_that_are_there(truth: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So it needs no landmarker: the renderer's own points are used, and nothing is searched."""
    monkeypatch.setenv("HANDREID_LANDMARKER", str(tmp_path / "none.task"))
    gaps, out = tmp_path / "gaps.parquet", tmp_path / "filled.parquet"
    emptied(truth, ROW < 6, ROW < 6).write(gaps)
    called = handreid("data", "landmarks", gaps, "--fill-views", "--out", out)
    assert (called.code, called.err) == (0, "")
    assert "note: views: side of 6 and aspect of 6 photos predicted" in called.out
    filled = read(out)
    assert filled.table.select("side", "aspect", "landmarks").equals(truth.table.select("side", "aspect", "landmarks"))
    assert "predicted, not known: side of 6 photos, aspect of 6 photos" in handreid("data", "describe", out).out
    assert "warning: side is predicted for 6 of 12 photos" in handreid("data", "check", out, "--no-pixels").out


def test_options_that_do_nothing_are_refused(truth: Manifest, tmp_path: Path):
    gaps, out = tmp_path / "gaps.parquet", tmp_path / "filled.parquet"
    truth.write(gaps)
    words = ("data", "landmarks", gaps, "--out", out)
    assert "--threshold works with --fill-views only" in complaint(*words, "--threshold", "0.8")
    assert "--model works with --fill-views only" in complaint(*words, "--model", tmp_path)
    assert "the threshold is 0.3: give a probability" in complaint(*words, "--fill-views", "--threshold", "0.3")
    assert "is not a run folder" in complaint(*words, "--fill-views", "--model", tmp_path)
    assert not out.exists()
