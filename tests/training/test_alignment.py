"""A recipe that aligns hands, from training to the report: alignment is stored with the model, and used everywhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import handreid
from handreid import inference
from handreid.data.manifest import read
from handreid.errors import CheckError, DataError, RecipeError, RunError
from handreid.evaluation.embed import embed_known, select_photos
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of
from handreid.files import read_json
from handreid.models.embedder import Embedder
from handreid.models.sealed import load_sealed
from handreid.progress import NullProgress
from handreid.recipe import Recipe, parse_recipe
from handreid.report.figures.strip_selection import choose
from handreid.report.page.saliency import looks
from handreid.report.photos.test_photos import load_test_photos
from handreid.runs.automatic_alignment import decide_alignment
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run
from handreid.training.train import train
from handreid.types import Alignment
from tests.cli.test_commands import complaint
from tests.cli.test_commands import handreid as command
from tests.conftest import MICRO_RECIPE
from tests.data.test_aligned import without
from tests.turned import turned

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*in eval mode at the start.*"
)

SHORT = ("stages.0.epochs=1", "evaluate.draws=1")


def micro(align: str, *overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", (*SHORT, f"model.preprocess.align={align}", *overrides))


@pytest.fixture(scope="module")
def run(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    # filled as turned copies are, so that these differ by their turn alone
    return train(micro("auto", "model.preprocess.fill=replicated"), hands, tmp_path_factory.mktemp("runs") / "hand")


@pytest.fixture(scope="module")
def plain(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(micro("none"), hands, tmp_path_factory.mktemp("runs") / "none")


def test_the_model_keeps_it(run: Run, plain: Run):
    assert Embedder.load(run.model).preprocessing.alignment == Alignment("hand", fill="replicated")
    assert Embedder.load(plain.model).preprocessing.alignment is None
    summary = next(check for check in read_json(run.stage(0, "fine_tune") / "checks.json")["checks"]
                   if check["name"] == "preprocessing")  # fmt: skip
    assert "aligned (hand)" in summary["found"]


def test_auto_is_decided_by_the_manifest(run: Run, hands: Path):
    assert run.recipe.model.preprocess.align == "hand"
    resumed = train(micro("auto", "model.preprocess.fill=replicated"), hands, run.folder, resume=True)
    assert resumed.folder == run.folder
    with pytest.raises(RunError, match="another recipe"):
        train(micro("none", "model.preprocess.fill=replicated"), hands, run.folder, resume=True)
    photos = read(hands)
    decided, (note,) = decide_alignment(micro("auto"), photos)
    assert decided == micro("hand")
    assert note.startswith("hands are aligned: 40 of 40 photos")
    decided, (note,) = decide_alignment(micro("auto"), replace(photos, table=photos.table.drop("landmarks")))
    assert decided == micro("none")
    assert "`handreid data landmarks`" in note
    assert decide_alignment(micro("upright"), photos) == (micro("upright"), [])


def test_a_model_without_it_is_written_as_before(plain: Run):
    """Files of models saved before there was alignment have no such key, and load."""
    facts, _ = load_sealed(plain.model, "handreid", "handreid model", 3)
    assert set(facts["preprocessing"]) == {"size", "mean", "std", "resize", "interpolation"}


def test_turned_photos_have_the_same_embedding(run: Run, plain: Run, hands: Path, tmp_path: Path):
    upright = read(hands)
    other = turned(upright, tmp_path, 120)
    moved = {
        one: np.linalg.norm(handreid.embed(one.model, other) - handreid.embed(one.model, upright), axis=1).mean()
        for one in (run, plain)
    }
    assert moved[run] < 0.3 * moved[plain]


def test_the_cache_of_embeddings_knows_landmarks(run: Run, hands: Path, tmp_path: Path):
    """The same files with other points are other inputs."""
    evaluate(run)
    whole = read(hands)
    other = replace(whole, table=whole.table.with_columns(landmarks=pl.col("landmarks").reverse()))
    other.write(tmp_path / "other.parquet")
    for path, one in ((hands, whole), (tmp_path / "other.parquet", other)):
        table = select_photos(run, data=path)
        assert np.allclose(embed_known(run, table), handreid.embed(run, one), atol=1e-5)


def test_every_result_counts_photos(hands: Path, tmp_path: Path):
    place = hands.with_name("some.parquet")
    without(read(hands), list(range(0, 40, 4))).write(place)
    run = train(micro("upright", "model.preprocess.without_hand=as_is"), place, tmp_path / "run")
    path, evaluation = evaluate(run)
    counted = read_json(path)["alignment"]
    draw = load_dataset(run.recipe, place).split.test[0]
    for part, rows in (("gallery", draw.gallery), ("query", draw.query)):
        assert counted[part] == {"aligned": int((rows % 4 > 0).sum()), "as_is": int((rows % 4 == 0).sum())}
    assert sum(counted[part]["as_is"] for part in ("gallery", "query")) == 4
    (note,) = [note for note in evaluation.notes if "aligned" in note]
    assert note.startswith("hands aligned (upright): ")
    assert note in " ".join(command("evaluate", str(run.folder)).out.split())
    _, matrix = matrix_of(run, "view")
    assert any(note.startswith("hands aligned (upright): 12 of 16 photos") for note in matrix.notes)


def test_nothing_is_counted_without_alignment(plain: Run):
    path, evaluation = evaluate(plain)
    assert "alignment" not in read_json(path)
    assert not any("aligned" in note for note in evaluation.notes)


def test_the_reports_maps_are_of_aligned_photos(run: Run, monkeypatch: pytest.MonkeyPatch):
    tested = load_test_photos(run)
    shown = looks(tested, choose(tested, each=1)[:1], NullProgress())
    tested.__dict__["files"] = [replace(photo, hand=tested.files[0].hand) for photo in tested.files]
    other = looks(tested, choose(tested, each=1)[:1], NullProgress())
    assert shown["photos"][0]["plain"] != other["photos"][0]["plain"]


def test_refused_before_the_first_step(hands: Path, tmp_path: Path):
    """A test photo without a hand, too."""
    whole = read(hands)
    tested = int(load_dataset(micro("hand"), hands).split.test[0].query[0])
    place = hands.with_name("refused.parquet")
    without(whole, [tested]).write(place)
    with pytest.raises(DataError, match="no hand was found on 1 of 40 photos"):
        train(micro("hand"), place, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_photos_without_landmarks_are_one_clear_error(run: Run, hands: Path, tmp_path: Path):
    bare = read(hands)
    bare = replace(bare, table=bare.table.drop("hands", "landmarks"))
    place = hands.with_name("bare.parquet")
    bare.write(place)
    with pytest.raises(DataError, match=r"aligns hands .*without landmarks: run `handreid data landmarks`"):
        handreid.embed(run, bare)
    told = complaint("embed", str(run.folder), "--data", str(place), "--out", str(tmp_path / "e.parquet"))
    assert "run `handreid data landmarks`" in " ".join(told.split())
    with pytest.raises(DataError, match="40 of 40 photos"):
        train(micro("hand"), place, tmp_path / "run")


@pytest.mark.parametrize("alignment", [None, Alignment("hand", fill="blank"), Alignment("upright")])
def test_the_check_finds_another_alignment_at_test(run: Run, hands: Path, alignment, monkeypatch):
    decode_all = inference.decode_all

    def other(photos, preprocessing, **given):
        return decode_all(photos, replace(preprocessing, alignment=alignment), **given)

    monkeypatch.setattr(inference, "decode_all", other)
    with pytest.raises(CheckError, match="bytes of a photo differ between training and test"):
        train(micro("hand", "model.preprocess.margin=0.2"), hands, run.folder.with_name("checked"))


@pytest.mark.parametrize(
    ("key", "complaint"),
    [("align=hands", "align.*none.*upright.*hand"), ("margin=0.5", "margin"), ("without_hand=skip", "without_hand")],
)
def test_wrong_keys(key: str, complaint: str):
    with pytest.raises(RecipeError, match=complaint):
        micro("hand", f"model.preprocess.{key}")
