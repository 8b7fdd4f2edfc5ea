"""Sweeps: what is varied, what is refused, how a sweep that was killed goes on, and what follows from its trials."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

pytest.importorskip("ray")
pytest.importorskip("optuna")

from handreid.data import manifest, sources
from handreid.errors import ProtocolError, RecipeError
from handreid.metrics.ranking import Ranking
from handreid.metrics.ranking_metrics import metrics
from handreid.recipe import dump_recipe, parse_recipe
from handreid.recipe.load_sweep import Design, builtin_sweeps, dump_sweep, load_sweep
from handreid.recipe.sweep import MEASURED, Asha, Axis, Sweep, number_words, short_names
from handreid.report.figures.sweep import caption, draw
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run
from handreid.runs.leakage import check_validation_unseen
from handreid.sweep import ray_cluster, trial_server
from handreid.sweep.checks import check_settings, idle_scheduler
from handreid.sweep.importance import importance
from handreid.sweep.ray_cluster import Resources
from handreid.sweep.results import outcome, series
from handreid.sweep.search import Known, Setting, grid, one_at_a_time, propose
from handreid.sweep.state import SweepState
from handreid.sweep.summary import summarise_settings
from tests.cli.test_commands import Called, complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import write_metrics
from tests.forks import SweepCommandLine, TrialServer

START = trial_server.start
LR, EPOCHS, HEAD = "stages.0.optimizer.lr", "stages.0.epochs", "model.head"


def sweep_of(**keys: Any) -> Sweep:
    return Sweep.model_validate({"name": "s", "recipe": "micro.yaml", "space": {LR: {"choice": [1e-3, 1e-4]}}, **keys})


def design_of(recipe: str = MICRO_RECIPE, **keys: Any) -> Design:
    return Design(sweep_of(**keys), recipe, "micro.yaml")


@pytest.fixture(scope="module", autouse=True)
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Resources]]:
    """Ray, which starts while the first tests run; of its services only those that trials need.

    Its trial server is forked from the tests' own server. The sweep that is killed starts a whole Ray, as users do.
    """
    ray_cluster.prepare()
    from ray._private.node import Node

    storage = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as beside, contextlib.ExitStack() as cleanup:
        patch.setattr(trial_server, "start", TrialServer)
        for service in ("start_api_server", "start_monitor", "start_log_monitor"):
            patch.setattr(Node, service, lambda *_, **__: None)
        patch.setattr("ray.air._internal.usage.tag_callbacks", lambda _: None)  # imports MLflow to count our callbacks
        running = ray_cluster.running(None, storage, cpus=1, gpus=0.0, concurrent=2)
        yield beside.submit(cleanup.enter_context, running)


@pytest.fixture(scope="module")
def ray(starting: Future[Resources]) -> Resources:
    return starting.result()


class TestWhatASweepSays:
    @pytest.mark.parametrize(
        ("axis", "message"),
        [
            ({}, "give one of choice, range, log_range and together; found none"),
            ({"choice": [1, 2], "range": [1, 2]}, "found choice and range"),
            ({"choice": [1]}, "a choice needs two values or more"),
            ({"choice": [1, 2, 1]}, "the value 1 is listed twice"),
            ({"range": [2, 1]}, "must be a lower and a higher number"),
            ({"range": [0, float("inf")]}, "should be a finite number"),
            ({"log_range": [0, 1]}, "log_range begins at 0"),
            ({"log_range": [1, 2], "step": 0.1}, "step can only be used with range"),
            ({"choice": [1, 2], "integer": True}, "integer can only be used with range"),
            ({"range": [1, 2.5], "integer": True}, "must be whole numbers"),
            ({"range": [1, 2], "step": 3}, "step 3 is longer than the range"),
            ({"chioce": [1, 2]}, "chioce"),
        ],
    )
    def test_axes_that_make_no_sense(self, axis: dict[str, Any], message: str):
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            Axis.model_validate(axis)

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"metric": "map"}, "never by a test; use validation_map"),
            ({"metric": "test_map"}, "would choose by test identities"),
            ({"metric": "evaluation.rank1"}, "would choose by test identities"),
            ({"metric": "loss"}, "'loss' is not one of validation_rank1"),
            ({"space": {"data.seed": {"choice": [1, 2]}}}, "photos; fix it with `set`"),
            ({"space": {"evaluate.flip_tta": {"choice": [True, False]}}}, "which a sweep never does"),
            ({"space": {"seed": {"choice": [1, 2]}}}, "name the seeds in `seeds`"),
            ({"space": {"x": {"together": {"a": {"data.seed": 1}, "b": {LR: 1}}}}}, "space varies data.seed"),
            ({"space": {LR: {"choice": [1, 2]}, "x": {"together": {"a": {LR: 1}, "b": {LR: 2}}}}}, "twice"),
            (
                {"space": {LR: {"log_range": [1e-5, 1e-3]}}},
                "a grid needs a finite number of values of stages.0.optimizer.lr",
            ),
            ({"trials": 3}, "a grid tries all combinations"),
            ({"search": "tpe"}, "search tpe needs trials"),
            ({"search": "random", "trials": 3}, "3 trials, but there are only 2 combinations"),
            ({"seeds": [1, 1]}, "equal seeds give equal trials"),
        ],
    )
    def test_sweeps_that_make_no_sense(self, keys: dict[str, Any], message: str):
        with pytest.raises(ValueError, match=message):
            sweep_of(**keys)

    def test_every_metric_is_one_that_validation_has(self):
        assert set(metrics(Ranking(np.array([1, 2]), np.array([0, 1, 2]), np.array([1, 2])))) == set(MEASURED)

    def test_values_have_short_names(self):
        terms = [{"kind": "cross_entropy"}, {"kind": "triplet", "margin": 0.3}]
        wider = [{"kind": "cross_entropy"}, {"kind": "triplet", "margin": 0.5}]
        axis = Axis.model_validate({"choice": [None, True, 5e-6, [96, 48], {"kind": "pk"}, terms, wider, "soft"]})
        assert list(axis.options) == [
            "null",
            "true",
            "5e-6",
            "96x48",
            "pk",
            "cross_entropy + triplet, margin 0.3",
            "cross_entropy + triplet, margin 0.5",
            "soft",
        ]
        assert list(axis.options.values())[5] == terms
        assert [number_words(number) for number in (1e-10, 1e-4, 2.5e7)] == ["1e-10", "0.0001", "2.5e7"]

    def test_parameters_have_short_names(self):
        assert short_names([LR, EPOCHS, "backbone"]) == {LR: "lr", EPOCHS: "epochs", "backbone": "backbone"}
        margins = ["stages.0.objectives.1.margin", "stages.0.objectives.3.margin"]
        assert list(short_names(margins).values()) == ["objectives.1.margin", "objectives.3.margin"]

    def test_what_goes_together_changes_together(self):
        tied = {"small": {"model.backbone.image_size": 32, LR: 1.0}, "large": {"model.backbone.image_size": 64}}
        sweep = sweep_of(space={"size": {"together": tied}, EPOCHS: {"range": [1, 5], "step": 2, "integer": True}})
        assert sweep.paths == ["model.backbone.image_size", LR, EPOCHS]
        assert (sweep.combinations, sweep.settings) == (6, 6)
        assert sweep.values({"size": "small", EPOCHS: 3}) == {**tied["small"], EPOCHS: 3}

    def test_a_sweep_reads_back(self, tmp_path: Path):
        (tmp_path / "micro.yaml").write_text(MICRO_RECIPE)
        sweep = sweep_of(
            set={EPOCHS: 1}, scheduler={"kind": "asha"}, space={HEAD: {"choice": {"a": None, "b": {"kind": "mlp"}}}}
        )
        (tmp_path / "s.yaml").write_text(dump_sweep(sweep))
        again = load_sweep(tmp_path / "s.yaml")
        assert again.sweep == sweep.model_copy(update={"recipe": str(tmp_path / "micro.yaml")})
        assert again.recipe == MICRO_RECIPE

    def test_misspelt_keys_are_told_with_line_and_hint(self, tmp_path: Path):
        path = tmp_path / "s.yaml"
        path.write_text(f"name: s\nrecipe: zero-shot\nspcae: {{}}\nspace:\n  {LR}: {{choices: [1, 2]}}\n")
        with pytest.raises(RecipeError) as caught:
            load_sweep(path)
        assert f"{path} line 3: unknown key 'spcae'; did you mean 'space'?" in str(caught.value)
        assert f"{path} line 5: unknown key 'space.{LR}.choices'; did you mean 'choice'?" in str(caught.value)
        with pytest.raises(RecipeError, match=r"no sweep 'learning-rate'.*did you mean 'learning-rates'"):
            load_sweep("learning-rate")

    def test_recipe_and_overrides_are_taken(self):
        design = load_sweep("learning-rates", recipe="tiny-triplet", overrides=["stages.0.epochs=2"])
        recipe = design.recipe_of({LR: "5e-5"}, name="x", seed=3)
        assert (recipe.name, recipe.seed, recipe.model.backbone.name) == ("x", 3, "handreid-tiny")
        (stage,) = (stage for _, stage in recipe.fine_tunes)
        assert (stage.epochs, stage.optimizer.lr) == (2, 5e-5)


class TestSearch:
    def test_a_grid_is_all_combinations_in_order(self):
        sweep = sweep_of(space={LR: {"choice": [1e-3, 1e-4]}, EPOCHS: {"range": [1, 3], "integer": True}})
        found = list(grid(sweep))
        assert found == [{LR: lr, EPOCHS: epochs} for lr in ("0.001", "0.0001") for epochs in (1, 2, 3)]
        assert [propose(sweep, number, []) for number in range(7)] == [*found, None]

    def test_random_settings_are_a_function_of_seed_and_number(self):
        keys = {"search": "random", "trials": 50, "space": {LR: {"log_range": [1e-6, 1e-2]}, EPOCHS: {"range": [1, 9]}}}
        first, again, other = (
            [propose(sweep_of(seed=seed, **keys), number, []) for number in range(50)] for seed in (0, 0, 1)
        )
        assert first == again != other
        rates = np.log10([float(setting[LR]) for setting in first if setting])
        assert -6 <= rates.min() < -5.5
        assert -2.5 < rates.max() <= -2
        assert abs(rates.mean() + 4) < 0.5

    def test_random_settings_are_never_tried_twice(self):
        sweep = sweep_of(search="random", trials=6, space={LR: {"choice": [1, 2]}, EPOCHS: {"choice": [1, 2, 3]}})
        found = [propose(sweep, number, []) for number in range(7)]
        assert found.pop() is None
        assert len({str(setting) for setting in found}) == 6

    def known(self, sweep: Sweep, count: int) -> list[Known]:
        """Trials that like a rate of 1e-4."""
        found: list[Known] = []
        for number in range(count):
            setting = propose(sweep, number, found)
            assert setting is not None
            value = 1 - (np.log10(float(setting[LR])) + 4) ** 2 / 10
            found.append(Known(setting, "finished", {1: value}))
        return found

    def test_tpe_follows_from_what_is_known_alone_and_learns_from_it(self):
        sweep = sweep_of(search="tpe", trials=40, space={LR: {"log_range": [1e-7, 1e-1]}})
        found = self.known(sweep, 40)
        assert propose(sweep, 20, found[:20]) == found[20].setting
        off = [abs(np.log10(float(one.setting[LR])) + 4) for one in found]
        assert np.median(off[-20:]) < 0.75  # of decades; at random half would be over 1.5
        worse = [Known(one.setting, "finished", {1: -one.values[1]}) for one in found[:20]]
        assert propose(sweep, 20, worse) != found[20].setting

    def test_tpe_tries_nothing_twice_and_takes_trials_of_every_state(self):
        sweep = sweep_of(search="tpe", trials=6, space={LR: {"choice": [1, 2, 3]}, EPOCHS: {"choice": [1, 2]}})
        found: list[Known] = []
        for number, state in enumerate(("finished", "stopped", "failed", "running", "finished", "finished")):
            setting = propose(sweep, number, found)
            assert setting is not None
            found.append(Known(setting, state, {} if state in ("failed", "running") else {1: 0.5, 2: 0.6}))
        assert len({str(one.setting) for one in found}) == 6
        assert propose(sweep, 6, found) is None

    def test_numbers_keep_their_bounds_and_steps(self):
        space = {
            LR: {"log_range": [1.23456e-5, 1.23457e-5]},
            "a": {"range": [0.1, 0.9], "step": 0.2},
            "b": {"log_range": [2, 64], "integer": True},
        }
        for search in ("random", "tpe"):
            sweep = sweep_of(search=search, trials=20, space=space)
            for number in range(20):
                setting = propose(sweep, number, [])
                assert setting is not None
                assert 1.23456e-5 <= float(setting[LR]) <= 1.23457e-5
                assert setting["a"] in (0.1, 0.3, 0.5, 0.7, 0.9)
                assert setting["b"] in range(2, 65)

    def test_a_star_has_every_value(self):
        sweep = sweep_of(
            search="random", trials=2, space={LR: {"log_range": [1e-6, 1e-2]}, HEAD: {"choice": [1, 2, 3]}}
        )
        assert one_at_a_time(sweep) == [
            {LR: 1e-6, HEAD: "1"},
            {LR: 1e-4, HEAD: "1"},
            {LR: 1e-2, HEAD: "1"},
            {LR: 1e-6, HEAD: "2"},
            {LR: 1e-6, HEAD: "3"},
        ]


class TestWhatIsRefused:
    def test_everything_that_is_wrong_is_told_at_once(self):
        space = {
            "stages.0.optimiser.lr": {"choice": [1, 2]},
            LR: {"choice": [1e-3, -1.0]},
            "stages.0.objectives.4.margin": {"choice": [1, 2]},
            EPOCHS: {"range": [1, 3], "step": 0.5},
        }
        told = []
        for name, axis in space.items():
            with pytest.raises(RecipeError) as caught:
                check_settings(design_of(space={name: axis}))
            told.append(str(caught.value))
        assert "unknown key 'stages.0.optimiser'; did you mean 'optimizer'?" in told[0]
        assert f"{LR} is -1.0: Input should be greater than 0 (with {LR} -1)" in told[1]
        assert "stages.0.objectives.4.margin: " in told[2]
        assert f"{EPOCHS} is 1.5" in told[3]
        with pytest.raises(RecipeError) as caught:
            check_settings(design_of(space={name: space[name] for name in ("stages.0.optimiser.lr", LR)}))
        assert "optimiser" in str(caught.value)
        assert "-1.0" in str(caught.value)

    def test_a_scheduler_that_will_end_nobody_is_told(self):
        asked = {"scheduler": {"kind": "asha"}, "space": {LR: {"choice": [1e-3, 1e-4]}}}
        rare = {EPOCHS: 3, "stages.0.validate_every": 3}
        told = idle_scheduler(design_of(**asked, set=rare))
        assert told is not None
        assert "grace of 1 epochs and before its end (3 epochs, validated every 3)" in told
        assert idle_scheduler(design_of(**asked, set={**rare, EPOCHS: 4})) is None
        assert idle_scheduler(design_of(space=asked["space"], set=rare)) is None
        late = {"scheduler": {"kind": "asha", "grace": 5}, "space": asked["space"]}
        assert idle_scheduler(design_of(**late, set={EPOCHS: 5})) is not None
        assert idle_scheduler(design_of(**late, set={EPOCHS: 6})) is None

    def test_combinations_are_checked_too(self):
        """Each is a recipe by itself, but five epochs of warm-up do not fit into two."""
        space = {EPOCHS: {"choice": [6, 2]}, "stages.0.optimizer.schedule.warmup_epochs": {"choice": [1, 5]}}
        with pytest.raises(RecipeError, match=f"warmup_epochs 5 is longer than epochs 2 .with {EPOCHS} 2, stages.0"):
            check_settings(design_of(space=space))

    def test_a_recipe_that_is_never_validated(self):
        recipe = "name: plain\nmodel: {backbone: {name: handreid-tiny, weights: none}}\n"
        with pytest.raises(RecipeError, match="it has no fine_tune stage"):
            check_settings(
                design_of(recipe, space={"model.head": {"choice": [{"kind": "linear"}, {"kind": "bnneck"}]}})
            )

    def test_validation_that_looks_at_test_identities(self, photos: Path, tmp_path: Path):
        """A split that is given, in which a person trains, is searched among in validation, and is tested."""
        made = manifest.read(photos)
        split = ["train", "train", "test", "test"] * 4 + ["train", "validation", "train", "train"] * 8
        path = tmp_path / "leak.parquet"
        replace(made, table=made.table.with_columns(pl.Series("split", split))).write(path)
        recipe = parse_recipe(MICRO_RECIPE, "micro", ["data.protocol=prepared"])
        with pytest.raises(ProtocolError, match="this sweep would choose by test identities: 4 subjects"):
            check_validation_unseen(load_dataset(recipe, path))
        check_validation_unseen(load_dataset(parse_recipe(MICRO_RECIPE, "micro"), photos))
        closed = parse_recipe(MICRO_RECIPE, "micro", ["data.validation=closed-set"])
        check_validation_unseen(load_dataset(closed, photos))


@pytest.mark.parametrize("name", builtin_sweeps())
def test_built_in_sweeps_fit_their_recipe_and_a_tiny_one(name: str):
    design = load_sweep(name)
    assert (design.sweep.name, bool(design.sweep.about)) == (name, True)
    check_settings(design)
    check_settings(load_sweep(name, recipe="tiny-clip-reid" if name == "tokens" else "tiny-triplet-center-arcface"))


class TestResults:
    entries = [  # noqa: RUF012
        {"stage": 0, "epoch": n, "seconds": 1.0, "validation_map": v, "validation_rank1": r}
        for n, v, r in ((1, 0.5, 0.9), (2, 0.7, 0.6), (3, 0.6, 0.8))
    ]

    def test_the_value_is_that_of_the_weights_that_are_kept(self):
        kept = parse_recipe(MICRO_RECIPE, "micro")
        last = parse_recipe(MICRO_RECIPE, "micro", ["stages.0.keep=last"])
        of = [(reached.epoch, reached.value, reached.of) for reached in series(self.entries, kept, "validation_rank1")]
        assert of == [(1, 0.9, 1), (2, 0.6, 2), (3, 0.6, 2)]
        assert [reached.value for reached in series(self.entries, last, "validation_map")] == [0.5, 0.7, 0.6]

    def test_epochs_of_all_fine_tunings_count(self):
        twice = yaml.safe_load(MICRO_RECIPE)
        twice["stages"] *= 2
        recipe = parse_recipe(yaml.safe_dump(twice), "micro")
        entries = [*self.entries, {**self.entries[0], "stage": 1}]
        (reached,) = series(entries, recipe, "validation_map")
        assert (reached.epoch, reached.of) == (4, 4)

    def test_an_interpolation_counts_as_it_was_taken(self, tmp_path: Path):
        recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages.0.wise_ft={}"])
        write_metrics(Run(tmp_path), self.entries)
        before = outcome(tmp_path, recipe, "validation_map")
        assert (before.value, before.epoch, before.done, before.epochs, before.seconds) == (0.7, 2, 3, 3, 3.0)
        (tmp_path / "stages/0-fine_tune").mkdir(parents=True)
        points = [{"alpha": None, "map": 0.7}, {"alpha": 0.4, "map": 0.8}]
        (tmp_path / "stages/0-fine_tune/wise_ft.json").write_text(json.dumps({"best": 0.4, "points": points}))
        after = outcome(tmp_path, recipe, "validation_map")
        assert (after.value, after.epoch) == (0.8, None)


def entry(number: int, setting: int, parameters: Setting, value: float | None, **keys: Any) -> dict[str, Any]:
    standard = {"seed": 0, "state": "finished", "epoch": 1, "done": 2, "epochs": 2, "seconds": 1.0, "message": None}
    folder = f"trials/{number}"
    return {
        "number": number,
        "setting": setting,
        "parameters": parameters,
        "value": value,
        "folder": folder,
        **standard,
        **keys,
    }


class TestWhatFollows:
    def test_the_parameter_that_matters_is_found(self):
        sweep = sweep_of(space={LR: {"choice": [1, 2, 3]}, HEAD: {"choice": ["a", "b", "c"]}})
        values = {"1": 0.2, "2": 0.5, "3": 0.9}
        trials = [
            entry(n, n, setting, values[str(setting[LR])] + 0.01 * (setting[HEAD] == "b"))
            for n, setting in enumerate(grid(sweep), 1)
        ]
        found = importance(sweep, trials)
        assert list(found["parameters"]) == [LR, HEAD]
        assert found["parameters"][LR] > 0.95
        assert found["remark"] == "9 trials are few for 2 parameters: a hint, not a measurement"
        stopped = entry(10, 10, {LR: "1", HEAD: "c"}, 99.0, state="stopped")
        assert importance(sweep, [*trials, stopped]) == found

    def test_what_matters_less_than_the_seed_is_noise(self):
        sweep = sweep_of(seeds=[0, 1, 2])
        trials = [
            entry(3 * place + seed, place, setting, 0.3 * seed + 0.01 * place, seed=seed)
            for place, setting in enumerate(grid(sweep))
            for seed in range(3)
        ]
        assert importance(sweep, trials)["parameters"]["seed"] > 0.95

    def test_importance_that_is_not_known_is_said_to_be(self):
        sweep = sweep_of(space={LR: {"choice": [1, 2, 3, 4, 5]}})
        few = [entry(n, n, setting, 0.1 * n) for n, setting in enumerate(grid(sweep), 1)]
        assert importance(sweep, few[:3])["remark"] == "importance is not known: only 3 trials finished"
        assert importance(sweep, few)["remark"].startswith("one parameter alone")
        same = [one | {"value": 0.5} for one in few]
        assert importance(sweep, same)["remark"] == "importance is not known: no two finished trials differ"

    def test_settings_are_ordered_by_their_mean_over_seeds(self):
        trials = [
            entry(1, 1, {LR: "1"}, 0.9, seed=0),
            entry(2, 1, {LR: "1"}, 0.1, seed=1),
            entry(3, 2, {LR: "2"}, 0.6, seed=0),
            entry(4, 2, {LR: "2"}, 0.7, seed=1),
            entry(5, 3, {LR: "3"}, None, state="failed", message="no"),
        ]
        found = summarise_settings(trials)
        assert [one["setting"] for one in found] == [2, 1, 3]
        assert (found[0]["value"], found[0]["low"], found[0]["high"]) == (pytest.approx(0.65), 0.6, 0.7)
        assert found[2]["value"] is None

    def test_the_picture_shows_every_validated_trial_in_every_panel(self):
        sweep = sweep_of(
            search="random", trials=8, space={LR: {"log_range": [1e-5, 1e-2]}, HEAD: {"choice": ["a", "b"]}}
        )
        drawn = [propose(sweep, number, []) or {} for number in range(8)]
        trials = [entry(n, n, setting, 0.05 * n) for n, setting in enumerate(drawn, 1)]
        trials[2] |= {"state": "stopped"}
        trials[3] |= {"state": "failed", "value": None}
        found = summarise_settings(trials)
        content = {
            "sweep": "s",
            "metric": "validation_map",
            "seeds": [],
            "short_names": short_names([*sweep.space]),
            "identity": sweep.model_dump(mode="json"),
            "trials": trials,
            "best": found[0],
            "importance": importance(sweep, trials),
        }
        figure = draw(content)
        lr, head = sorted(figure.axes, key=lambda axes: axes.get_xscale() != "log")
        for axes in (lr, head):
            points = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
            assert sorted(points) == pytest.approx([5.0, 10, 15, 25, 30, 35, 40])
        assert lr.get_xscale() == "log"
        assert [label.get_text() for label in head.get_xticklabels()] == ["a", "b"]
        hollow = [line for line in lr.lines if line.get_markerfacecolor() == "white"]
        assert [line.get_ydata()[0] for line in hollow] == pytest.approx([15.0])
        assert "8 trials (6 finished, 1 stopped, 1 failed)" in caption(content)
        assert f"{found[0]['parameters'][HEAD]}, 40.0 %" in caption(content)


def test_a_scheduler_that_is_started_anew_decides_as_the_old_one():
    from handreid.sweep.ray_tune import asha_scheduler, replay

    def told(number: int, values: list[float], *, scheduler: Any) -> str:
        past = replay(scheduler, f"t{number}", "m", dict(enumerate(values[:-1], 1)))
        return str(scheduler.on_trial_result(None, past, {"epoch": len(values), "m": values[-1]}))

    asked = Asha(grace=2, reduction=2)
    rungs = {}
    for known in (True, False):
        scheduler = asha_scheduler(asked, "m", longest=9)
        if known:
            replay(scheduler, "before", "m", {1: 0.1, 2: 0.5, 3: 0.6, 4: 0.7})
        behind, ahead = told(1, [0.9, 0.4], scheduler=scheduler), told(2, [0.1, 0.6], scheduler=scheduler)
        rungs[known] = behind, ahead
    assert rungs == {True: ("STOP", "CONTINUE"), False: ("CONTINUE", "CONTINUE")}


# From here on sweeps are run: as the command line runs them, on one Ray that is started once, at the beginning.


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 people with 4 photos each who are hard to tell apart."""
    root = tmp_path_factory.mktemp("alike")
    for person in range(16):
        base = np.full((40, 48, 3), 120.0)
        base[:, 2 * person + 4 :][:, :5] += 60
        for shot in range(4):
            noisy = base + np.random.default_rng([person, shot]).normal(0, 55, base.shape)
            path = root / f"p{person:02d}" / f"{shot}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    path = root / "manifest.parquet"
    sources.folders(root).write(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "micro.yaml").write_text(MICRO_RECIPE)
    return tmp_path


def written(folder: Path, **keys: Any) -> Path:
    content = {"name": "micro-sweep", "recipe": "micro.yaml", "cpus": 1, "concurrent": 1, **keys}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def trials_of(out: Path) -> list[dict[str, Any]]:
    found = json.loads((out / "sweep.json").read_text())["trials"]
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in found]


@pytest.fixture(scope="module")
def seeded(ray: Resources, alike: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Called, Path]:
    """A sweep of three settings with two seeds each, the first of which fails."""
    folder = tmp_path_factory.mktemp("seeded")
    (folder / "micro.yaml").write_text(MICRO_RECIPE)
    sweep = written(folder, space={LR: {"choice": [1e30, 1e-3, 1e-5]}}, seeds=[3, 5], set=SHORT)
    return handreid("sweep", sweep, "--data", alike, "--out", folder / "out", "--json"), folder / "out"


@pytest.fixture(scope="module")
def halved(ray: Resources, alike: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose settings TPE proposes, and of whose trials ASHA stops some."""
    folder = tmp_path_factory.mktemp("halved")
    (folder / "micro.yaml").write_text(MICRO_RECIPE)
    space = {LR: {"log_range": [1e-6, 1e-2]}, HEAD: {"choice": [{"kind": "linear"}, {"kind": "bnneck"}]}}
    halving = {"kind": "asha", "grace": 1, "reduction": 2}
    sweep = written(folder, space=space, search="tpe", trials=6, scheduler=halving, set={EPOCHS: 4})
    assert handreid("sweep", sweep, "--data", alike, "--out", folder / "whole").code == 0
    return folder / "whole"


def resumed(out: Path) -> Called:
    return without_page("sweep", "--resume", out)


def without_page(*words: object) -> Called:
    """A sweep without its page, which is of the same trials as one that a test has already written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handreid.cli.sweep.after_sweep", lambda folder: [])
        return handreid(*words)


def in_this_process(going: SweepState, address: str | None) -> None:
    """Trains as Ray does, one trial after another, without it."""
    from handreid.sweep.ray_tune import SweepSearcher
    from handreid.sweep.train_trial import train_trial

    assert address is None
    searcher = SweepSearcher(going, Resources(1, 0.0, 1, going.notes.folder), lambda done: None)
    while isinstance(config := searcher.suggest("next"), dict):
        reports: list[dict[str, Any]] = []
        train_trial(config, reports.append)
        searcher.on_trial_complete("next", reports[-1])


GRID = {LR: {"choice": [1e-3, 1e-5]}, "head": {"together": {"plain": {HEAD: {"kind": "linear"}}, "neck": {}}}}


SHORT = {EPOCHS: 1, "stages.0.optimizer.schedule": {"kind": "constant"}}


@pytest.mark.usefixtures("ray")
class TestSweep:
    def test_a_grid_of_ordinary_runs(self, folder: Path, alike: Path):
        sweep, out = written(folder, space=GRID, set={EPOCHS: 2}, concurrent=2), folder / "out"
        called = handreid("sweep", sweep, "--data", alike, "--out", out)
        assert called.code == 0, called.err
        content = json.loads((out / "sweep.json").read_text())
        names = [trial["name"] for trial in content["trials"]]
        assert names == [
            "001-lr-0.001-head-plain",
            "002-lr-0.001-head-neck",
            "003-lr-1e-5-head-plain",
            "004-lr-1e-5-head-neck",
        ]
        assert all(trial["state"] == "finished" for trial in content["trials"])
        for trial in content["trials"]:
            lines = [json.loads(line) for line in (out / trial["folder"] / "metrics.jsonl").read_text().splitlines()]
            assert trial["value"] == max(line["validation_map"] for line in lines)
            told = f"[{trial['number']}/4] lr {trial['parameters'][LR]}, head {trial['parameters']['head']}: "
            assert [f"{told}epoch {epoch} of 2" in called.err for epoch in (1, 2)] == [True, True]
        best = max(content["trials"], key=lambda trial: (trial["value"], -trial["number"]))
        assert content["best"]["parameters"] == best["parameters"]
        assert not list(out.rglob("evaluation*.json"))
        assert f"that you choose: handreid evaluate {out}/{best['folder']}" in called.out
        for name in ("sweep.md", "sweep.png", "sweep.txt", "best.yaml"):
            assert (out / name).stat().st_size
        page = (out / "report.html").read_text()
        assert all(trial["name"] in page for trial in content["trials"])
        assert "no test identity" in page or "used test identities" in page
        again = handreid("report", out, "--out", folder / "again.html")
        assert (again.code, again.err.count("\n")) == (0, 0), again.err
        assert not [path for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock"]

        self.usable(out, best, alike)
        self.not_done_again(sweep, out, alike)

    def usable(self, out: Path, best: dict[str, Any], alike: Path) -> None:
        trial = out / best["folder"]
        assert handreid("evaluate", trial).code == 0
        assert json.loads((trial / "evaluation.json").read_text())["recipe"] == best["name"]
        again = handreid("train", out / "best.yaml", "--data", alike, "--out", out.parent / "best")
        assert again.code == 0, again.err
        assert (out.parent / "best/model.safetensors").read_bytes() == (trial / "model.safetensors").read_bytes()

    def not_done_again(self, sweep: Path, out: Path, alike: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in (out / "trials").rglob("*")}
        assert without_page("sweep", sweep, "--data", alike, "--out", out).code == 0
        assert resumed(out).code == 0
        assert {path: path.stat().st_mtime_ns for path in (out / "trials").rglob("*")} == before
        changed = written(sweep.parent, space=GRID, set={EPOCHS: 3})
        assert complaint("sweep", changed, "--data", alike, "--out", out).startswith(
            f"RunError: {out} holds another sweep (set.{EPOCHS} was 2, now 3); choose another --out"
        )
        other = complaint("sweep", sweep, "--data", alike, "--out", out.parent)
        assert other.startswith(f"RunError: {out.parent} is not empty and holds no sweep")

    def test_a_trial_that_fails_is_noted_and_the_others_go_on(self, seeded: tuple[Called, Path]):
        called, out = seeded
        assert called.code == 0, called.err
        trials = json.loads(called.out)["trials"]
        assert [trial["state"] for trial in trials] == ["failed"] * 2 + ["finished"] * 4
        assert all(trial["message"].startswith("the loss is nan in epoch 1") for trial in trials[:2])
        assert "[1/6] lr 1e30, seed 3: failed after epoch 0 of 1: the loss is nan" in called.err
        assert "failed: the loss is nan" in (out / "sweep.md").read_text()

    def test_a_sweep_of_which_all_trials_fail_is_an_error(
        self, folder: Path, alike: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("handreid.sweep.run._train", in_this_process)
        sweep = written(folder, space={LR: {"choice": [1e30, 2e30]}}, set=SHORT)
        called = handreid("sweep", sweep, "--data", alike, "--out", folder / "all")
        assert (called.code, called.out) == (2, "")
        assert called.err.splitlines()[-1].startswith("RunError: all 2 trials failed; 001-lr-1e30: the loss is nan")

    def test_asha_stops_trials_that_are_behind_and_they_can_be_resumed(self, halved: Path, tmp_path: Path):
        found = trials_of(halved)
        stopped = [trial for trial in found if trial["state"] == "stopped"]
        assert stopped
        assert {trial["state"] for trial in found} == {"finished", "stopped"}
        for trial in stopped:
            run = halved / trial["folder"]
            assert trial["done"] == len((run / "metrics.jsonl").read_text().splitlines()) < 4
            assert not (run / "model.safetensors").exists()
            assert f"| stopped at epoch {trial['done']} of 4 |" in (halved / "sweep.md").read_text()
        run = shutil.copytree(halved / stopped[0]["folder"], tmp_path / "resumed")
        assert handreid("train", "--resume", "--out", run).code == 0
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 4

    def test_seeds_are_repeated_and_not_chosen(self, seeded: tuple[Called, Path]):
        _, out = seeded
        found = trials_of(out)
        assert [(trial["setting"], trial["seed"]) for trial in found] == [
            (setting, seed) for setting in (1, 2, 3) for seed in (3, 5)
        ]
        seeds = [yaml.safe_load((out / trial["folder"] / "recipe.yaml").read_text())["seed"] for trial in found[2:]]
        assert seeds == [3, 5, 3, 5]
        assert found[2]["value"] != found[3]["value"]
        best = json.loads((out / "sweep.json").read_text())["best"]
        means = [np.mean([t["value"] for t in found[first : first + 2]]) for first in (2, 4)]
        assert best["value"] == pytest.approx(max(means))
        assert yaml.safe_load((out / "best.yaml").read_text())["seed"] == 0


@pytest.mark.parametrize("end", ["killed", "abandoned", "stopped"])
def test_a_trial_has_a_process_of_its_own(ray: Resources, alike: Path, tmp_path: Path, end: str):
    """That process ends alone, also when whoever asked for the trial is gone, and its run can be resumed."""
    folder, before = tmp_path / "run", processes()
    recipe = parse_recipe(MICRO_RECIPE, "micro", [f"{EPOCHS}=6"])
    config = {"recipe": dump_recipe(recipe), "folder": str(folder), "data": str(alike), "metric": "validation_map"}
    assert ray.server is not None
    with Client(ray.server, "AF_UNIX") as connection:
        connection.send(({**config, "threads": 1, "track": []}, dict(os.environ), str(tmp_path)))
        assert connection.recv()["epoch"] == 1
        parents = processes()
        started = descendants(os.getpid()) - before.keys()
        (trial,) = (one for one in started if name_of(one) == name_of(parents[one]))  # a fork has its parent's name
        if end == "killed":
            os.kill(trial, signal.SIGKILL)
            with pytest.raises((EOFError, OSError)):
                connection.recv()
        elif end == "stopped":
            connection.send(False)
            assert connection.poll(30)
    wait_for_end({trial})
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert handreid("train", "--resume", "--out", folder).code == 0


STAND_IN = """
import os, sys, types

def train_trial(config, report):
    report({**config, "process": os.getpid(), "place": os.getcwd(), "named": os.environ["NAMED"]})
    report({"server": os.getppid()})

sys.modules["handreid.sweep.train_trial"] = types.SimpleNamespace(train_trial=train_trial)
"""


def test_a_trial_server_is_a_python_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As users have it, but for what it trains with, which takes a quarter of a minute to be imported."""
    monkeypatch.setattr(trial_server, "start", START)
    (tmp_path / "sitecustomize.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / "place").mkdir()
    with tempfile.TemporaryDirectory() as short, trial_server.serving(Path(short), 3) as address:
        with Client(address, "AF_UNIX") as connection:
            connection.send(({"asked": 1}, {**os.environ, "NAMED": "so"}, str(tmp_path / "place")))
            first = connection.recv()
            connection.send(True)
            second = connection.recv()
            connection.send(True)
            assert connection.recv() is None
        process, server = first.pop("process"), second["server"]
        assert first == {"asked": 1, "place": str(tmp_path / "place"), "named": "so"}
        assert server in descendants(os.getpid())
        assert os.getsid(server) == server != process
        environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
        assert b"OMP_NUM_THREADS=3" in environment
    assert not {process, server} & processes().keys()


@pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux only")
def test_a_socket_whose_path_is_too_long_for_the_system_is_known_before(tmp_path: Path):
    refused = pytest.raises(OSError, match="too long")
    for length, fits in ((107, True), (108, False)):
        folder = tmp_path / ("x" * (length - len(str(tmp_path)) - len("/") - len("/trials.sock")))
        folder.mkdir()
        assert trial_server.available(folder) == fits
        with socket.socket(socket.AF_UNIX) as listener, contextlib.nullcontext() if fits else refused:
            listener.bind(str(folder / "trials.sock"))


@pytest.mark.usefixtures("ray")
def test_a_sweep_that_was_killed_ends_with_the_same_table(halved: Path, alike: Path):
    """Searcher and scheduler too: what TPE proposes and ASHA stops follows from what trials before gave."""
    whole, cut = halved, halved.parent / "cut"
    with SweepCommandLine("sweep", halved.parent / "sweep.yaml", "--data", alike, "--out", cut) as going:
        while len(list(cut.glob("trials/*/stages/*/last.ckpt"))) < 3 and going.poll() is None:
            time.sleep(0.01)
        assert going.poll() is None, going.communicate()[1]
        refused = complaint("sweep", "--resume", cut)
        assert refused.startswith(
            f"RunError: {cut} is in use: another process works on this sweep; wait for it, or stop it"
        )
        assert going.process.pid is not None
        started = descendants(going.process.pid)
        assert len(started) > 2
        going.send_signal(signal.SIGKILL)
    wait_for_end(started)
    begun = trials_of(cut)
    assert 3 <= len(begun) < 6
    assert [trial["state"] for trial in begun].count("running") == 1

    assert resumed(cut).code == 0
    assert trials_of(cut) == trials_of(whole)
    assert {trial["state"] for trial in trials_of(whole)} == {"finished", "stopped"}
    for trial in trials_of(whole):
        for name in ("model.safetensors", "metrics.jsonl"):
            expected, model = (out / trial["folder"] / name for out in (whole, cut))
            assert expected.exists() == model.exists()
            if name == "model.safetensors" and expected.exists():
                assert expected.read_bytes() == model.read_bytes()
    assert (cut / "best.yaml").read_text() == (whole / "best.yaml").read_text()


def processes() -> dict[int, int]:
    """Those that run: process and parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def descendants(process: int) -> set[int]:
    parents = processes()
    found, added = {process}, {process}
    while added:
        added = {child for child, parent in parents.items() if parent in added}
        found |= added
    return found - {process}


def wait_for_end(started: set[int]) -> None:
    """All that a command started ends by itself when the command was killed: Ray's processes, and the trials."""
    until = time.monotonic() + 30
    while left := [one for one in started & processes().keys() if not late(one)]:
        assert time.monotonic() < until, f"still there: {[name_of(one) for one in left]}"
        time.sleep(0.1)


def late(process: int) -> bool:
    """Ray's two agents of a machine notice its end up to minutes later; they write nothing into a sweep."""
    return name_of(process).startswith((b"ray::DashboardAgent", b"ray::RuntimeEnvAgent", b"gone"))


def name_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b"gone"
