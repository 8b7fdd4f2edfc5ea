"""A ladder over several training seeds: which runs it makes, what it tells of them, and what it refuses."""

import html
import json
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from handreid.build import build_towers
from handreid.errors import RecipeError, RunError
from handreid.evaluation.compare import Rung, compare, stack_scores
from handreid.evaluation.seeds import SeedRun, rung_over_seeds
from handreid.evaluation.tables.ladder import markdown
from handreid.metrics.intervals import differences, intervals
from handreid.progress import NullProgress
from handreid.recipe import Recipe, dump_recipe, parse_recipe
from handreid.report.page.seeds import NOTE, ladders
from handreid.report.run_folders import run_folders
from handreid.runs.folder import Run
from handreid.runs.results import Evaluation, SeedLadder, read_evaluation, read_ladder
from handreid.workflows.ladder import run_ladder
from handreid.workflows.seeds import plan_rungs
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.made_runs import made_evaluation, made_ranks, made_run
from tests.plain_results import typed


def micro(name: str, *overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, name, [f"name={name}", *overrides])


def found(name: str, share: float, seed: int = 0, draws: str = "d" * 64) -> Evaluation:
    return typed(made_evaluation(name, made_ranks(share, seed), draws, "a" * 64))


def seeds_of(name: str, shares: list[float]) -> list[SeedRun]:
    return [SeedRun(n, f"{name}-seed-{n}", found(name, share, n)) for n, share in enumerate(shares)]


class Stops(NullProgress):
    """Progress that is interrupted at a line, as by Ctrl-C, and remembers the lines before."""

    def __init__(self, at: str = "") -> None:
        self.at = at
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        if self.at and self.at in line:
            raise KeyboardInterrupt
        self.lines.append(line)


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> list[Recipe]:
    """One that no seed changes, one that is trained, and one that starts from its encoder."""
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    towers = build_towers(micro("towers"))
    image = {f"visual.{name}": value for name, value in towers.image.state_dict().items()}
    save_file({**image, **towers.text.clip.state_dict()}, file)
    zero = ("stages=[]", "model.head={kind: linear}", "model.test_feature.neck=before")
    weights = f"model.backbone.weights={file}"
    one = micro("one", weights, "stages.0.epochs=1", "stages.0.optimizer.lr=1e-2")
    return [micro("zero", weights, *zero), one, micro("two", weights, "init_from=one", *zero)]


@pytest.fixture(scope="module")
def climbed(rungs: list[Recipe], hard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, stopped between those of the trained rung, and gone on with on the command line, which printed
    printed.json.
    """
    root = tmp_path_factory.mktemp("seeds")
    out = root / "ladder"
    with pytest.raises(KeyboardInterrupt):
        run_ladder(rungs, hard_photos, out, seeds=2, progress=Stops("rung 2 of 3: one, seed 1 (2 of 2)"))
    assert sorted(entry.name for entry in out.iterdir()) == ["one", "zero"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    for recipe in rungs:
        (root / f"{recipe.name}.yaml").write_text(dump_recipe(recipe))
    names = ",".join(str(root / f"{recipe.name}.yaml") for recipe in rungs)
    called = handreid(
        *("ladder", "--rungs", names, "--data", hard_photos, "--out", out, "--seeds", "2", "--json", "--no-photos")
    )
    assert called.code == 0, called.err
    (root / "printed.json").write_text(called.out)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    return out


class TestRuns:
    def test_a_rung_that_no_seed_changes_is_run_once_and_the_others_with_each(self, climbed: Path):
        assert {path.parent.name for path in climbed.glob("*/run.json")} == {
            *("zero", "one", "one-seed-1", "two", "two-seed-1"),
        }
        first, second = Run(climbed / "one"), Run(climbed / "one-seed-1")
        assert (first.facts["seed"], second.facts["seed"]) == (0, 1)
        assert (first.recipe.data, first.recipe.stages) == (second.recipe.data, second.recipe.stages)
        for hashed in ("split_hash", "draws_hash"):
            assert first.facts[hashed] == second.facts[hashed]
        assert first.facts["files"]["model.safetensors"] != second.facts["files"]["model.safetensors"]

    def test_a_rung_starts_from_the_run_of_its_own_seed(self, climbed: Path):
        for child, parent in (("two", "one"), ("two-seed-1", "one-seed-1")):
            assert Run(climbed / child).facts["init_from"] == str((climbed / parent).absolute())

    def test_it_tells_the_means_of_the_seeds_and_their_paired_differences(self, climbed: Path):
        ladder = read_ladder(climbed)
        assert isinstance(ladder, SeedLadder)
        zero, one, two = ladder.rungs
        runs = [read_evaluation(climbed / name / "evaluation.json") for name in one.runs]
        values = [run.metrics["map"].value for run in runs]
        assert values[0] != values[1]
        assert one.metrics["map"].value == pytest.approx(np.mean(values))
        assert [result.metrics["map"] for result in one.seeds] == values
        assert [len(rung.seeds) for rung in ladder.rungs] == [1, 2, 2]
        alone = read_evaluation(climbed / "zero" / "evaluation.json")
        assert zero.metrics == alone.metrics
        assert one.below == compare(runs, alone)
        assert {"rank1", "map", "ratio", "silhouette"} <= two.below.keys()
        ratio = one.sections["separation"].numbers["ratio"]
        assert ratio.low < ratio.value < ratio.high
        told = (climbed / "ladder.md").read_text()
        assert told == markdown([Rung(rung.recipe, rung, rung.below) for rung in ladder.rungs])
        assert told.splitlines()[2].startswith("| zero |")
        assert "| one run |" in told.splitlines()[2]
        ends = sorted(result.metrics["rank1"] for result in one.seeds)
        assert f"| {100 * ends[0]:.1f} to {100 * ends[1]:.1f} |" in told.splitlines()[3]
        assert "mean of 2 training seeds" in told
        assert "intervals over subjects and seeds" in told

    def test_all_of_it_is_on_the_page_and_the_rest_is_of_the_first_seed(self, climbed: Path):
        page = html.unescape((climbed / "report.html").read_text())
        assert NOTE in page
        (section,) = ladders([climbed, climbed / "one"])
        assert f">{section['columns'][section['range']]}</th>" in page
        for row in section["rows"]:
            assert f"<td>{row[section['range']]}</td>" in page
            assert f'<td class="left">{row[-1]}</td>' in page
        assert "one-seed-1" not in page
        assert [folder.name for folder in run_folders([climbed])] == ["zero", "one", "one-seed-1", "two", "two-seed-1"]

    def test_json_for_programs_has_every_seed(self, climbed: Path):
        printed = json.loads((climbed.parent / "printed.json").read_text())["rungs"]
        written = json.loads((climbed / "ladder.json").read_text())
        assert (written["format"], written["seeds"]) == (4, 2)
        assert [rung["evaluation"] for rung in printed] == written["rungs"]
        assert [[one["run"] for one in rung["evaluation"]["seeds"]] for rung in printed] == [
            ["zero"],
            ["one", "one-seed-1"],
            ["two", "two-seed-1"],
        ]

    def test_fewer_seeds_than_the_folder_has_are_refused(self, climbed: Path, hard_photos: Path):
        asked = ("ladder", "--rungs", climbed.parent / "zero.yaml", "--data", hard_photos, "--out", climbed)
        assert f"{climbed} holds a ladder over 2 seeds, and --seeds is 1: give --seeds 2" in complaint(*asked)


class TestNumbers:
    def test_one_seed_has_the_numbers_of_its_evaluation_to_the_digit(self):
        below, one = found("below", 0.5), found("one", 0.7)
        scores = stack_scores([one])
        again = intervals(scores.metrics, scores.people, scores.draws, resamples=200)
        assert {name: (i.value, i.low, i.high) for name, i in again.items()} == {
            name: (metric.value, metric.low, metric.high) for name, metric in one.metrics.items()
        }
        assert compare([one], [below]) == compare(one, below)
        rung = rung_over_seeds("one", [SeedRun(0, "one", one)], [SeedRun(0, "below", below)])
        assert (rung.metrics, rung.below) == (one.metrics, compare(one, below))

    def test_several_are_the_bootstrap_of_their_scores(self):
        runs, below = seeds_of("one", [0.5, 0.7, 0.9]), seeds_of("below", [0.4, 0.5, 0.7])
        rung = rung_over_seeds("one", runs, below, resamples=300)
        ours, theirs = (stack_scores([run.evaluation for run in side]) for side in (runs, below))
        metric = intervals(ours.metrics, ours.people, ours.draws, resamples=300)["rank1"]
        assert (rung.metrics["rank1"].low, rung.metrics["rank1"].high) == (metric.low, metric.high)
        gain = differences(ours.metrics, theirs.metrics, ours.people, ours.draws)["map"]
        assert (rung.below["map"].value, rung.below["map"].low) == (gain.value, gain.low)
        assert rung.metrics["rank1"].high - rung.metrics["rank1"].low > 2 * (
            runs[1].evaluation.metrics["rank1"].high - runs[1].evaluation.metrics["rank1"].low
        )

    def test_other_draws_are_refused(self):
        with pytest.raises(RunError, match="different draws"):
            rung_over_seeds(
                "one", [SeedRun(0, "a", found("a", 0.5)), SeedRun(1, "b", found("b", 0.5, 1, "e" * 64))], None
            )


class TestPlan:
    def test_the_recipes_differ_in_name_and_seed_only(self, tmp_path: Path):
        (rung,) = plan_rungs([micro("one", "seed=5")], tmp_path, 3)
        assert [(run.name, run.seed) for run in rung.runs] == [("one", 5), ("one-seed-6", 6), ("one-seed-7", 7)]
        assert len({run.model_copy(update={"name": "", "seed": 0}).model_dump_json() for run in rung.runs}) == 1

    def test_random_towers_are_drawn_anew_with_each_seed(self, tmp_path: Path):
        zero = ("stages=[]", "model.head={kind: linear}", "model.test_feature.neck=before")
        assert [len(rung.runs) for rung in plan_rungs([micro("zero", *zero)], tmp_path, 2)] == [2]

    @pytest.mark.parametrize("key", ["init_from", "model.backbone.weights"])
    def test_a_parent_outside_the_ladder_has_a_run_for_each_seed_or_one_for_all(self, key: str, tmp_path: Path):
        parent = tmp_path / "parent"
        recipe = micro("child", f"{key}={parent}")

        def parents(seeds: int) -> tuple[list[object], str | None]:
            (rung,) = plan_rungs([recipe], tmp_path / "out", seeds)
            return [attrgetter(key)(run) for run in rung.runs], rung.note

        made_run(parent, made_ranks(0.5))
        assert parents(3)[0] == [str(parent)] * 3
        assert f"all seeds of child start from the one run {parent}" in parents(3)[1]
        made_run(tmp_path / "parent-seed-1", made_ranks(0.5), changes=["seed=1"])
        with pytest.raises(RunError, match=r"not of all 3: there is no parent-seed-2; train it with --seeds 3"):
            parents(3)
        assert parents(2) == ([str(parent), str(tmp_path / "parent-seed-1")], None)

    @pytest.mark.parametrize(
        ("recipes", "seeds", "kind", "message"),
        [
            ([micro("one")], 0, RunError, "^0 seeds: a rung is trained with one or more$"),
            ([micro("one"), micro("one-seed-1")], 2, RunError, "two rungs have the name 'one-seed-1'"),
            ([micro("n" * 95)], 2, RecipeError, "^rung n+ cannot be run with seed 1: .*at most 100"),
            ([micro("one", f"seed={2**32 - 1}")], 2, RecipeError, "^rung one cannot be run with seed 4294967296"),
        ],
    )
    def test_what_cannot_be_run_is_refused(self, recipes, seeds, kind, message, tmp_path: Path):
        with pytest.raises(kind, match=message):
            plan_rungs(recipes, tmp_path, seeds)
