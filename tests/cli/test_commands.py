"""The command line as a person drives it: what it prints, what it leaves behind, how it says what is wrong."""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from PIL import Image

from handreid import __version__, cli
from handreid.cli.data import Source
from handreid.cli.ladder import DEMO, SMALL_LADDER
from handreid.cli.options import Label, Protocol, View
from handreid.data import sources
from handreid.data.manifest import read
from handreid.files import read_json
from handreid.recipe import Data, builtin_names
from handreid.runs.folder import open_run
from handreid.training.epoch_callback import read_checkpoint_progress
from tests.conftest import MICRO_RECIPE
from tests.forks import CommandLine

METRICS = {
    *("rank1", "rank5", "rank10", "map", "map_trapezoid", "mrr", "minp", "r_precision", "map_at_r"),
    *("identity_rank1", "identity_rank5", "identity_rank10"),
}


@dataclass(frozen=True)
class Called:
    code: object
    out: str
    err: str


def handreid(*arguments: object) -> Called:
    """What the `handreid` command does, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["handreid", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
    return Called(left.value.code, out.getvalue(), err.getvalue())


def complaint(*arguments: object) -> str:
    """The one line with which a command refuses."""
    called = handreid(*arguments)
    (line,) = called.err.strip().splitlines()
    assert (called.code, called.out) == (2, "")
    return line


def photo(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (shade, 100, 100)).save(path)
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "micro.yaml"
    path.write_text(MICRO_RECIPE)
    return path


@pytest.fixture(scope="module")
def trained(photos: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "micro"
    called = handreid("train", recipe, "--data", photos, "--out", out)
    assert called.code == 0, called.err
    assert called.out == f"{out / 'model.safetensors'} is ready; next: handreid evaluate {out}\n"
    assert "epoch 3/3" in called.err
    return out


class TestTheWhole:
    def test_help_loads_nothing_heavy(self):
        """Torch alone takes longer than a person waits. (Typer itself may use pydantic for the help of a command.)"""
        code = (
            "import sys, contextlib, io\n"
            "from handreid.cli import main\n"
            "def loaded(*commands):\n"
            "    for words in commands:\n"
            "        sys.argv = ['handreid', *words.split()]\n"
            "        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
            "            main()\n"
            "    heavy = {'torch', 'lightning', 'open_clip', 'polars', 'numpy', 'yaml', 'pydantic'}\n"
            "    return sorted(heavy & sys.modules.keys())\n"
            "print(loaded('--help', '--version'))\n"
            "print(loaded('train --help', 'evaluate --help', 'data --help', 'data prepare --help'))\n"
        )
        found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert found.stdout.splitlines()[0] == "[]"
        assert found.stdout.splitlines()[1] in ("[]", "['pydantic']")

    def test_the_installed_command_and_the_module_are_the_same(self):
        command = Path(sys.executable).with_name("handreid")
        for start in ([str(command)], [sys.executable, "-m", "handreid"]):
            said = subprocess.run([*start, "--version"], check=True, capture_output=True, text=True).stdout
            assert said == f"handreid {__version__}\n"

    def test_help_without_a_command(self):
        called = handreid()
        assert all(name in called.out + called.err for name in ("data", "train", "evaluate", "ladder", "demo"))

    def test_choices_are_those_of_recipes_and_sources(self):
        fields = Data.model_fields
        for choices, name in ((Protocol, "protocol"), (View, "view"), (Label, "label")):
            assert [one.value for one in choices] == list(get_args(fields[name].annotation))
        assert all(hasattr(sources, one.value) for one in Source)

    def test_recipes_are_listed_for_people_and_programs(self):
        listed = handreid("recipes").out
        assert all(name in listed for name in builtin_names())
        found = json.loads(handreid("recipes", "--json").out)
        assert sorted(found) == builtin_names()
        assert found["stage1-cross-entropy"]["stages"][0]["optimizer"]["lr"] == 5e-6


class TestPrepare:
    def test_folders(self, tmp_path: Path):
        for name, shade in (("anna", 10), ("ben", 20)):
            photo(tmp_path / "photos" / name / "1.jpg", shade)
        called = handreid("data", "prepare", "folders", tmp_path / "photos", "--out", tmp_path / "m.parquet")
        manifest = read(tmp_path / "m.parquet")
        assert called.code == 0
        assert called.out.endswith(f"m.parquet: 2 photos of 2 subjects, hash {manifest.hash[:16]}\n")
        assert manifest.table["subject"].to_list() == ["anna", "ben"]

    def test_csv(self, tmp_path: Path):
        photo(tmp_path / "a.png", 10)
        (tmp_path / "hands.csv").write_text("path,subject,side,age\na.png,anna,left,31\n")
        called = handreid("data", "prepare", "csv", tmp_path / "hands.csv", "--out", tmp_path / "m.csv")
        assert called.code == 0
        assert "note: 1 photos; metadata columns: age" in called.out
        assert read(tmp_path / "m.csv").table["age"].to_list() == [31]

    def test_hands11k_with_an_absent_photo(self, tmp_path: Path):
        (tmp_path / "HandInfo.csv").write_text(
            "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities\n"
            "7,22,male,fair,0,0,dorsal right,Hand_1.jpg,0\n"
            "9 ,23,female,dark,1,0,palmar left,Hand_2.jpg,0\n"
        )
        photo(tmp_path / "Hands" / "Hand_1.jpg", 10)
        asked = ("data", "prepare", "hands11k", tmp_path, "--out", tmp_path / "m.parquet")
        said = complaint(*asked)
        assert said.startswith("ManifestError: ")
        assert "1 of the 2 photos in HandInfo.csv are missing (Hands/Hand_2.jpg)" in said
        assert said.endswith("--allow-missing")
        assert not (tmp_path / "m.parquet").exists()
        called = handreid(*asked, "--allow-missing")
        assert "1 photos are missing, their rows are left out: Hands/Hand_2.jpg" in called.out
        assert read(tmp_path / "m.parquet").views == ("dorsal-right",)

    def test_hd(self, tmp_path: Path):
        photo(tmp_path / "1-501" / "3_1.jpg", 10)
        photo(tmp_path / "502-712" / "3_1.jpg", 20)
        called = handreid("data", "prepare", "hd", tmp_path, "--out", tmp_path / "m.parquet")
        assert called.code == 0
        assert read(tmp_path / "m.parquet").table["subject"].to_list() == ["3", "1003"]

    def test_what_is_wrong_is_said_in_a_line(self, tmp_path: Path):
        out = ("--out", tmp_path / "m.parquet")
        assert complaint("data", "prepare", "folders", tmp_path / "none", *out) == (
            f"ManifestError: {tmp_path / 'none'}: no such folder"
        )
        (tmp_path / "hands.csv").write_text("path,subject,side\na.jpg,anna,left\nb.jpg,ben,rigth\n")
        assert complaint("data", "prepare", "csv", tmp_path / "hands.csv", *out) == (
            "ManifestError: hands.csv line 3: side 'rigth' is not one of left, right (did you mean 'right'?)"
        )
        photo(tmp_path / "photos" / "anna" / "1.jpg", 10)
        said = complaint("data", "prepare", "folders", tmp_path / "photos", "--out", tmp_path / "m.xlsx")
        assert "the suffix must be .parquet or .csv, not '.xlsx'" in said
        assert not list(tmp_path.glob("m.*"))

    def test_a_misspelt_source_or_option_shows_the_right_ones(self, tmp_path: Path):
        for words in (["hands12k", tmp_path, "--out", "m.parquet"], ["folders", tmp_path, "--outt", "m.parquet"]):
            called = handreid("data", "prepare", *words)
            assert called.code == 2
            assert "Traceback" not in called.err
            assert "hands11k" in called.err or "--out" in called.err


class TestCheckAndDescribe:
    def test_photos_in_order(self, photos: Path):
        called = handreid("data", "check", photos)
        assert (called.code, called.out) == (0, f"{photos}: 48 photos, 0 errors, 0 warnings\n")
        assert "checking photos: 48 photos" in called.err

    def test_errors_are_named_and_exit_with_1(self, tmp_path: Path):
        photo(tmp_path / "photos/anna/1.png", 10)
        photo(tmp_path / "photos/ben/1.png", 10)
        cut = photo(tmp_path / "photos/carl/1.png", 30)
        handreid("data", "prepare", "folders", tmp_path / "photos", "--out", tmp_path / "m.parquet")
        cut.write_bytes(cut.read_bytes()[:45])
        called = handreid("data", "check", tmp_path / "m.parquet")
        assert called.code == 1
        errors = [line for line in called.out.splitlines() if line.startswith("error: ")]
        wanted = ("1 of 3 photos are not the files", "cannot be decoded", "the same pixels under 2 subjects")
        assert len(errors) == len(wanted)
        assert all(any(words in error for error in errors) for words in wanted)
        quick = handreid("data", "check", tmp_path / "m.parquet", "--no-pixels")
        assert (quick.code, quick.out.count("error: ")) == (0, 0)

    def test_describe_for_people_and_programs(self, photos: Path):
        told, found = (
            handreid("data", "describe", photos).out,
            json.loads(handreid("data", "describe", photos, "--json").out),
        )
        assert (found["photos"], found["subjects"]) == (48, 12)
        assert told.startswith("48 photos of 12 subjects, folders")
        assert found["hash"][:16] in told
        assert found["protocols"]["disjoint"]["pooled"]["draws_hash"][:8] in told

    def test_no_such_manifest(self, tmp_path: Path):
        for command in ("check", "describe"):
            assert "no such file; make one with `handreid data prepare`" in complaint(
                "data", command, tmp_path / "m.parquet"
            )


class TestTrain:
    def test_the_run_says_what_it_was(self, trained: Path):
        facts = json.loads((trained / "run.json").read_text())
        assert facts["command"][:2] == ["handreid", "train"]
        assert {"manifest_hash", "split_hash", "draws_hash", "versions", "seed"} <= facts.keys()
        assert "resamples: 200" in (trained / "recipe.yaml").read_text()

    def test_set_changes_the_recipe(self, photos: Path, recipe: Path, tmp_path: Path):
        called = handreid(
            "train",
            recipe,
            "--data",
            photos,
            "--out",
            tmp_path / "run",
            "--set",
            "stages.0.epochs=1",
            "--set",
            "seed=5",
        )
        assert called.code == 0
        assert (tmp_path / "run/recipe.yaml").read_text().count("seed: 5") == 1
        assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1

    def test_resuming_what_is_finished_does_nothing_and_says_so(self, trained: Path):
        before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
        called = handreid("train", "--resume", "--out", trained)
        assert called.code == 0
        assert called.out.startswith(f"{trained / 'model.safetensors'} was ready;")
        assert "epoch" not in called.err
        assert {path: path.stat().st_mtime_ns for path in before} == before

    def test_what_is_wrong_is_said_in_a_line(self, photos: Path, recipe: Path, trained: Path, tmp_path: Path):
        here = ("--data", photos, "--out", tmp_path / "run")
        assert "no recipe 'tiny-cross-entropi'" in complaint("train", "tiny-cross-entropi", *here)
        assert "did you mean 'tiny-cross-entropy' or" in complaint("train", "tiny-cross-entropi", *here)
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(MICRO_RECIPE.replace("batch_size", "batchsize"))
        line = wrong.read_text().splitlines().index("    batchsize: 8") + 1
        assert complaint("train", wrong, *here) == (
            f"RecipeError: {wrong} line {line}: unknown key 'stages.0.batchsize'; did you mean 'batch_size'?"
        )
        assert "write it as path.to.key=value" in complaint("train", recipe, *here, "--set", "seed")
        assert "unknown key 'sede'; did you mean 'seed'?" in complaint("train", recipe, *here, "--set", "sede=1")
        assert "--set seed=1 changes a recipe, but no recipe is given" in complaint(
            "train", "--resume", "--out", trained, "--set", "seed=1"
        )
        assert "use --data MANIFEST" in complaint("train", recipe, "--out", tmp_path / "run")
        assert "is not empty; choose another --out" in complaint("train", recipe, "--data", photos, "--out", trained)
        assert "holds no run to resume" in complaint("train", "--resume", "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_weights_that_cannot_be_had(self, photos: Path, recipe: Path, tmp_path: Path):
        refused = handreid(
            "train", recipe, "--data", photos, "--out", tmp_path / "run", "--set", "model.backbone.weights=nowhere.pt"
        )
        assert refused.code == 2
        assert refused.err.splitlines()[-1].startswith("WeightsError: weights 'nowhere.pt': no such file")
        assert "Traceback" not in refused.err

    def test_ctrl_c_leaves_a_run_that_resumes_and_one_line(self, photos: Path, recipe: Path, tmp_path: Path):
        out, epochs = tmp_path / "run", 12
        words = ("train", recipe, "--data", photos, "--out", out, "--set", f"stages.0.epochs={epochs}")
        going = CommandLine(*words)
        going.wait_for(out / "stages/0-fine_tune/last.ckpt")
        going.send_signal(signal.SIGINT)
        said, told = going.communicate(timeout=60)
        assert (going.returncode, said) == (130, "")
        assert told.splitlines()[-1] == f"stopped; to continue: handreid train --resume --out {out}"
        assert "Traceback" not in told
        done, finished = read_checkpoint_progress(out / "stages/0-fine_tune") or (0, True)
        assert 0 < done < epochs
        assert not finished
        assert complaint("evaluate", out) == (
            f"RunError: {out} is not finished; continue with `handreid train --resume --out {out}`"
        )
        assert handreid("train", "--resume", "--out", out).code == 0
        assert len((out / "metrics.jsonl").read_text().splitlines()) == epochs


class TestEvaluate:
    def test_table_file_and_json_agree(self, trained: Path):
        told = handreid("evaluate", trained)
        printed = json.loads(handreid("evaluate", trained, "--json").out)
        written = read_json(trained / "evaluation.json")
        assert told.code == 0
        assert printed == written | {"environment": printed["environment"]}
        rank1 = written["metrics"]["rank1"]
        assert f"{100 * rank1['value']:.1f} [{100 * rank1['low']:.1f}, {100 * rank1['high']:.1f}]" in told.out
        assert f"written to {trained / 'evaluation.json'}" in told.out

    def test_what_evaluation_json_holds(self, trained: Path):
        found = json.loads(handreid("evaluate", trained, "--json").out)
        assert found["metrics"].keys() == METRICS
        for metric in found["metrics"].values():
            assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
        facts = json.loads((trained / "run.json").read_text())
        for name in ("manifest", "split", "draws"):
            assert found["hashes"][name] == facts[f"{name}_hash"]
        assert found["counts"] | {"dim": 0} == {
            "queries": 15,
            "subjects": 5,
            "unanswerable": 0,
            "gallery": 5,
            "identities": 5,
            "draws": 3,
            "dim": 0,
        }
        assert [len(draw["query"]) for draw in found["draws"]] == [15, 15, 15]
        first = [[min(ranks) for ranks in draw["ranks"]] for draw in found["draws"]]
        assert np.mean(np.array(first) == 1) == pytest.approx(found["metrics"]["rank1"]["value"])
        assert np.mean(1 / np.array(first)) == pytest.approx(found["metrics"]["mrr"]["value"])

    def test_another_question_gets_a_file_of_its_own(self, trained: Path):
        handreid("evaluate", trained)
        before = (trained / "evaluation.json").read_bytes()
        called = handreid("evaluate", trained, "--flip-tta")
        written = Path(called.out.splitlines()[-1].removeprefix("written to "))
        assert written.name.startswith("evaluation-disjoint-subject-all-")
        assert written.name.endswith("-flip-tta.json")
        assert json.loads(written.read_text())["flip_tta"] is True
        assert (trained / "evaluation.json").read_bytes() == before

    def test_other_data(self, trained: Path, tmp_path: Path):
        for person, shade in (("x", 10), ("y", 90), ("z", 170), ("w", 240)):
            for shot in range(3):
                photo(tmp_path / "photos" / person / f"{shot}.png", shade + shot)
        handreid("data", "prepare", "folders", tmp_path / "photos", "--out", tmp_path / "m.parquet")
        found = json.loads(handreid("evaluate", trained, "--data", tmp_path / "m.parquet", "--json").out)
        assert found["hashes"]["manifest"] == read(tmp_path / "m.parquet").hash
        assert set(found["subjects"]) < {"x", "y", "z", "w"}

    def test_what_is_wrong_is_said_in_a_line(self, trained: Path, tmp_path: Path):
        assert "is not a run folder" in complaint("evaluate", tmp_path)
        assert "needs photos with split 'train'" in complaint("evaluate", trained, "--protocol", "prepared")
        assert "no photo of view 'dorsal-right'" in complaint("evaluate", trained, "--view", "dorsal-right")
        for option in (("--label", "person"), ("--view", "dorsal"), ("--protocol", "market")):
            refused = handreid("evaluate", trained, *option)
            assert refused.code == 2
            assert "Traceback" not in refused.err
        broken = shutil.copytree(trained, tmp_path / "broken")
        (broken / "model.safetensors").write_bytes(b"half")
        refused = handreid("evaluate", broken)
        assert (refused.code, "RunError: " in refused.err.splitlines()[-1]) == (2, True)


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The micro tower as it comes, and trained."""
    low, high = (tmp_path_factory.mktemp("rungs") / name for name in ("low.yaml", "high.yaml"))
    zero_shot = MICRO_RECIPE.split("stages:")[0] + "evaluate: {draws: 3, resamples: 200}\n"
    low.write_text(zero_shot.replace("name: micro\n", "name: low\n", 1))
    high.write_text(MICRO_RECIPE.replace("name: micro\n", "name: high\n", 1))
    return [low, high]


class TestLadder:
    def test_rungs_are_trained_compared_and_not_run_twice(self, photos: Path, rungs: list[Path], tmp_path: Path):
        out = tmp_path / "ladder"
        asked = ("ladder", "--data", photos, "--out", out, "--rungs", f"{rungs[0]},{rungs[1]}")
        called = handreid(*asked)
        assert called.code == 0, called.err
        assert "rung 2 of 2: high" in called.err
        below = json.loads((out / "ladder.json").read_text())["rungs"][1]["below"]
        assert below["rank1"]["verdict"] in {"better", "worse", "within noise"}
        assert f"{below['rank1']['verdict']} {100 * below['rank1']['value']:+.1f}" in called.out
        assert (out / "ladder.md").read_text().startswith("| rung | rank-1 |")
        assert called.out.endswith(f"{out / 'ladder.json'} and {out / 'report.html'}\n")
        assert all(name in (out / "report.html").read_text() for name in ("low", "high"))
        again = handreid(*asked, "--json")
        assert "epoch" not in again.err
        found = json.loads(again.out)["rungs"]
        assert [rung["name"] for rung in found] == ["low", "high"]
        assert found[0]["below"] is None
        assert found[1]["below"] == below
        assert found[0]["evaluation"]["hashes"]["draws"] == found[1]["evaluation"]["hashes"]["draws"]

    def test_a_ladder_whose_report_cannot_be_written_is_done_all_the_same(
        self, photos: Path, rungs: list[Path], tmp_path: Path
    ):
        (tmp_path / "out" / "report.html").mkdir(parents=True)
        words = ("--rungs", rungs[0], "--set", "stages=[]")
        called = handreid("ladder", "--data", photos, "--out", tmp_path / "out", *words)
        assert called.code == 0
        assert "note: the report could not be written:" in called.err
        assert called.out.endswith(f"written to {tmp_path / 'out/ladder.md'} and {tmp_path / 'out/ladder.json'}\n")

    def test_a_tower_for_all_rungs_and_a_rung_at_a_time(
        self, photos: Path, rungs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("handreid.cli.ladder._report", lambda *_: None)
        tower = tmp_path / "tower.yaml"
        tower.write_text("preprocess: {normalise: half}\n")
        words = ("--rungs", rungs[0], "--rungs", rungs[1], "--backbone", tower, "--set", "evaluate.draws=2")
        called = handreid("ladder", "--data", photos, "--out", tmp_path / "out", *words, "--set", "stages=[]")
        assert called.code == 0, called.err
        for name in ("low", "high"):
            text = (tmp_path / "out" / name / "recipe.yaml").read_text()
            assert "normalise: half" in text
            assert "draws: 2" in text

    def test_what_is_wrong_is_said_in_a_line(self, photos: Path, rungs: list[Path], tmp_path: Path):
        twice = handreid("ladder", "--data", photos, "--out", tmp_path / "l", "--rungs", f"{rungs[0]},{rungs[0]}")
        assert twice.err == "RunError: two rungs have the name 'low'; change `name` in one of the recipes\n"
        assert "no recipe 'stage9'" in complaint("ladder", "--data", photos, "--rungs", "stage9")
        (tmp_path / "tower.yaml").write_text("- a\n")
        assert "holds no keys" in complaint("ladder", "--data", photos, "--backbone", tmp_path / "tower.yaml")
        assert not (tmp_path / "l").exists()


class TestRenderAndDemo:
    def test_rendered_hands_become_a_manifest(self, tmp_path: Path):
        out = tmp_path / "hands"
        called = handreid("data", "render", "--identities", 2, "--photos", 4, "--size", 48, "--seed", 3, "--out", out)
        assert called.code == 0, called.err
        manifest = read(out / "manifest.parquet")
        assert len(manifest) == 8
        assert set(manifest.views) == {"dorsal-right", "dorsal-left", "palmar-right", "palmar-left"}
        assert all(manifest.table["caption"].str.contains("hand"))
        assert handreid("data", "check", out / "manifest.parquet").out.count("error: ") == 0

    def test_the_demo_ends_with_the_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(DEMO, "size", 48)
        tower = yaml.safe_dump(yaml.safe_load(MICRO_RECIPE)["model"]["backbone"], default_flow_style=True, width=10**6)
        words = ("--out", tmp_path / "demo", "--identities", 12, "--photos", 8, "--set", "evaluate.resamples=100")
        random = ("--weights", "none", "--set", f"model.backbone={tower}")
        called = handreid("demo", *words, *random, "--set", "stages.0.epochs=3")
        assert called.code == 0, called.err
        assert "tiny-cross-entropy" in called.out
        assert "rank-1 against the rung below" in called.out
        assert "drawing hands: 96 photos" in called.err

    def test_the_demo_starts_from_the_weights_of_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(DEMO, "size", 48)
        words = ("--out", tmp_path / "demo", "--identities", 12, "--photos", 8, "--set", "evaluate.resamples=100")
        called = handreid("demo", *words, "--set", "stages.0.epochs=1")
        assert called.code == 0, called.err
        assert all(name in called.out for name in SMALL_LADDER)
        assert open_run(tmp_path / "demo" / "ladder" / "small-triplet").facts["weights_hash"]
