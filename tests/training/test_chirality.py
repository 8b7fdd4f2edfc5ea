"""A recipe of canonical chirality, from training to results: stored with the model, used everywhere, counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import handreid
from handreid import inference
from handreid.data.loading import decode
from handreid.data.manifest import Manifest, read
from handreid.errors import CheckError, DataError, RecipeError
from handreid.evaluation.embed import embed, embed_known, select_photos
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of
from handreid.files import read_json
from handreid.models.embedder import Embedder
from handreid.recipe import parse_recipe
from handreid.report.figures.ranking_strip import write_strips
from handreid.report.figures.strip_selection import choose
from handreid.report.page.photos import ThumbnailSet, strips
from handreid.report.page.summary_text import describe_run
from handreid.report.photos.seen import seen_thumbnails
from handreid.report.photos.test_photos import load_test_photos
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run
from handreid.training.train import train
from handreid.types import Chirality
from tests.cli.test_commands import handreid as command
from tests.conftest import MICRO_RECIPE
from tests.training.conftest import CANONICAL, short_recipe

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*in eval mode at the start.*"
)


def predicted(manifest: Manifest) -> Manifest:
    """The same photos: the side of left hands is not stated, but predicted."""
    side = pl.when(pl.col("side") == "left").then(None).otherwise("side")
    return replace(manifest, table=manifest.table.with_columns(side=side, handedness="side"))


def test_the_model_keeps_it(canonical: Run):
    assert Embedder.load(canonical.model).preprocessing.chirality == Chirality("refuse")
    (found,) = [check["found"] for check in read_json(canonical.stage(0, "fine_tune") / "checks.json")["checks"]
                if check["name"] == "preprocessing"]  # fmt: skip
    assert "aligned (hand) and left hands mirrored" in found


def test_every_result_counts_sides(canonical: Run, hands: Path, tmp_path: Path):
    place = tmp_path / "predicted.parquet"
    predicted(read(hands)).write(place)
    sides = read(hands).table["side"].to_numpy()
    for data in (None, place):
        path, evaluation = evaluate(canonical, data=data)
        counted = read_json(path)["chirality"]
        draw = load_dataset(canonical.recipe, hands).split.test[0]
        for part, rows in (("gallery", draw.gallery), ("query", draw.query)):
            left = int((sides[rows] == "left").sum())
            assert left > 0
            assert counted[part] == {
                "mirrored": left,
                "right": len(rows) - left,
                "unknown": 0,
                "predicted": left if data else 0,
            }
        (note,) = [note for note in evaluation.notes if note.startswith("left hands mirrored: gallery photos, ")]
    assert note in " ".join(command("evaluate", str(canonical.folder), "--data", str(place)).out.split())


def test_a_matrix_has_no_mirrored_queries(canonical: Run):
    """They would undo it: other hands are compared as right ones already."""
    _, matrix = matrix_of(canonical, "side")
    assert any(kind.kind == "other hand, same aspect" for kind in matrix.kinds)
    assert not any(cell.mirrored for cell in matrix.cells)
    assert "every photo shows the model a right hand, so mirrored queries would show left ones" in matrix.notes
    assert any(note.startswith("left hands mirrored: photos of ") for note in matrix.notes)


def test_the_cache_of_embeddings_knows_sides(canonical: Run, hands: Path, tmp_path: Path):
    evaluate(canonical)
    whole = read(hands)
    swapped = whole.table.with_columns(pl.col("side").replace({"left": "right", "right": "left"}))
    other = replace(whole, table=swapped)
    other.write(tmp_path / "other.parquet")
    for path, one in ((hands, whole), (tmp_path / "other.parquet", other)):
        assert np.allclose(embed_known(canonical, select_photos(canonical, data=path)), handreid.embed(canonical, one),
                           atol=1e-5)  # fmt: skip


def test_the_table_of_embeddings_says_which_side_was_used(canonical: Run, hands: Path, tmp_path: Path):
    whole = read(hands)
    some = predicted(whole).table.with_columns(mirrored=pl.lit(7))
    replace(whole, table=some).write(tmp_path / "m.parquet")
    table = embed(canonical, tmp_path / "e.parquet", data=tmp_path / "m.parquet")
    assert table["side_used"].equals(whole.table["side"], check_names=False)
    assert set(table.select("side_used", "side_from", "mirrored", "manifest_mirrored").iter_rows()) == {
        ("left", "landmarks", True, 7), ("right", "manifest", False, 7)}  # fmt: skip


def test_unknown_sides_are_refused_before_the_first_step(hands: Path, tmp_path: Path):
    nothing = pl.lit(None, pl.String)
    place = hands.with_name("unknown.parquet")
    replace(read(hands), table=read(hands).table.with_columns(side=nothing, handedness=nothing)).write(place)
    with pytest.raises(DataError, match="give the side of 40 of 40 photos"):
        train(short_recipe("model.preprocess.chirality=canonical"), place, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_check_finds_photos_that_are_not_mirrored_at_test(canonical: Run, hands: Path, monkeypatch):
    decode_all = inference.decode_all

    def other(photos, preprocessing, **given):
        return decode_all(photos, replace(preprocessing, chirality=None), **given)

    monkeypatch.setattr(inference, "decode_all", other)
    with pytest.raises(CheckError, match="bytes of a photo differ between training and test"):
        train(short_recipe(*CANONICAL, "model.preprocess.margin=0.2"), hands, canonical.folder.with_name("checked"))


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("model.side_information={columns: [side]}", "model.side_information.columns"),
        ("evaluate.prompts={}", "evaluate.prompts"),
        ("stages=[{kind: learn_prompts, templates: ['A {context} {side} hand.']}]", "stages.0.templates"),
        ("stages=[{kind: learn_prompts, init: {kind: attributes, columns: [side]}}]", "stages.0.init.columns"),
        ("model.head={kind: promptsg_graph}", "model.head.phrases"),
    ],
)
def test_a_recipe_that_tells_sides_apart_is_refused(key: str, where: str):
    with pytest.raises(RecipeError, match=rf"{where} tell left hands from right ones.*canonical"):
        parse_recipe(MICRO_RECIPE, "micro", ("model.preprocess.chirality=canonical", key))


@pytest.mark.parametrize("key", ["chirality=left", "unknown_side=skip"])
def test_wrong_keys(key: str):
    with pytest.raises(RecipeError, match=key.split("=")[0]):
        short_recipe(f"model.preprocess.{key}")


def test_reports_show_below_each_photo_what_the_model_saw(canonical: Run, hands: Path, tmp_path: Path):
    evaluate(canonical)
    tested = load_test_photos(canonical)
    left = next(place for place, photo in enumerate(tested.files) if photo.side == "left")
    (shown,) = seen_thumbnails(tested, [left], 32)
    assert np.array_equal(np.asarray(shown).transpose(2, 0, 1), decode(tested.files[left], tested.changes_photos))
    content = strips(choose(tested), ThumbnailSet(tested, True, 32), "run")
    assert content["caption"].endswith("sees: hands aligned (hand) and left hands mirrored.")
    for row in content["rows"]:
        assert all(one["seen"] and one["seen"] != one["url"] for one in (row["query"], *row["hits"]))
    assert strips(choose(tested), ThumbnailSet(tested, False, 32), "run")["rows"][0]["query"]["seen"] is None
    _, words = write_strips(canonical, tmp_path / "strip.png", each=1)
    assert "below each photo what the model sees" in words.read_text()
    assert "photos of left hands are mirrored" in describe_run(canonical.recipe, None)
    plain = replace(tested, recipe=short_recipe())
    assert plain.changes_photos is None
    assert seen_thumbnails(plain, [left], 32) == []
    assert "sees" not in strips(choose(plain), ThumbnailSet(plain, True, 32), "run")["caption"]
