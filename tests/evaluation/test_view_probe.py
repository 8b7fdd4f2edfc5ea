"""A linear probe on a run's embeddings: fit on people whom the run does not test, and used where it says more."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data.manifest import Manifest, read
from handreid.data.predicted_views import fill_views
from handreid.errors import DataError
from handreid.evaluation import view_probe
from handreid.evaluation.embed import select_photos
from handreid.evaluation.view_probe import fill_by_logits, fit_view_probe, predict_views
from handreid.landmarks.text import landmarks_text
from handreid.landmarks.view import contradicts
from handreid.recipe import parse_recipe
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import handreid
from tests.conftest import MICRO_RECIPE
from tests.landmarks.hands import hand, mirrored


@pytest.fixture(scope="module", autouse=True)
def few_strengths() -> Iterator[None]:
    """Two to choose from, as every probe is fit anew for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_probe, "_STRENGTHS", np.array([0.01, 1.0]))
        yield


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 people, both aspects of both hands: backs are darker than palms. The landmarker takes each left back for a
    right palm, without being sure.
    """
    root = tmp_path_factory.mktemp("probe")
    rows = []
    for person in range(12):
        for aspect, side in (("dorsal", "left"), ("dorsal", "right"), ("palmar", "left"), ("palmar", "right")):
            random = np.random.default_rng([person, len(rows)])
            level = (90 if aspect == "dorsal" else 150) + 2 * person
            name = f"p{person:02d}-{aspect}-{side}.png"
            Image.fromarray(random.normal(level, 15, (32, 32, 3)).clip(0, 255).astype(np.uint8)).save(root / name)
            found = hand(scale=10, at=(16, 28))
            found = mirrored(found, 32) if contradicts(found, side, aspect) else found
            wrong = (aspect, side) == ("dorsal", "left")
            rows.append((name, f"p{person:02d}", side, aspect, 1, landmarks_text(found.points),
                         "right" if wrong else side, 0.65 if wrong else 0.97))  # fmt: skip
    names = ("path", "subject", "side", "aspect", "hands", "landmarks", "handedness", "handedness_score")
    Manifest(pl.DataFrame(rows, names, orient="row"), root).write(root / "manifest.parquet")
    return root / "manifest.parquet"


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages=[]"])
    return train(recipe, manifest, tmp_path_factory.mktemp("runs") / "micro")


@pytest.fixture(scope="module")
def unlabelled(manifest: Path, run: Run) -> tuple[Manifest, pl.DataFrame]:
    """The people whom the run tests, without side and aspect; and their table with them."""
    tested = select_photos(run, part="test").table["subject"].unique()
    truth = read(manifest).filter(pl.col("subject").is_in(tested.implode()))
    empty = [pl.lit(None, pl.String).alias(name) for name in ("side", "aspect")]
    return replace(truth, table=truth.table.with_columns(empty)), truth.table


def wrong(filled: Manifest, truth: pl.DataFrame) -> set[str]:
    """The views of photos whose prediction is not their view."""
    views = truth.select(pl.concat_str("aspect", "side", separator="-")).to_series()
    return {view for view, guess in zip(views, filled.views, strict=True) if guess not in (None, view)}


def test_it_mends_what_the_handedness_gets_wrong(run: Run, unlabelled: tuple[Manifest, pl.DataFrame]):
    photos, truth = unlabelled
    assert wrong(fill_views(photos, threshold=0.5), truth) == {"dorsal-left"}
    filled = predict_views(photos, run, threshold=0.8)
    assert wrong(filled, truth) == set()
    assert filled.table["side"].null_count() == 0
    (note,) = [note for note in filled.notes if note.startswith("views: side of ")]
    assert "by landmarks and a linear probe on micro, fit on 28 photos of 7 people (aspect of people left out: " in note
    assert "which agrees with the landmarker on 15 of 15 photos of which that is sure; known: 0 and 0 of 20" in note


def test_a_probe_that_errs_on_the_photos_at_hand_is_not_used(run: Run, unlabelled: tuple[Manifest, pl.DataFrame]):
    """As one would that was fit on other photos: here its answers are turned around."""
    photos, _ = unlabelled
    rows = list(range(len(photos)))
    logits = -fit_view_probe(run).logits(photos, np.array(rows))
    filled = fill_by_logits(photos, rows, logits, by="a probe")
    alone = fill_views(photos)
    assert filled.hash == alone.hash
    assert "by landmarks alone, as a probe agrees with the landmarker only on 0 of 15 photos" in str(filled.notes)


def test_it_is_fit_on_nobody_who_is_tested(manifest: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    embeddings = view_probe._embeddings

    def spied(photos: Manifest, rows: np.ndarray, *rest: object) -> np.ndarray:
        asked.extend(photos.table["subject"][rows.tolist()])
        return embeddings(photos, rows, *rest)

    monkeypatch.setattr(view_probe, "_embeddings", spied)
    probe = fit_view_probe(run)
    assert not {*asked} & {*select_photos(run, part="test").table["subject"]}
    assert (probe.photos, probe.people) == (28, 7)
    assert probe.accuracy > 0.9
    back, palm = probe.logits(read(manifest), np.array([0, 2]))
    assert back > 1 > -1 > palm


def test_probabilities_are_those_of_people_left_out():
    """Embeddings that tell people, not aspects: a probe that knew the people would be sure, and wrong."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 6)
    dorsal = people % 2 == 0
    features = np.eye(20)[people] * 3 + random.normal(0, 0.1, (120, 20))
    _, accuracy = view_probe._fitted(features, dorsal, people)
    assert accuracy < 0.7
    features[:, 0] = np.where(dorsal, 1, -1) + random.normal(0, 0.1, 120)
    classifier, accuracy = view_probe._fitted(features, dorsal, people)
    assert accuracy == 1
    assert (classifier.predict(features) == dorsal).all()


def test_it_is_fit_on_known_aspects_alone(manifest: Path, run: Run, tmp_path: Path):
    """Of two people whom it could be fit on, the aspects of one are not known, and of the other predicted."""
    unknown, guessed = sorted({*select_photos(run, part="train").table["subject"]})[:2]
    photos = read(manifest)
    columns = {
        "aspect": pl.when(pl.col("subject") != unknown).then("aspect"),
        "aspect_probability": pl.when(pl.col("subject") == guessed).then(0.95),
    }
    replace(photos, table=photos.table.with_columns(**columns)).write(photos.root / "gaps.parquet")
    again = train(run.recipe, photos.root / "gaps.parquet", tmp_path / "gaps")
    probe = fit_view_probe(again)
    assert (probe.photos, probe.people) == (20, 5)


def test_a_run_of_one_aspect_is_refused(manifest: Path, tmp_path: Path):
    backs = read(manifest).filter(pl.col("aspect") == "dorsal")
    backs.write(tmp_path / "backs.parquet")
    run = train(parse_recipe(MICRO_RECIPE, "micro", ["stages=[]"]), tmp_path / "backs.parquet", tmp_path / "backs")
    with pytest.raises(DataError, match="show the backs of 7 and the palms of 0 people"):
        fit_view_probe(run)


def test_the_command(run: Run, unlabelled: tuple[Manifest, pl.DataFrame], tmp_path: Path):
    photos, truth = unlabelled
    photos.write(tmp_path / "photos.parquet")
    words = ("data", "landmarks", tmp_path / "photos.parquet", "--fill-views", "--out", tmp_path / "filled.parquet")
    assert handreid(*words, "--model", run.folder).code == 0
    assert wrong(read(tmp_path / "filled.parquet"), truth) == set()
