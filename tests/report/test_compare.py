"""Runs beside each other: who may be compared, what was changed, how sure a difference is, what it cost."""

import csv as table_format
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from handreid.errors import RunError
from handreid.evaluation.compare import read_scores
from handreid.files import read_json, write_json
from handreid.metrics.intervals import bootstrap_scores, differences
from handreid.metrics.simultaneous import shared_confidence, simultaneous_differences
from handreid.recipe import load_recipe, parse_recipe
from handreid.report.compare import tables as compare_tables
from handreid.report.compare.cost import cost_of
from handreid.report.compare.recipe_diff import recipe_changes
from handreid.report.compare.runs import Comparison, compare_runs, run_folders
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.runs.results import LADDER_FORMAT, read_evaluation
from handreid.training.peak_memory import peak_memory, reset_peak_memory
from handreid.workflows.ladder import run_ladder
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import edit, write_metrics
from tests.made_runs import made_ranks, made_run

CHANGED = ["stages.0.epochs=5", "stages.0.optimizer.lr=1.0e-4"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: a base, one that is clearly better, one that is the base by another seed of its luck."""
    root = tmp_path_factory.mktemp("runs")
    made_run(root / "a-base", made_ranks(0.5))
    made_run(root / "b-better", made_ranks(0.9), changes=CHANGED)
    made_run(root / "c-alike", made_ranks(0.52, seed=1), changes=["seed=1"])
    return root


@pytest.fixture(scope="module")
def compared(runs: Path) -> Comparison:
    return compare_runs(run_folders([runs]), by="map", resamples=500)


class TestSimultaneous:
    def test_one_comparison_is_an_ordinary_difference(self):
        ours, theirs, owner = self.systems(2)
        found = simultaneous_differences([ours, theirs], 1, owner, resamples=500)
        assert found[1] == {}
        assert found[0] == differences(ours, theirs, owner, resamples=500)

    def test_intervals_widen_with_the_comparisons_but_never_beyond_bonferroni(self):
        *systems, owner = self.systems(6)
        few = simultaneous_differences(systems[:3], 0, owner, resamples=2000)
        many = simultaneous_differences(systems, 0, owner, resamples=2000)
        chosen = simultaneous_differences(systems, 0, owner, reference_chosen=True, resamples=2000)
        levels = [found[1]["rank1"].confidence for found in (few, many, chosen)]
        assert 0.95 < levels[0] < levels[1] < levels[2] <= 1 - 0.05 / 15
        assert levels[1] <= 1 - 0.05 / 5
        assert many[1]["rank1"].low < few[1]["rank1"].low < few[1]["rank1"].high < many[1]["rank1"].high
        assert {found["rank1"].confidence for found in many[1:]} == {levels[1]}

    def test_the_common_confidence_holds_all_at_once(self):
        """Independent comparisons need Sidak's level; the same comparison ten times over needs no correction."""
        random = np.random.default_rng(0)
        apart = random.standard_normal((20_000, 10))
        assert shared_confidence(apart, 0.95) == pytest.approx(0.95 ** (1 / 10), abs=0.0007)
        assert shared_confidence(np.repeat(apart[:, :1], 10, axis=1), 0.95) == pytest.approx(0.95, abs=1e-4)
        # what cannot differ takes no part
        assert shared_confidence(np.hstack([apart[:, :1], np.zeros((20_000, 9))]), 0.95) == pytest.approx(
            0.95, abs=1e-4
        )

    def test_resamples_are_those_of_the_estimate_and_the_same_for_all_systems(self):
        ours, theirs, owner = self.systems(2)
        mine, other = (bootstrap_scores(one, owner, resamples=4000)["rank1"] for one in (ours, theirs))
        found = differences(ours, theirs, owner, resamples=4000)["rank1"]
        assert np.mean(mine) == pytest.approx(ours["rank1"].mean(), abs=0.01)
        assert np.quantile(mine - other, [0.025, 0.975]) == pytest.approx([found.low, found.high], abs=0.03)
        assert np.corrcoef(mine, other)[0, 1] > 0.5  # paired: subjects that are hard are hard for both

    @staticmethod
    def systems(count: int) -> list:
        random = np.random.default_rng(3)
        owner = np.repeat(np.arange(25), 8)
        able = random.beta(2, 1, 25)[owner]
        return [*({"rank1": (random.random(200) < able).astype(float)} for _ in range(count)), owner]


class TestRecipeChanges:
    def test_only_what_differs_under_its_path(self):
        first, second = parse_recipe(MICRO_RECIPE, "x"), parse_recipe(MICRO_RECIPE, "x", ["name=other", *CHANGED])
        assert recipe_changes([first, second]) == [
            {"stages.fine_tune.epochs": "3", "stages.fine_tune.optimizer.lr": "0.001"},
            {"stages.fine_tune.epochs": "5", "stages.fine_tune.optimizer.lr": "0.0001"},
        ]
        assert recipe_changes([first, first]) == [{}, {}]

    def test_stages_terms_and_augmentations_are_told_by_kind_not_by_place(self):
        """The fine-tuning after a stage of prompts is compared with the fine-tuning without one."""
        found = recipe_changes([load_recipe("stage2-triplet"), load_recipe("clip-reid-vit")])
        assert [one["stages"] for one in found] == ["fine_tune", "learn_prompts, fine_tune"]
        assert found[1]["stages.fine_tune.objectives"] == "cross_entropy, triplet, image_to_text"
        assert found[0]["stages.learn_prompts"] == ""
        assert not [path for path in found[0] if "triplet." in path]  # the same in both, though not at one place
        crops = ["stages.0.augment=[{kind: crop, enlarge: 1.2}, {kind: crop, enlarge: 1.3}, {kind: colour_jitter}]"]
        two = recipe_changes([parse_recipe(MICRO_RECIPE, "x"), parse_recipe(MICRO_RECIPE, "x", crops)])
        assert two[1]["stages.fine_tune.augment"] == "crop, crop-2, colour_jitter"
        assert two[1]["stages.fine_tune.augment.crop-2"] == "enlarge 1.3"

    def test_what_only_one_has_is_one_line_beyond_its_defaults(self):
        terms = ["stages.0.objectives=[{kind: cross_entropy}, {kind: triplet, margin: 0.5}]"]
        sampler = ["stages.0.batch_size=null", "stages.0.sampler={kind: pk, identities: 4, images: 2}"]
        lora = ["stages.0.lora={rank: 3}"]
        base = parse_recipe(MICRO_RECIPE, "x")
        found = recipe_changes([base, parse_recipe(MICRO_RECIPE, "x", [*terms, *sampler, *lora])])
        assert (found[0]["stages.fine_tune.objectives.triplet"], found[0]["stages.fine_tune.lora"]) == ("", "null")
        assert found[1]["stages.fine_tune.objectives.triplet"] == "margin 0.5"
        assert found[1]["stages.fine_tune.lora"] == "rank 3"
        assert found[1]["stages.fine_tune.sampler.identities"] == "4"
        assert "stages.fine_tune.sampler.every" not in found[1]

    def test_an_order_is_a_change(self):
        turned = "stages.0.augment=[{kind: colour_jitter}, {kind: crop, enlarge: 1.25}]"
        straight = "stages.0.augment=[{kind: crop, enlarge: 1.25}, {kind: colour_jitter}]"
        found = recipe_changes([parse_recipe(MICRO_RECIPE, "x", [one]) for one in (straight, turned)])
        assert found == [{"stages.fine_tune.augment": text} for text in ("crop, colour_jitter", "colour_jitter, crop")]

    def test_every_difference_between_builtin_recipes_is_told(self):
        """Recipes with no line between them are equal but for names; those with one are not."""
        names = ["zero-shot", "stage1-cross-entropy", "stage2-triplet", "stage2-lora", "vpt-deep", "promptsg-graph"]
        for one in names:
            for other in names:
                first, second = load_recipe(one), load_recipe(other)
                told = recipe_changes([first, second])
                assert bool(told[0]) == (one != other)
                assert all(told[0][path] != told[1][path] for path in told[0])


class TestComparing:
    def test_differences_are_paired_and_the_verdict_is_that_of_the_interval(self, compared: Comparison):
        base, better, alike = compared.runs
        assert (compared.reference, base.against) == ("a-base", {})
        for run in (better, alike):
            for metric, one in run.against.items():
                gain = run.evaluation.metrics[metric].value - base.evaluation.metrics[metric].value
                assert one.value == pytest.approx(gain)
                sign = "better" if one.low > 0 else "worse" if one.high < 0 else "within noise"
                assert one.verdict == sign
                assert one.confidence > 0.95
        assert (better.against["map"].verdict, alike.against["map"].verdict) == ("better", "within noise")
        assert "2 comparisons with one reference" in compared.corrected

    def test_the_pairing_is_by_subject(self, runs: Path, compared: Comparison):
        """As the intervals module has it, from the ranks that were written down."""
        ours, theirs = (
            read_scores(read_evaluation(runs / name / "evaluation.json")) for name in ("b-better", "a-base")
        )
        sure = compared.runs[1].against["rank1"].confidence
        people = ours.rows // 4
        found = differences(ours.metrics, theirs.metrics, people, ours.draws, confidence=sure, resamples=500)["rank1"]
        told = compared.runs[1].against["rank1"]
        assert (told.low, told.high) == pytest.approx((found.low, found.high))

    def test_the_best_is_chosen_by_the_metric_and_said_to_be(self, runs: Path):
        found = compare_runs(run_folders([runs]), reference="best", resamples=300)
        assert found.reference == "b-better"
        assert [bool(run.against) for run in found.runs] == [True, False, True]
        assert "all 3 pairs" in found.corrected
        assert "b-better was selected by the best rank1 on this test" in found.notes[0]

    def test_only_changes_are_told(self, compared: Comparison):
        assert [list(run.changed) for run in compared.runs] == [
            ["seed", "stages.fine_tune.epochs", "stages.fine_tune.optimizer.lr"]
        ] * 3
        assert compared["b-better"].changed["stages.fine_tune.epochs"] == "5"

    def test_other_draws_are_refused_with_the_reason_and_shown_when_asked(self, runs: Path, tmp_path: Path):
        shutil.copytree(runs / "a-base", tmp_path / "a")
        made_run(tmp_path / "b", made_ranks(0.9), draws="e" * 64, manifest="b" * 64, changes=["evaluate.draws=7"])
        with pytest.raises(RunError) as refused:
            compare_runs(run_folders([tmp_path]))
        told = str(refused.value)
        assert "b: draws eeeeeeee for dddddddd (manifest bbbbbbbb for aaaaaaaa, evaluate.draws 7 for 3)" in told
        assert "--allow-different-draws" in told
        found = compare_runs(run_folders([tmp_path]), different=True)
        assert [run.against for run in found.runs] == [{}, {}]
        assert "1 of 2 runs were tested on other draws" in found.notes[0]
        table = compare_tables.metrics_table(found)
        assert not [column for column in table.columns if "against" in column]

    def test_those_on_the_draws_of_the_first_are_still_compared(self, runs: Path, tmp_path: Path):
        for name in ("a-base", "b-better"):
            shutil.copytree(runs / name, tmp_path / name)
        made_run(tmp_path / "c", made_ranks(0.99), draws="e" * 64)
        found = compare_runs(run_folders([tmp_path]), different=True, reference="best", resamples=300)
        assert found.reference == "b-better"  # not c, which answered other questions
        assert [bool(run.against) for run in found.runs] == [True, False, False]

    def test_the_same_draws_of_other_people_are_noticed(self, runs: Path, tmp_path: Path):
        """Equal hashes say nothing of subjects, over whom the pairing is."""
        shutil.copytree(runs, tmp_path / "runs")
        path = tmp_path / "runs" / "b-better" / "evaluation.json"
        edit(path, subjects=["somebody else", *read_json(path)["subjects"][1:]])
        with pytest.raises(RunError, match="b-better: draws dddddddd for dddddddd"):
            compare_runs(run_folders([tmp_path / "runs"]))

    def test_runs_of_one_name_are_told_apart(self, tmp_path: Path):
        for folder in ("x/one", "x/two", "y/two"):
            made_run(tmp_path / folder, made_ranks(0.5), name="same")
        names = [run.name for run in compare_runs([tmp_path / "x/one", tmp_path / "x/two"], resamples=100).runs]
        assert names == ["same (one)", "same (two)"]
        found = compare_runs(run_folders([tmp_path / "x", tmp_path / "y"]), resamples=100)
        assert [run.name for run in found.runs] == [
            "same (one)",
            *(f"same ({tmp_path / of})" for of in ("x/two", "y/two")),
        ]
        assert "the recipes are equal" in found.notes[0]

    def test_what_is_not_there_is_said(self, runs: Path, tmp_path: Path):
        shutil.copytree(runs, tmp_path / "runs")
        (tmp_path / "runs" / "c-alike" / "evaluation.json").unlink()
        with pytest.raises(RunError, match=r"1 of 3 runs .*handreid evaluate .*c-alike"):
            compare_runs(run_folders([tmp_path / "runs"]))
        with pytest.raises(RunError, match="no metric 'rank2'; they have rank1, rank5"):
            compare_runs(run_folders([runs]), by="rank2")
        (tmp_path / "empty").mkdir()
        with pytest.raises(RunError, match="empty is neither a run folder nor a folder of runs"):
            run_folders([tmp_path / "empty"])

    def test_a_ladder_has_the_order_of_its_rungs_and_a_run_comes_once(self, runs: Path, tmp_path: Path):
        shutil.copytree(runs, tmp_path / "ladder")
        rungs = [{"recipe": name, "below": None} for name in ("c-alike", "a-base", "gone")]
        write_json(tmp_path / "ladder" / "ladder.json", {"format": LADDER_FORMAT, "rungs": rungs})
        ladder = tmp_path / "ladder"
        assert [folder.name for folder in run_folders([ladder])] == ["c-alike", "a-base"]
        assert [folder.name for folder in run_folders([ladder / "a-base", ladder])] == ["a-base", "c-alike"]

    def test_other_machines_and_versions_are_noted(self, runs: Path, tmp_path: Path):
        shutil.copytree(runs, tmp_path / "runs")
        path = tmp_path / "runs" / "b-better" / "run.json"
        edit(path, device="another", versions={"handreid": "0.1.0", "torch": "3.0"})
        notes = compare_runs(run_folders([tmp_path / "runs"]), resamples=100).notes
        assert "trained on different devices (a machine, another): do not compare times" in notes
        assert "trained with different versions of torch (2.15.0, 3.0)" in notes
        assert not [note for note in notes if "handreid" in note]


class TestCost:
    def test_it_is_what_the_folder_says(self, runs: Path):
        cost = cost_of(Run(runs / "a-base"))
        assert (cost.seconds, cost.device) == (5.0, "a machine")
        assert cost.photos_per_second == pytest.approx((2 * 10 + 3 * 20) / 5)
        assert (cost.peak_memory, cost.learning, cost.parameters) == (None, None, None)

    def test_a_stage_of_prompts_is_in_the_time_and_not_in_the_speed_and_a_part_counts_once(self, tmp_path: Path):
        twice = ["stages=[{kind: learn_prompts}, {kind: fine_tune}, {kind: fine_tune}]"]
        run = Run(made_run(tmp_path / "run", made_ranks(0.5), changes=twice))
        line = {"epoch": 1, "seconds": 1.0, "peak_memory": 100}
        entries = [
            line | {"stage": n, "photos_per_second": rate, "peak_memory": 100 - n}
            for n, rate in ((0, 900), (1, 9), (2, 5))
        ]
        write_metrics(run, entries)
        for number, kind, learning in (
            (0, "learn_prompts", {"contexts": 7}),
            (1, "fine_tune", {"encoder": 50}),
            (2, "fine_tune", {"encoder": 40, "head": 2}),
        ):
            run.stage(number, kind).mkdir(parents=True)
            counted = {"learning": learning, "learning_in_all": 0, "in_all": 60 + number}
            (run.stage(number, kind) / "parameters.json").write_text(json.dumps(counted))
        cost = cost_of(run)
        assert (cost.seconds, cost.photos_per_second, cost.peak_memory) == (3.0, 5, 100)
        assert (cost.learning, cost.parameters) == (7 + 50 + 2, 62)

    def test_zero_shot_learns_nothing_and_takes_no_time_that_is_known(self, tmp_path: Path):
        run = made_run(tmp_path / "run", made_ranks(0.5), changes=["stages=[]"], seconds=())
        cost = cost_of(Run(run))
        assert (cost.learning, cost.seconds, cost.photos_per_second) == (0, None, None)

    def test_memory_is_the_peak_since_one_looked(self):
        reset_peak_memory()  # of what other tests have taken and given back
        before = peak_memory() or 0
        taken = np.ones(2**24)
        during = peak_memory() or 0
        assert during - before > 100 * 2**20  # 128 MiB, in bytes
        del taken
        reset_peak_memory()
        assert (peak_memory() or during) < during - 64 * 2**20


class TestText:
    def test_csv_has_a_row_per_run_and_numbers_that_can_be_read_back(self, compared: Comparison):
        rows = list(table_format.DictReader(io.StringIO(compare_tables.csv(compared))))
        assert [row["run"] for row in rows] == ["a-base", "b-better", "c-alike"]
        assert float(rows[1]["map"]) == compared.runs[1].evaluation.metrics["map"].value
        assert float(rows[1]["map_difference_low"]) == compared.runs[1].against["map"].low
        assert (rows[0]["map_difference"], rows[1]["map_difference_verdict"]) == ("", "better")
        assert (rows[1]["recipe.stages.fine_tune.epochs"], rows[1]["draws_hash"]) == ("5", "d" * 64)
        assert (rows[0]["seconds"], rows[0]["peak_memory"]) == ("5.0", "")

    def test_json_holds_all_of_it_but_ranks(self, compared: Comparison):
        found = json.loads(compare_tables.as_json(compared))
        assert found["runs"][1]["against"] == {name: one.model_dump() for name, one in compared.runs[1].against.items()}
        assert found["runs"][1]["cost"]["seconds"] == 5
        assert (found["by"], found["reference"], found["confidence"]) == ("map", "a-base", 0.95)
        assert "ranks" not in json.dumps(found)

    def test_markdown_has_three_tables_and_says_what_they_are_of(self, compared: Comparison):
        text = compare_tables.markdown(compared)
        assert re.findall(r"^\*\*(.*)\*\*$", text, re.M) == ["Metrics", "What was changed", "Cost"]
        tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
        assert all(len({line.count("|") for line in table}) == 1 for table in tables)
        assert "| fine_tune.epochs | 3 | 5 | 3 |" in tables[1]
        assert tables[2][0] == "| run | training | photos/s |"  # nothing is said of memory and parameters
        gained = compared.runs[1].against["map"]
        assert f"| better {100 * gained.value:+.1f} [{100 * gained.low:+.1f}, {100 * gained.high:+.1f}] |" in text
        assert "draws dddddddd" in text
        assert "simultaneous over 2 comparisons" in text

    def test_many_runs_are_numbered_in_the_table_of_changes(self, tmp_path: Path):
        for number in range(6):
            epochs = 4 if number in (0, 1, 2, 5) else 9
            made_run(tmp_path / f"r{number}", made_ranks(0.5), changes=[f"stages.0.epochs={epochs}"])
        found = compare_runs(run_folders([tmp_path]), resamples=100)
        assert compare_tables.changes_table(found).rows == [["fine_tune.epochs", "4 (1-3, 6); 9 (4, 5)"]]
        assert compare_tables.metrics_table(found).rows[5][0] == "6. r5"

    def test_a_bar_in_a_cell_is_no_column(self, tmp_path: Path):
        for name, template in (("a", "x"), ("b", "A {context} | B")):
            change = f'stages=[{{kind: learn_prompts, templates: ["A {{context}} {template}"]}}, {{kind: fine_tune}}]'
            made_run(tmp_path / name, made_ranks(0.5), changes=[change.replace("A {context} A", "A")])
        text = compare_tables.markdown(compare_runs(run_folders([tmp_path]), resamples=100))
        assert "\\|" in text


class TestCommand:
    def test_it_prints_three_tables(self, runs: Path):
        called = handreid("compare", runs, "--by", "map")
        assert called.code == 0, called.err
        assert re.search(r"b-better .* better \+\d+\.\d \[\+", called.out)
        assert all(title in called.out for title in ("metrics", "what was changed", "cost", "draws"))

    def test_a_terminal_of_100_columns_is_enough(self, runs: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("FORCE_COLOR", "1")
        called = handreid("compare", runs, "--by", "map")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", called.out)
        assert max(map(len, plain.split("protocol disjoint")[0].splitlines())) <= 100
        assert re.search(r"b-better .* better \+\d+\.\d \[\+\d+\.\d, \+\d+\.\d\]", plain)  # in one line

    @pytest.mark.parametrize("suffix", ["md", "csv", "json"])
    def test_files_are_what_the_format_prints(self, runs: Path, tmp_path: Path, suffix: str):
        out = tmp_path / f"compared.{suffix}"
        assert handreid("compare", runs, "--out", out).code == 0
        printed = handreid("compare", runs, "--format", "markdown" if suffix == "md" else suffix)
        assert out.read_text() == printed.out
        assert [path.name for path in tmp_path.iterdir()] == [out.name]

    def test_what_makes_no_sense_is_refused(self, runs: Path, tmp_path: Path):
        assert "only one run is given" in complaint("compare", runs / "a-base")
        assert "the suffix must be .md or .csv or .json" in complaint("compare", runs, "--out", tmp_path / "x.txt")
        assert "--format csv does not match the suffix of x.md" in complaint(
            "compare", runs, "--out", tmp_path / "x.md", "--format", "csv"
        )


def test_a_ladder_that_was_climbed(photos: Path, tmp_path: Path):
    """From training to the table: memory and parameters of new runs are there, and the rungs in their order."""
    rerank = ["evaluate.rerank={kind: query_expansion, neighbours: 2}"]
    zero = ["name=z-zero", "stages=[]", *rerank]
    recipes = [parse_recipe(MICRO_RECIPE, "x", more) for more in (zero, ["name=trained", "stages.0.epochs=2"])]
    run_ladder(recipes, photos, tmp_path / "ladder")
    found = compare_runs(run_folders([tmp_path / "ladder"]), resamples=200)
    zero_shot, trained = found.runs
    assert (zero_shot.name, trained.name) == ("z-zero", "trained")
    assert (zero_shot.cost.learning, zero_shot.cost.peak_memory) == (0, None)
    entries = read_metrics(Run(trained.folder))
    assert [2**26 < entry["peak_memory"] < 2**36 for entry in entries] == [True, True]
    assert trained.cost.peak_memory == max(entry["peak_memory"] for entry in entries)
    assert trained.cost.learning
    assert trained.cost.parameters
    assert trained.cost.learning <= trained.cost.parameters
    rows = compare_tables.metrics_table(found).rows
    assert [row[0].split(" ")[0] for row in rows] == ["z-zero", "+", "trained"]
    assert (tmp_path / "ladder" / "trained" / "evaluation.json").exists()
