"""Files that prove themselves: what is damaged, swapped, cut or killed is an error, a rebuilt cache, or the very same
result. Never other numbers.
"""

import errno
import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

from handreid.build import build_embedder, build_towers
from handreid.data import manifest
from handreid.data.photo_hashes import file_hashes
from handreid.errors import HandreidError, OutputError, PhotoError, RunError, WeightsError
from handreid.evaluation import evaluate as assess
from handreid.evaluation.evaluate import evaluate
from handreid.files import BEGINNING, file_hash, locked, read_json, write_atomic, write_json
from handreid.models import feature_cache
from handreid.models.embedder import Embedder
from handreid.models.feature_cache import cached_joint_features
from handreid.models.prompts import LearnedPrompts
from handreid.models.sealed import load_sealed, save_sealed
from handreid.recipe import Recipe, dump_recipe
from handreid.report.compare.cost import cost_of
from handreid.report.compare.runs import run_folders
from handreid.runs.dataset import load_dataset, photos_of
from handreid.runs.epoch_metrics import append_metrics, read_metrics
from handreid.runs.folder import Run, open_run
from handreid.runs.records import read_sweep
from handreid.runs.results import read_evaluation, read_ladder
from handreid.training.epoch_callback import read_checkpoint_progress
from handreid.training.train import train
from handreid.workflows.ladder import run_ladder
from tests.edits import edit, note
from tests.killing import killed_at, left_by_kills
from tests.plain_results import evaluated, plain
from tests.training.test_learn_prompts import LEARN, TUNE, recipe_of
from tests.training.test_stages import Said, taken
from tests.training.test_train import history, micro

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
Result = TypeVar("Result")
PROMPTS, TUNED = "stages/0-learn_prompts", "stages/1-fine_tune"
WEIGHTS = ("model.safetensors", f"{TUNED}/best.safetensors", f"{TUNED}/last.safetensors", f"{TUNED}/last.ckpt")


def recipe() -> Recipe:
    """Both kinds of stages, and weights between two: every kind of file that there is."""
    learn = LEARN.replace("epochs: 12", "epochs: 6")
    return recipe_of(learn, TUNE.removesuffix("}") + ", wise_ft: {alphas: [0.5]}}")


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped, evaluated."""
    run = train(recipe(), photos, tmp_path_factory.mktemp("whole") / "run")
    evaluate(run)
    return run.folder


@pytest.fixture(scope="module")
def stopped(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, stopped after the first epoch of its last stage."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    stop_after(recipe(), photos, folder, (1, 1))
    return folder


def stop_after(asked: Recipe, photos: Path, folder: Path, place: tuple[int, int]) -> None:
    def watch(entry: Any) -> None:
        if (entry["stage"], entry["epoch"]) == place:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, photos, folder, watch=[watch])


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "whole" / "run"))


@pytest.fixture
def cut(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "cut" / "run"))


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """Photos that a test may change, in a manifest that knows their hashes."""
    root = Path(shutil.copytree(photos.parent, tmp_path / "hands"))
    there = manifest.read(root / photos.name)
    there = manifest.Manifest(there.table, root, there.dataset)
    hashes = manifest.pl.Series("sha256", file_hashes(there.paths()))
    manifest.Manifest(there.table.with_columns(hashes), root, there.dataset).write(root / photos.name)
    return root / photos.name


def files_of(folder: Path) -> list[str]:
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return [str(path.relative_to(folder)) for path in kept if path.name != "evaluation-embeddings.safetensors"]


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(bytes(content))


def offsets(path: Path) -> list[int]:
    """The first byte, the last, and some between."""
    size = path.stat().st_size
    return sorted({0, 9, size // 3, size // 2, size - size // 5, size - 1} & set(range(size)))


def results(folder: Path, *, again: bool = True) -> Any:
    """What is read off a run that is finished, and with `again` what is measured anew."""
    run = open_run(folder)
    found = evaluated(run)[1] if again else plain(read_evaluation(run.evaluation))
    numbers = {key: value for key, value in found.items() if key not in ("environment", "reranked")}
    told = [read_json(path) for path in sorted(folder.rglob("parameters.json"))]
    return json.loads(json.dumps([numbers, read_metrics(run), dump_recipe(run.recipe), vars(cost_of(run)), told]))


def tried(work: Callable[[], Result]) -> tuple[Result | None, str | None]:
    """What it gives, or the error that it ends with."""
    try:
        return work(), None
    except HandreidError as error:
        return None, str(error)


class TestBitFlips:
    def test_in_a_finished_run(self, whole: Path, monkeypatch: pytest.MonkeyPatch):
        """Each file, at several places: what is read is the same, or an error names the file."""
        monkeypatch.setattr(assess, "write_json", lambda *_, **__: None)  # what is there stays there
        monkeypatch.setattr(assess, "add_to_cache", lambda *_, **__: None)
        wanted = {again: results(whole, again=again) for again in (True, False)}
        errors = dict.fromkeys(files_of(whole), 0)
        for name in errors:
            content, again = (whole / name).read_bytes(), name in ("recipe.yaml", "run.json", "model.safetensors")
            for offset in offsets(whole / name):
                flip(whole / name, offset)
                found, refusal = tried(lambda again=again: results(whole, again=again))
                assert (found == wanted[again]) if refusal is None else (name.split("/")[-1] in refusal), (name, offset)
                errors[name] += refusal is not None
                (whole / name).write_bytes(content)
        opened = ("recipe.yaml", "run.json", "metrics.jsonl", "evaluation.json", "model.safetensors")
        assert all(errors[name] >= 4 for name in opened), errors

    @pytest.mark.parametrize("name", ["best", "last", "wise_ft"])
    def test_in_weights_of_stages_of_which_a_model_is_made_anew(self, name: str, whole: Path):
        model = (whole / "model.safetensors").read_bytes()
        (whole / "model.safetensors").unlink()
        path = whole / TUNED / f"{name}.safetensors"
        flip(path, path.stat().st_size // 2)
        if name == "wise_ft":  # the others are not what this stage ends with
            with pytest.raises(RunError, match=r"wise_ft\.safetensors was changed, damaged .* remove .*1-fine_tune"):
                train(None, None, whole, resume=True)
        else:
            assert train(None, None, whole, resume=True).model.read_bytes() == model

    def test_in_a_run_that_goes_on(self, cut: Path, finished: Path, tmp_path: Path):
        model, names = (finished / "model.safetensors").read_bytes(), files_of(cut)
        assert {f"{TUNED}/checkpoint.json", f"{TUNED}/last.ckpt", f"{PROMPTS}/stage.json", "metrics.jsonl"} <= {*names}
        refused = set()
        for name in names:
            copied = Path(shutil.copytree(cut, tmp_path / "tried" / "run"))
            flip(copied / name, (cut / name).stat().st_size // 2)
            run, refusal = tried(lambda copied=copied: train(None, None, copied, resume=True))
            if run is not None:
                assert run.model.read_bytes() == model, name
                assert history(copied) == history(finished), name
            else:
                assert name.split("/")[-1] in (refusal or ""), (name, refusal)
                refused.add(name)
            shutil.rmtree(copied)
        looked_at = {
            path for path in names if path.endswith(("checks.json", "parameters.json", "training-photos.json"))
        }
        assert refused == {*names} - looked_at - {f"{PROMPTS}/last.ckpt"}

    def test_in_a_model_by_itself(self, finished: Path, tmp_path: Path):
        path, pixels = tmp_path / "m.safetensors", torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
        shutil.copy(finished / "model.safetensors", path)
        wanted, content = Embedder.load(path).embed(pixels), path.read_bytes()
        errors = 0
        places = [*range(0, 2400, 97), *range(2400, len(content), len(content) // 12), len(content) - 1]
        for offset in places:
            flip(path, offset)
            try:
                assert torch.equal(Embedder.load(path).embed(pixels), wanted), offset
            except WeightsError:
                errors += 1
            path.write_bytes(content)
        assert errors > len(places) - 3

    def test_in_learned_prompts(self, finished: Path, tmp_path: Path):
        path = tmp_path / "p.safetensors"
        shutil.copy(finished / PROMPTS / "last.safetensors", path)
        content = path.read_bytes()
        for offset in offsets(path):
            flip(path, offset)
            with pytest.raises(WeightsError, match=r"p\.safetensors"):
                LearnedPrompts.load(path)
            path.write_bytes(content)

    def test_a_file_is_hashed_once_in_a_process(self, finished: Path, monkeypatch: pytest.MonkeyPatch):
        evaluate(open_run(finished))
        monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
        evaluate(open_run(finished))


class TestWhatIsNotAsItWasWritten:
    def test_edited_by_hand(self, whole: Path):
        path = whole / "evaluation.json"
        path.write_text(path.read_text().replace('"recipe": "micro"', '"recipe": "other"'))
        with pytest.raises(RunError, match=r"evaluation\.json was changed or damaged"):
            read_evaluation(path)
        recipe_file = whole / "recipe.yaml"
        recipe_file.write_text(recipe_file.read_text() + "# a remark\n")
        with pytest.raises(
            RunError, match=r"recipe\.yaml was changed, damaged .* train the changed recipe into another folder"
        ):
            evaluate(open_run(whole))

    def test_another_runs_model(self, whole: Path):
        shutil.copy(whole / TUNED / "last.safetensors", whole / "model.safetensors")
        with pytest.raises(RunError, match=r"model\.safetensors was changed, damaged .* --resume"):
            evaluate(open_run(whole))
        with pytest.raises(RunError, match=r"model\.safetensors was changed, damaged"):
            train(micro("stages=[]", "init_from=run"), manifest_of(whole), whole.parent / "child")

    def test_a_model_put_into_a_run_that_is_not_finished(self, cut: Path, finished: Path):
        shutil.copy(finished / "model.safetensors", cut)
        with pytest.raises(RunError, match="no hash of it"):
            evaluate(open_run(cut))

    def test_a_checkpoint_of_another_run(self, cut: Path, whole: Path):
        shutil.copy(whole / TUNED / "last.ckpt", cut / TUNED)
        with pytest.raises(RunError, match=r"last\.ckpt was changed, damaged .* put back a copy"):
            train(None, None, cut, resume=True)
        shutil.rmtree(cut / TUNED)
        assert train(None, None, cut, resume=True).model.read_bytes() == (whole / "model.safetensors").read_bytes()

    def test_a_stage_that_is_done_again_and_those_after_it(self, whole: Path, finished: Path):
        (whole / "model.safetensors").unlink()
        shutil.rmtree(whole / PROMPTS)
        run = train(None, None, whole, resume=True)
        assert run.model.read_bytes() == (finished / "model.safetensors").read_bytes()
        assert history(whole) == history(finished)

    def test_the_best_model_gone(self, cut: Path):
        """It ended with the last one, and did not say so."""
        (cut / TUNED / "best.safetensors").unlink()
        with pytest.raises(RunError, match=r"best\.safetensors cannot be read"):
            train(None, None, cut, resume=True)

    def test_lines_of_metrics(self, cut: Path, whole: Path):
        lines = (cut / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        for kept, complaint in (
            ([*lines, lines[-1]], "line 8 is of stage 1, epoch 1, after one of stage 1, epoch 1"),
            ([lines[0], b"[]\n", *lines[1:]], "line 2 was changed, damaged"),
            ([lines[0], lines[1].replace(b'"loss": ', b'"loss": 1'), *lines[2:]], "line 2 was changed, damaged"),
            ([lines[0], b"\xe9" + lines[1], *lines[2:]], "line 2 was changed, damaged"),
        ):
            (cut / "metrics.jsonl").write_bytes(b"".join(kept))
            with pytest.raises(RunError, match=complaint):
                read_metrics(Run(cut))
        (cut / "metrics.jsonl").write_bytes(b"".join(lines) + lines[0][:30])  # killed in the middle of a line
        assert len(read_metrics(Run(cut))) == len(lines)
        (cut / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
        with pytest.raises(RunError, match="no line of epoch 1 of stage 1, which the checkpoint includes"):
            train(None, None, cut, resume=True)
        metrics = whole / "metrics.jsonl"
        metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:-1]))
        with pytest.raises(RunError, match=r"metrics\.jsonl was changed, damaged"):
            read_metrics(Run(whole))


def manifest_of(folder: Path) -> Path:
    return Path(read_json(folder / "run.json")["manifest"])


ODD = [
    b"[]",
    b"null",
    b"3",
    b"{}",
    b'{"format": 1}',
    b"\xff\xfe\0",
    '{"key": "h\xe9"}'.encode("latin-1"),
    b"",
    b"[" * 9999,
]


class TestOneReaderPerKind:
    @pytest.mark.parametrize("content", ODD)
    def test_what_is_something_else_is_one_error(self, content: bytes, finished: Path, stopped: Path, tmp_path: Path):
        cases: list[tuple[str, Path, Callable[[Path], object]]] = [
            ("run.json", finished, lambda run: evaluate(open_run(run))),
            ("run.json", finished, lambda run: train(None, None, run, resume=True)),
            ("evaluation.json", finished, lambda run: read_evaluation(run / "evaluation.json").metrics),
            ("metrics.jsonl", stopped, lambda run: train(None, None, run, resume=True)),
            (f"{PROMPTS}/stage.json", stopped, lambda run: train(None, None, run, resume=True)),
            (f"{TUNED}/checkpoint.json", stopped, lambda run: train(None, None, run, resume=True)),
            (f"{TUNED}/last.ckpt", stopped, lambda run: read_checkpoint_progress(run / TUNED)),
            ("ladder.json", finished, lambda run: run_folders([run.parent])),
            ("ladder.json", finished, lambda run: read_ladder(run.parent)),
            ("sweep.json", finished, lambda run: read_sweep(run.parent)),
        ]
        for name, source, work in cases:
            run = Path(shutil.copytree(source, tmp_path / "some" / "run"))
            where = run.parent if name in ("ladder.json", "sweep.json") else run
            (where / name).write_bytes(content)
            with pytest.raises((RunError, WeightsError)) as error:
                work(run)
            assert name.split("/")[-1] in str(error.value)
            shutil.rmtree(run.parent)

    def test_an_older_version_says_so(self, whole: Path):
        edit(whole / "run.json", without=["format"])
        with pytest.raises(
            RunError, match=r"another version of handreid .it says no format, and this one reads 2.; train"
        ):
            evaluate(open_run(whole))
        facts = json.loads((whole / "run.json").read_text())
        facts.pop("checksum")
        (whole / "run.json").write_text(json.dumps({**facts, "format": 1}))
        with pytest.raises(RunError, match="its checksum is missing"):
            evaluate(open_run(whole))

    @pytest.mark.parametrize("content", ["garbage", "half", "pickle", "dict", "list"])
    def test_a_checkpoint_of_something_else(self, content: str, cut: Path, tmp_path: Path):
        """Also where its hash is noted: in a folder that somebody else has made."""
        path = cut / TUNED / "last.ckpt"
        match content:
            case "garbage":
                path.write_bytes(b"no" * 100)
            case "half":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            case "pickle":
                path.write_bytes(pickle.dumps(os.system))
            case "dict":
                torch.save({"epoch": 1, "callbacks": {"EpochCallback": 3}}, path)
            case "list":
                torch.save([1], path)
        for noted in (False, True):
            if noted:
                known = read_json(path.parent / "checkpoint.json")["files"]
                edit(path.parent / "checkpoint.json", files=known | {path.name: [file_hash(path)]})
            with pytest.raises(RunError, match=r"last\.ckpt was") as error:
                train(None, None, cut, resume=True)
            assert "weights_only" not in str(error.value)

    def test_a_checkpoint_of_another_tower(self, cut: Path):
        path = cut / TUNED / "last.ckpt"
        content = torch.load(path, weights_only=True)
        content["state_dict"] = {"other": torch.zeros(1)}
        torch.save(content, path)
        known = read_json(path.parent / "checkpoint.json")["files"]
        edit(path.parent / "checkpoint.json", files=known | {path.name: [file_hash(path)]})
        with pytest.raises(RunError, match=r"last\.ckpt does not fit this stage"):
            train(None, None, cut, resume=True)

    @pytest.mark.parametrize(
        "change",
        [
            {"backbone": []},
            {"backbone": {}},
            {"head": {"kind": 7}},
            {"head": {}},
            {"preprocessing": {"size": [32]}},
            {"test_features": ["joint", "nose"]},
            {"features": ["parts"]},
            {"necks": None},
        ],
    )
    def test_a_model_that_says_odd_things_of_itself(self, change: dict[str, Any], finished: Path, tmp_path: Path):
        facts, tensors = load_sealed(finished / "model.safetensors", "handreid", "model", 3)
        save_sealed(tmp_path / "m.safetensors", tensors, "handreid", facts | change)
        with pytest.raises(WeightsError, match=r"m\.safetensors"):
            Embedder.load(tmp_path / "m.safetensors")

    @pytest.mark.parametrize("said", ["[]", "null", "3", "no", '{"format": 2}', '{"format": 3}'])
    def test_a_file_with_odd_metadata(self, said: str, tmp_path: Path):
        path = tmp_path / "m.safetensors"
        save_file({"a": torch.zeros(1)}, path, metadata={"handreid": said, "handreid-prompts": said})
        for load in (Embedder.load, LearnedPrompts.load):
            with pytest.raises(WeightsError, match=r"m\.safetensors"):
                load(path)
        save_sealed(path, {"texts": torch.zeros(3)}, "handreid-prompts", {"format": 2, "identities": 3})
        with pytest.raises(WeightsError, match="holds no learned prompts"):
            LearnedPrompts.load(path)


class TestOtherPhotos:
    def test_swapped_between_kill_and_resume(self, own_photos: Path, tmp_path: Path):
        """It trained on the new ones, without a word."""
        stop_after(micro(), own_photos, tmp_path / "run", (0, 1))
        (first,) = (path for path in trained_on(own_photos)[:1])
        content = first.read_bytes()
        first.write_bytes(trained_on(own_photos)[-1].read_bytes())
        with pytest.raises(RunError, match=rf"other photos.*, 1 of \d+ .such as {first.parent.name}/{first.name}"):
            train(None, None, tmp_path / "run", resume=True)
        first.write_bytes(content)  # the same bytes, at another time
        assert train(None, None, tmp_path / "run", resume=True).finished
        first.write_bytes(trained_on(own_photos)[-1].read_bytes())
        with pytest.raises(
            RunError, match="other photos"
        ):  # what comes after, as in a ladder, would be compared with it
            train(micro(), own_photos, tmp_path / "run", resume=True)
        first.unlink()
        assert train(None, None, tmp_path / "run", resume=True).finished  # of a finished run they are not missed

    def test_deleted_ones_are_named(self, own_photos: Path, tmp_path: Path):
        stop_after(micro(), own_photos, tmp_path / "run", (0, 1))
        first = trained_on(own_photos)[0]
        first.unlink()
        with pytest.raises(
            PhotoError, match=rf"1 of \d+ training and validation photos are missing .such as .*{first.name}"
        ):
            train(None, None, tmp_path / "run", resume=True)
        with pytest.raises(PhotoError, match=rf"{first.name} is missing|not there"):
            train(micro("name=new"), own_photos, tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_backgrounds_are_photos_too(self, own_photos: Path, tmp_path: Path):
        folder = tmp_path / "backgrounds"
        folder.mkdir()
        shutil.copy(trained_on(own_photos)[0], folder / "a.jpg")
        asked = micro(f"stages.0.augment=[{{kind: background, folder: {folder}}}]")
        material = load_dataset(asked, own_photos)
        before = photos_of(asked, material)
        shutil.copy(trained_on(own_photos)[-1], folder / "a.jpg")
        assert photos_of(asked, material) != before
        assert not photos_of(micro("stages=[]"), material)


def trained_on(photos: Path) -> list[Path]:
    material = load_dataset(micro(), photos)
    return [material.manifest.paths()[row] for row in material.split.train]


class TestKills:
    def test_at_any_file_operation_a_run_goes_on_to_the_same_weights(self, photos: Path, tmp_path: Path):
        """From what there is before anything is opened to be written, made, renamed or removed below the run folder."""
        asked = micro("stages.0.epochs=2", "stages.0.wise_ft={alphas: [0.5]}")
        want = train(asked, photos, tmp_path / "want" / "run")
        numbers = {*range(9), *range(9, 1000, 19)}  # all of the beginning, some of the rest
        ended, left = tmp_path / "ended", tmp_path / "left"
        left_by_kills(numbers, ended, left, asked, photos, ended / "run")
        kills = sorted(left.iterdir(), key=lambda path: int(path.name))
        assert len(kills) > 12
        for parent in [*kills, ended]:
            folder = parent / "run"
            run = train(asked, photos, folder, resume=True)
            assert run.model.read_bytes() == want.model.read_bytes(), parent.name
            assert history(folder) == history(want.folder), parent.name
            assert files_of(folder) == files_of(want.folder), parent.name
            assert not [path for path in folder.rglob(".*") if path.name != ".lock"], parent.name
            shutil.rmtree(parent)

    def test_a_resume_that_is_killed_can_be_resumed(self, cut: Path, finished: Path, photos: Path):
        """Whose notes were written before a kill and whose files were not, and that again."""
        for number in (3, 9, 9, 14, 14, 20, 33):
            if killed_at(number, cut, None, None, cut):
                break
        run = train(None, None, cut, resume=True)
        assert run.model.read_bytes() == (finished / "model.safetensors").read_bytes()
        assert history(cut) == history(finished)

    def test_a_ladder_goes_on_after_a_kill_at_the_beginning_of_a_rung(self, photos: Path, tmp_path: Path):
        rungs = [micro("name=zero", "stages=[]"), micro("name=one", "stages.0.epochs=1")]
        folder = tmp_path / "ladder" / "one"
        assert not killed_at(8, folder, rungs, photos, tmp_path / "ladder")
        assert (folder / BEGINNING).exists()
        assert not (folder / "run.json").exists()
        with pytest.raises(RunError, match=r"no run to resume: give a recipe .*handreid train RECIPE --data"):
            train(None, None, folder, resume=True)
        assert [rung.name for rung in run_ladder(rungs, photos, tmp_path / "ladder")] == ["zero", "one"]

    def test_what_older_versions_left_at_the_beginning_is_nothing_and_what_people_have_is_something(
        self, photos: Path, tmp_path: Path
    ):
        asked = micro("stages=[]")
        for name in ("left", "other", "own"):
            (tmp_path / name).mkdir()
        (tmp_path / "left" / "recipe.yaml").write_text(dump_recipe(asked))
        (tmp_path / "left" / ".recipe.yaml.writing").write_text("half")
        assert train(asked, photos, tmp_path / "left", resume=True).finished
        assert not list((tmp_path / "left").glob(".*writing"))
        (tmp_path / "other" / "recipe.yaml").write_text(dump_recipe(micro("stages=[]", "seed=5")))
        (tmp_path / "own" / "notes.txt").write_text("mine")
        for name in ("other", "own", "left"):
            with pytest.raises(RunError, match="is not empty; choose another --out"):
                train(asked, photos, tmp_path / name)

    def test_temporary_files_of_the_dead_go(self, cut: Path):
        (cut / TUNED / ".last.ckpt.writing").write_bytes(b"of an older version")
        (cut / ".run.json.0123abcd-1-0123abcd.writing.json").write_bytes(b"of another machine")
        train(None, None, cut, resume=True)
        assert [path.name for path in cut.rglob(".*")] == [".lock"]


class TestAlone:
    def test_a_second_process_is_refused(self, cut: Path, photos: Path):
        with locked(cut, "trains in it"), pytest.raises(RunError, match="is in use: another process trains in it"):
            train(None, None, cut, resume=True)
        assert train(None, None, cut, resume=True).finished

    def test_a_finished_run_needs_no_lock(self, whole: Path, photos: Path):
        with locked(whole, "trains in it"):
            evaluate(open_run(whole))
            assert train(None, None, whole, resume=True).finished

    def test_a_disk_that_knows_no_locks_is_said(self, cut: Path, monkeypatch: pytest.MonkeyPatch):
        def unknown(*_: object, **__: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(FileLock, "acquire", unknown)
        said = Said()
        assert train(None, None, cut, resume=True, progress=said).finished
        assert any("without file locks" in line for line in said.lines)


class TestReuseAfterDamage:
    @pytest.mark.parametrize("content", [b"[]", b"null", b"no json", b"\xff", b"{}"])
    def test_a_broken_stage_beside_stops_nobody(self, content: bytes, finished: Path, photos: Path, tmp_path: Path):
        sibling = tmp_path / "a" / "stages" / "0-fine_tune" / "stage.json"
        sibling.parent.mkdir(parents=True)
        sibling.write_bytes(content)
        said = Said()
        assert taken(train(micro("stages.0.epochs=1"), photos, tmp_path / "run", progress=said)) == [False]
        assert any(str(sibling) in line for line in said.lines) or content == b"{}"

    @pytest.mark.parametrize("damage", ["weights", "metrics", "half", "told"])
    def test_damaged_stages_are_not_taken(self, damage: str, whole: Path, photos: Path):
        best = whole / TUNED / "best.safetensors"
        match damage:
            case "weights":
                flip(best, best.stat().st_size // 2)
            case "half":
                best.unlink()
            case "metrics":
                flip(whole / "metrics.jsonl", 100)
            case "told":
                flip(whole / TUNED / "parameters.json", 20)
        said = Said()
        run = train(recipe(), photos, whole.parent / "second", progress=said)
        assert taken(run) == [damage != "metrics", False]
        assert any(
            ("is trained again, as that of" in line and "changed" in line) or "read" in line for line in said.lines
        )
        assert run.model.read_bytes() == (whole / "model.safetensors").read_bytes()
        assert history(run.folder)[-1]["stage"] == 1

    def test_what_is_taken_proves_itself_too(self, whole: Path, photos: Path):
        run = train(recipe(), photos, whole.parent / "second")
        assert taken(run) == [True, True]
        files = read_json(run.folder / TUNED / "stage.json")["files"]
        assert files == {name: file_hash(run.folder / TUNED / name) for name in files}
        assert set(files) == {"best.safetensors", "last.safetensors", "wise_ft.safetensors"}


@pytest.fixture
def little_room() -> Iterator[Callable[[int], None]]:
    """Files may be so long; torch, safetensors and numpy then fail as they do on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestDisksThatAreFull:
    def test_in_the_middle_of_a_checkpoint(self, photos: Path, tmp_path: Path, little_room: Callable[[int], None]):
        model = train(micro(), photos, tmp_path / "want" / "run").model
        stop_after(micro(), photos, tmp_path / "run", (0, 1))
        little_room((tmp_path / "run/stages/0-fine_tune/last.ckpt").stat().st_size // 2)
        with pytest.raises(OutputError, match=r"(best\.safetensors|last\.ckpt) cannot be written"):
            train(None, None, tmp_path / "run", resume=True)
        little_room(resource.RLIM_INFINITY)
        assert not list((tmp_path / "run").rglob("*.writing*"))
        assert train(None, None, tmp_path / "run", resume=True).model.read_bytes() == model.read_bytes()

    @pytest.mark.parametrize("kind", ["torch", "safetensors", "numpy", "polars", "text"])
    def test_whoever_writes(self, kind: str, tmp_path: Path, little_room: Callable[[int], None]):
        numbers = np.random.default_rng(0).random(100_000)
        writers: dict[str, Callable[[Path], object]] = {
            "torch": lambda part: torch.save({"a": torch.from_numpy(numbers)}, part),
            "safetensors": lambda part: save_file({"a": torch.from_numpy(numbers)}, part),
            "numpy": lambda part: np.save(part.with_suffix(".npy"), numbers),
            "polars": lambda part: manifest.pl.DataFrame({"a": numbers}).write_parquet(part),
            "text": lambda part: part.write_text("a" * 800_000),
        }
        little_room(100_000)
        with pytest.raises(OutputError, match=r"out\.npy cannot be written: "):
            write_atomic(tmp_path / "out.npy", writers[kind])
        little_room(resource.RLIM_INFINITY)
        assert not list(tmp_path.iterdir())

    def test_a_bug_is_no_full_disk_and_ctrl_c_neither(self, tmp_path: Path):
        def bug(_: Path) -> None:
            raise RuntimeError("shapes differ")

        def stopped(_: Path) -> None:
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")

        for write in (bug, stopped):
            with pytest.raises(RuntimeError):
                write_atomic(tmp_path / "out", write)


def test_a_run_folder_that_cannot_be_written_is_known_before_the_work_and_can_be_read(
    whole: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = results(whole, again=False)

    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", denied)
    monkeypatch.setattr(assess, "load_embedder", lambda _: pytest.fail("worked before it looked"))
    with pytest.raises(OutputError, match="cannot be written"):
        evaluate(open_run(whole))
    with pytest.raises(OutputError, match="cannot be written"):
        train(micro(), photos, whole.parent / "other")
    assert results(whole, again=False) == wanted


class TestTheFeatureCache:
    @pytest.mark.parametrize("damage", ["flip", "half", "empty", "pickle", "foreign"])
    def test_one_that_is_not_as_it_was_written_is_made_anew(self, damage: str, tmp_path: Path):
        embedder = build_embedder(micro(), build_towers(micro()))
        photos = np.random.default_rng(0).integers(0, 255, (3, 3, 32, 32), np.uint8)
        wanted = cached_joint_features(embedder, photos, folder=tmp_path)
        (path,) = tmp_path.iterdir()
        match damage:
            case "flip":
                flip(path, path.stat().st_size // 2)
            case "half":
                path.write_bytes(path.read_bytes()[:-40])
            case "empty":
                path.write_bytes(b"")
            case "pickle":
                np.save(path, np.array([{}]), allow_pickle=True)
            case "foreign":
                path.write_bytes(feature_cache._sealed(np.zeros((4, 32), np.float32)))
        said = Said()
        assert np.array_equal(cached_joint_features(embedder, photos, folder=tmp_path, progress=said), wanted)
        assert any("computed again" in line for line in said.lines)
        silent = Said()
        assert np.array_equal(cached_joint_features(embedder, photos, folder=tmp_path, progress=silent), wanted)
        assert not silent.lines

    def test_a_cache_that_cannot_be_kept_is_said(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        embedder = build_embedder(micro(), build_towers(micro()))
        said = Said()
        cached_joint_features(embedder, np.zeros((1, 3, 32, 32), np.uint8), folder=tmp_path / "file", progress=said)
        assert any("could not be cached" in line for line in said.lines)


class TestJson:
    def test_an_epochs_line_is_read_as_it_was_written(self, tmp_path: Path):
        entry = {"stage": 0, "epoch": 1, "loss": 0.1 + 0.2, "peak_memory": 2**40, "none": None, "odd": float("inf")}
        append_metrics(Run(tmp_path), entry)
        assert read_metrics(Run(tmp_path)) == [entry]

    def test_whoever_keeps_a_file_keeps_its_checksum(self, tmp_path: Path):
        write_json(tmp_path / "a.json", {"format": 1, "a": 1})
        assert read_json(tmp_path / "a.json") == {"format": 1, "a": 1}
        (tmp_path / "a.json").write_text('{"format": 1, "a": 1}')
        with pytest.raises(RunError, match="its checksum is missing"):
            read_json(tmp_path / "a.json")
        (tmp_path / "b.json").write_text('{"a": 1}')
        assert read_json(tmp_path / "b.json") == {"a": 1}


def test_noting_keeps_what_is_on_the_disk(cut: Path):
    """A model that was edited on purpose is noted by whoever does so, and then is the run's."""
    path = cut / TUNED / "last.ckpt"
    assert read_checkpoint_progress(path.parent) == (1, False)
    note(cut, "recipe.yaml")
    assert open_run(cut).recipe == recipe()
