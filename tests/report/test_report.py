"""The report as a file: what is on it, what must not be, and what it does where something is missing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from handreid.data.manifest import Manifest, read
from handreid.evaluation.embed import PhotoTable
from handreid.evaluation.evaluate import evaluate
from handreid.recipe import builtin_names, load_recipe, parse_recipe
from handreid.report.page.data_card import short_command
from handreid.report.page.interval_chart import dots
from handreid.report.page.summary_text import describe_run
from handreid.report.page.write import write_report
from handreid.runs.folder import Run
from handreid.runs.results import Metric
from handreid.training.train import train
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import edit

_PHOTO = re.compile(r"data:image/")


def words(page: Path) -> str:
    """What stands on the page, without markup, styles and scripts."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


@pytest.fixture
def runs(ladder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(ladder, tmp_path / "ladder"))


class TestWhatIsOnIt:
    def test_every_run_with_its_numbers(self, report: Path, ladder: Path):
        told = words(report)
        for name in ("micro-zero", "micro-slow", "micro-fast"):
            metrics = json.loads((ladder / name / "evaluation.json").read_text())["metrics"]
            for key in ("rank1", "map"):
                low, value, high = (f"{100 * metrics[key][end]:.1f}" for end in ("low", "value", "high"))
                assert f"{value} [{low}, {high}]" in told
            assert f"what {name} is about" in told
        assert "+ re-ranking k1=4, k2=2, lambda=0.3" in told

    def test_what_was_done_is_said_in_words(self, report: Path):
        told = words(report)
        assert "the encoder is trained for 3 epochs in batches of 8 photos with cross-entropy" in told
        assert "an identity-disjoint split" in told

    def test_curves_are_the_runs_own(self, report: Path, ladder: Path):
        data = data_of(report)
        metrics = json.loads((ladder / "micro-fast/evaluation.json").read_text())["metrics"]
        curve = next(one for one in data["cmc"] if one["name"] == "micro-fast")
        assert 0 < curve["y"][0] < curve["y"][4]  # or it could be any curve
        assert curve["y"][0] == pytest.approx(100 * metrics["rank1"]["value"], abs=0.01)
        assert curve["y"][4] == pytest.approx(100 * metrics["rank5"]["value"], abs=0.01)
        lines = [json.loads(line) for line in (ladder / "micro-fast/metrics.jsonl").read_text().splitlines()]
        panels = {panel["title"]: panel for panel in data["training"]["micro-fast"]}
        loss = next(one for one in panels["Loss, and its terms"]["series"] if one["name"] == "loss")
        assert loss["y"] == pytest.approx([line["loss"] for line in lines], rel=1e-4)
        best = max(lines, key=lambda line: line["validation_map"])["epoch"]
        assert panels["Validation, %"]["kept"] == [best]
        assert "micro-zero" not in data["training"]

    def test_the_map_has_every_test_photo_once(self, report: Path, ladder: Path):
        data = data_of(report)["map"]
        photos = set(json.loads((ladder / "micro-fast/evaluation.json").read_text())["photos"])
        assert len(data["words"]) == len(data["planes"]["PCA"]["x"]) >= len(photos)
        for colouring in data["colourings"].values():
            assert sorted(i for group in colouring["groups"] for i in group["photos"]) == list(
                range(len(data["words"]))
            )

    def test_the_data_card_counts_who_was_seen_before(self, report: Path):
        assert re.search(r"Test subjects used for training: 0 of \d+\.", words(report))

    def test_a_person_who_was_trained_on_is_counted(self, ladder: Path):
        from dataclasses import replace

        from handreid.report.page.data_card import _leaks
        from handreid.runs.dataset import load_dataset
        from handreid.runs.folder import Run

        run = Run(ladder / "micro-fast")
        material = load_dataset(run.recipe, Path(run.facts["manifest"]))
        query = material.split.test[0].query[:1]
        leaking = replace(material, split=replace(material.split, train=query))
        assert "for training: 1 of" in _leaks(leaking)[0]

    def test_it_is_one_small_file_that_asks_for_nothing(self, report: Path):
        text = report.read_text()
        assert report.stat().st_size < 8e6
        assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
        assert "@import" not in text


class TestWhatIsNotOnIt:
    def test_without_photos_there_is_no_pixel_and_no_file_name(self, bare_report: Path, report: Path):
        assert _PHOTO.search(report.read_text())
        text = bare_report.read_text()
        assert not _PHOTO.search(text)
        assert not re.search(r"\d\.jpg", text)
        assert re.search(r"\d\.jpg", report.read_text())
        assert "first right answer at rank" in words(bare_report)  # rankings are told in names and marks

    def test_nobodys_folders(self, report: Path, ladder: Path):
        assert str(ladder.parent) not in report.read_text()
        assert short_command(["handreid", "train", "--data=/home/anna/x.csv", "/home/anna/r", "a/b"]) == (
            "handreid train --data=x.csv r a/b"
        )

    def test_names_of_people_are_text_and_never_markup(self, photos: Path, tmp_path: Path):
        plain = read(photos)
        rude = "<img src=x onerror=alert(1)></script>"
        named = plain.table.with_columns(subject=pl.lit(rude) + pl.col("subject"))
        Manifest(named, plain.root).write(tmp_path / "rude.parquet")
        recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages.0.epochs=1"])
        evaluate(train(recipe, tmp_path / "rude.parquet", tmp_path / "run"))
        page = write_report([tmp_path / "run"], tmp_path / "report.html")
        text = page.read_text()
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text
        assert text.count("</script>") == 3  # data, plotly, ours


class TestWhereSomethingIsMissing:
    def test_a_run_made_by_an_older_version(self, runs: Path, tmp_path: Path):
        for run in runs.iterdir():
            (run / "evaluation-embeddings.safetensors").unlink()
            edit(run / "evaluation.json", without=["separation"])
            for path in run.glob("stages/*/parameters.json"):
                path.unlink()
        page = write_report([runs], tmp_path / "report.html")
        assert "Compactness and separation" not in words(page)
        assert "first right answer at rank" in words(page)

    def test_photos_that_are_gone_leave_the_numbers(self, runs: Path, tmp_path: Path):
        for run in runs.iterdir():
            edit(run / "run.json", manifest=str(tmp_path / "gone.parquet"))
        told = words(write_report([runs], tmp_path / "report.html"))
        assert "There are no rankings and no map of" in told
        assert "gone.parquet" in told
        assert "Results" in told
        assert "The manifest cannot be read any more" in told

    def test_a_run_that_is_not_evaluated_is_left_out_and_named(self, runs: Path, tmp_path: Path):
        (runs / "micro-slow/evaluation.json").unlink()
        told = words(write_report([runs], tmp_path / "report.html", photos=False))
        assert "Not evaluated, and left out: micro-slow." in told

    def test_a_model_that_has_collapsed_has_rankings_and_no_map(
        self, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def alike(run: Run, known: PhotoTable, progress: object = None) -> np.ndarray:
            return np.tile(np.eye(1, 8, dtype=np.float32), (len(known.rows), 1))

        monkeypatch.setattr("handreid.report.photos.test_photos.embed_known", alike)
        told = words(write_report([ladder / "micro-fast"], tmp_path / "report.html"))
        assert "There is no map of micro-fast: all" in told
        assert "the model has collapsed" in told
        assert "first right answer at rank" in told

    def test_one_run_is_a_report_too(self, ladder: Path, tmp_path: Path):
        told = words(write_report([ladder / "micro-fast"], tmp_path / "report.html", photos=False))
        assert "compared with this" not in told
        assert "What changed between the runs" not in told


class TestTheCommand:
    def test_it_writes_the_page_and_says_how_large_it_is(self, ladder: Path, tmp_path: Path):
        called = handreid(
            "report", ladder, "--out", tmp_path / "page.html", "--by", "map", "--reference", "best", "--no-photos"
        )
        assert called.code == 0
        assert re.fullmatch(r"written to .*page\.html \(\d\.\d MB\)\n", called.out)
        assert "mAP against micro-" in words(tmp_path / "page.html")

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["nowhere"], "nowhere is neither a run folder nor a folder of runs"),
            (["{ladder}", "--out", "page.pdf"], "page.pdf: the suffix must be .html, not '.pdf'"),
            (["{ladder}", "--show", "mycro"], "no run of this report has the name 'mycro'; the names are micro-"),
            (["{ladder}", "--by", "accuracy"], "Invalid value for '--by'"),
        ],
    )
    def test_what_it_refuses(
        self, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
    ):
        monkeypatch.chdir(tmp_path)
        called = handreid("report", *[one.format(ladder=ladder) for one in arguments])
        assert called.code == 2
        assert told in called.err
        assert list(tmp_path.iterdir()) == []

    def test_nothing_evaluated(self, runs: Path, tmp_path: Path):
        for run in runs.iterdir():
            (run / "evaluation.json").unlink()
        assert "none of 3 runs is evaluated" in complaint("report", runs, "--out", tmp_path / "r.html")


@pytest.mark.parametrize("name", builtin_names())
def test_every_recipe_can_be_told(name: str):
    told = describe_run(load_recipe(name), None)
    assert told.startswith("The encoder is ")
    assert told.endswith(".")
    assert "{" not in told
    assert "_" not in told


class TestDots:
    def test_places_are_on_a_common_axis_with_round_ticks(self):
        found = dots(
            [
                ("a", [Metric(value=0.5, low=0.4, high=0.62)], None),
                ("b", [Metric(value=0.9, low=0.8, high=1.0)], None),
            ]
        )
        assert found is not None
        ticks = {float(tick["text"]): tick["at"] for tick in found["ticks"]}
        first, last = min(ticks), max(ticks)
        assert (first, last) == (40, 100)
        one = found["rows"][0]["series"][0]
        assert one["at"] == pytest.approx(100 * (50 - first) / (last - first), abs=0.01)
        assert one["low"] == pytest.approx(0, abs=0.01)
        assert (one["text"], one["range"]) == ("50.0", "[40.0, 62.0]")

    def test_equal_numbers_and_none_at_all(self):
        same = Metric(value=1.0, low=1.0, high=1.0)
        found = dots([("a", [same], None), ("b", [same], None)])
        assert found is not None
        assert 0 <= found["rows"][0]["series"][0]["at"] <= 100
        assert dots([("a", [None], None)]) is None
