"""Recipes that render their own photos: drawn once, shared, and drawn again to the last byte where they are lost."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from handreid.data.manifest import read
from handreid.data.rendered import folder as folder_module
from handreid.data.rendered.folder import Request
from handreid.data.rendered.people import people_set
from handreid.data.rendered.prepared_folder import MANIFEST, prepare_rendered
from handreid.errors import DataError, RecipeError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.files import locked
from handreid.progress import Advance, NullProgress
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.folder import Run
from handreid.runs.rendered_photos import recorded_manifest
from handreid.training.train import train
from handreid.workflows.doctor import diagnose
from handreid.workflows.ladder import run_ladder
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE

PHOTOS = "data.rendered={identities: 10, photos: 4, size: 32, seed: 3}"
RATE = "{kind: adamw, lr: 1.0e-3, schedule: {kind: cosine, warmup_epochs: 1}}"
STAGE = f"{{kind: pretrain, epochs: 1, batch_size: 8, terms: [{{kind: moco, queue: 16}}], optimizer: {RATE}}}"
SHORT = (f"stages=[{STAGE}]", "evaluate.draws=1", "evaluate.resamples=100")


def short_recipe(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", (*SHORT, PHOTOS, *overrides))


class Heard(NullProgress):
    """What was said, and the steps that were begun."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def step(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        if total:
            self.lines.append(what)
        yield lambda _: None

    @property
    def drew(self) -> bool:
        return "drawing hands" in self.lines


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A cache with the photos, and the run that had them drawn."""
    cache = tmp_path_factory.mktemp("drawn") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDREID_CACHE", str(cache))
        heard = Heard()
        run = train(short_recipe(), None, cache.parent / "run", progress=heard)
    assert heard.drew
    assert heard.lines[0].startswith(f"the recipe renders its photos: 40 photos of 10 people in {cache}")
    return cache, run


@pytest.fixture
def cache(drawn: tuple[Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that cache, in use."""
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(drawn[0], tmp_path / "cache"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix == ".jpg"}


def test_the_run_records_how_its_photos_were_rendered(drawn: tuple[Path, Run]) -> None:
    cache, run = drawn
    assert run.facts["rendered"] == {"renderer": 1, "identities": 10, "photos": 4, "size": 32, "seed": 3}
    assert run.facts["manifest"] == str(cache / "rendered-1-10x4-32-3" / MANIFEST)
    manifest = read(Path(run.facts["manifest"]))
    assert manifest.table["sha256"].null_count() == 0
    assert people_set(manifest) == "rendered-3"  # not those of another seed
    assert run.facts["notes"][0].startswith("4 of 10 subjects are used for testing")


def test_other_commands_read_the_same_photos(cache: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (cache / "rendered-1-10x4-32-3").rglob("*")}
    heard = Heard()
    zero = short_recipe("name=zero", "stages=[]")
    run_ladder([zero], None, tmp_path / "ladder", progress=heard)
    assert not heard.drew
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_lost_photos_are_drawn_again_byte_by_byte(drawn: tuple[Path, Run], cache: Path) -> None:
    folder = cache / "rendered-1-10x4-32-3"
    before, lost = contents(folder), sorted((folder / "Hands").iterdir())[7]
    lost.unlink()
    heard = Heard()
    recorded_manifest(drawn[1].facts | {"manifest": str(folder / MANIFEST)}, heard)
    assert heard.drew
    assert contents(folder) == before


def test_evaluate_draws_the_photos_of_its_run(
    drawn: tuple[Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: neither the photos nor their folder are there."""
    hidden = drawn[0].rename(drawn[0].with_name("hidden"))
    try:
        monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "elsewhere"))
        heard = Heard()
        path, evaluation = evaluate(drawn[1], progress=heard)
        assert heard.drew
        assert path == drawn[1].evaluation
        assert evaluation.hashes.manifest == drawn[1].facts["manifest_hash"]  # with the hash of every photo
        called = handreid("train", "--resume", "--out", drawn[1].folder)
        towers = f"handreid train RECIPE --data MANIFEST --set model.backbone.weights={drawn[1].folder}"
        assert called.out == f"{drawn[1].model} was ready; next: {towers}\n"
    finally:
        hidden.rename(drawn[0])


def test_photos_that_would_not_be_the_same(drawn: tuple[Path, Run], cache: Path) -> None:
    facts = drawn[1].facts | {"manifest": "/gone/manifest.parquet"}
    with pytest.raises(RunError, match=r"drawn again and are not those of /gone/manifest.parquet"):
        recorded_manifest(facts | {"manifest_hash": "0" * 64})
    with pytest.raises(RunError, match="version 0 of the renderer, which is now 1"):
        recorded_manifest(facts | {"rendered": facts["rendered"] | {"renderer": 0}})
    folder = cache / "rendered-1-10x4-32-3"
    changed, lost = sorted((folder / "Hands").iterdir())[:2]
    changed.write_bytes(b"another")
    lost.unlink()
    with pytest.raises(DataError, match=r"are not what they were.*remove the folder"):
        recorded_manifest(drawn[1].facts | {"manifest": str(folder / MANIFEST)})


def test_data_takes_precedence(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    heard = Heard()
    run = train(short_recipe(), photos, tmp_path / "run", progress=heard)
    assert not heard.drew
    assert f"note: the photos of {photos} are used, so those of data.rendered are not drawn" in heard.lines
    assert "rendered" not in run.facts
    assert recorded_manifest(run.facts) == photos
    with pytest.raises(RecipeError, match=r"manifest and rendered both say which photos.*--data"):
        short_recipe("data.manifest=m.parquet")


def test_no_place_for_the_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(MICRO_RECIPE)
    asked = (
        "train",
        recipe,
        "--out",
        out,
        "--set",
        PHOTOS.replace("10", "1000000"),
        "--set",
        "data.rendered.size=4096",
    )
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    said = complaint(*asked)
    assert "4,000,000 photos of 4096 pixels take about 7,80" in said
    assert "set HANDREID_CACHE" in said
    (tmp_path / "cache").write_text("a file")
    assert "is a file, not a folder; photos that a recipe renders are kept in the cache" in complaint(*asked)
    assert not out.exists()


def test_ctrl_c_while_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(MICRO_RECIPE)
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_draw", _draw_two)
        called = handreid("train", recipe, "--out", out, "--set", PHOTOS.replace("10", "4"))
    assert called.code == 130
    assert "stopped; to continue: the same command" in called.err
    folder = tmp_path / "cache" / "rendered-1-4x4-32-3"
    assert len(list((folder / "Hands").iterdir())) == 8
    assert not (folder / MANIFEST).exists()
    assert not out.exists()
    assert len(read(prepare_rendered(folder, identities=4, photos=4, size=32, seed=3))) == 16


def _draw_two(out: Path, request: Request, identity: int, photos: list[int], draw: Any = folder_module._draw) -> Any:
    """Two people, then Ctrl-C."""
    if identity == 2:
        raise KeyboardInterrupt
    return draw(out, request, identity, photos)


def test_a_second_process_waits(cache: Path) -> None:
    folder = cache / "rendered-1-10x4-32-3"
    (folder / MANIFEST).unlink()
    heard, told = Heard(), threading.Event()
    heard.say = lambda line: (heard.lines.append(line), told.set())
    thread = threading.Thread(
        target=prepare_rendered,
        args=(folder,),
        kwargs={"identities": 10, "photos": 4, "size": 32, "seed": 3, "progress": heard},
    )
    with locked(folder, "draws"):
        thread.start()
        assert told.wait(10)
        assert heard.lines == [f"another process draws hands into {folder}: waiting for it"]
        assert not (folder / MANIFEST).exists()
    thread.join(10)
    assert (folder / MANIFEST).exists()


def test_the_checks_of_doctor_draw_only_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handreid.workflows.doctor.OF_RECIPE", 10)
    heard = Heard()
    results = diagnose(short_recipe("data.rendered.identities=100000"), progress=heard)
    assert heard.drew
    assert all(check.passed for stage in results for check in stage.checks)
